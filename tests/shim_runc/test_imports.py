"""What a shim imports, and when: nothing heavy, and everything of ours before it is forked."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass_shim_runc import plugin

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shims run on Linux only")

HEAVY = """
asyncio collections.abc contextlib dataclasses enum google.protobuf grpc json logging pathlib re shutil signal socket
subprocess tempfile threading traceback typing urllib
"""
"""Each is a tenth of a megabyte or more, in every shim."""

OF_THE_OCI_RUNTIME = {"collections.abc", "contextlib", "enum", "json", "re", "signal", "socket"}
"""It needs these to read a specification; they are the zygote's, and shims that do not use them share them with it."""

LATE = {
    "windlass_oci_runtime.enrolling": {"windlass_oci_runtime.systemd"},
    "windlass_oci_runtime.idmapped": {"windlass_linux.idmap"},
    "windlass_oci_runtime.rootfs": {"windlass_oci_runtime.copying"},
    "windlass_linux.mounting": {"windlass_linux.idmap", "windlass_linux.loop", "windlass_linux.overlay_mount"},
}
"""Modules of ours that shims import when they first need them, since what those import is heavy."""

PROGRAM = """
import importlib, sys
sys.path[:] = sys.argv[1].split(":")
importlib.import_module("windlass_zygote.process")
for module in sys.argv[2:]:
    importlib.import_module(module)
print(*sys.modules)
"""


@pytest.fixture(scope="module")
def loaded() -> frozenset[str]:
    """The modules of a zygote of shims."""
    shim = plugin.init_own(None)  # type: ignore[arg-type] # it asks for nothing
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, ":".join(sys.path), *shim.preload]
    return frozenset(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_a_shim_has_no_heavy_modules(loaded: frozenset[str]) -> None:
    """Whoever adds an import here adds its weight to every container."""
    assert loaded.intersection(HEAVY.split()) <= OF_THE_OCI_RUNTIME


def test_a_shim_runs_the_code_that_it_was_forked_with(loaded: frozenset[str]) -> None:
    """A module that is imported later would be another version's after an upgrade."""
    bad = [
        f"{module} imports {name} when it needs it; import it at the top"
        for module in sorted(loaded)
        if module.startswith("windlass")
        for name in late_imports(module)
        if name not in loaded and name not in LATE.get(module, ())
    ]
    assert not bad, "\n".join(bad)


def late_imports(module: str) -> Iterator[str]:
    """Yield the modules of ours that a module's functions import."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    for function in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("windlass"):
                    for alias in node.names:
                        whole = f"{node.module}.{alias.name}"
                        yield (
                            whole
                            if importlib.util.find_spec(str(node.module)) and is_module(whole)
                            else str(node.module)
                        )
                elif isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names if alias.name.startswith("windlass"))


def is_module(name: str) -> bool:
    """Tell a module from a name in one."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
