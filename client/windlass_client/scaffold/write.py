"""Writes a package from the templates of its kind; all of it, or nothing."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from windlass.errors import AlreadyExists, InvalidArgument
from windlass_client.scaffold.kinds import Kind

NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
LONGEST = 40
SUFFIX = ".in"


def write(kind: Kind, name: str, parent: Path) -> Path:
    """Write the package ``name`` into a new directory below ``parent``, and return that.

    Raises InvalidArgument for a name that cannot be one, AlreadyExists if the directory is there.
    """
    values = values_of(kind, name)
    target = parent / name
    if target.exists():
        raise AlreadyExists(f"{target} exists already; choose another name, or --directory")
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    try:
        for path, text in contents(kind, values):
            file = scratch / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        scratch.chmod(0o755)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return target


def values_of(kind: Kind, name: str) -> dict[str, str]:
    """Return what the templates' fields stand for. Raises InvalidArgument for a name that cannot be one."""
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise InvalidArgument(f"{name[:80]} is not a name for a plugin; use small letters, digits and single hyphens")
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or find_spec(package) is not None:
        raise InvalidArgument(f"{package} is already a module of Python here; choose another name")
    dependencies = ["windlass-kernel >=0.1,<0.2", *kind.dependencies]
    tests = ["windlass-conformance" if kind.suite else "pytest >=7.2", *kind.test_dependencies]
    script = f'\n[project.scripts]\ncontainerd-shim-{name}-v1 = "{package}.binary:main"\n' if kind.scripts else ""
    return {
        "name": name,
        "package": package,
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "uri": f"{kind.uri}.{name}",
        "kind": kind.name,
        "purpose": kind.purpose,
        "dependencies": ", ".join(f'"{each}"' for each in dependencies),
        "test_dependencies": ", ".join(f'"{each}"' for each in tests),
        "scripts": script,
        "suite": kind.suite.rpartition(":")[2] or "none",
    }


def contents(kind: Kind, values: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Yield the files of a package: those of every kind, and those of this one."""
    yield Path(values["package"]) / "py.typed", ""
    for folder in ("common", kind.name):
        for template in sorted(files(__package__).joinpath("templates", folder).iterdir(), key=lambda each: each.name):
            text = Template(template.read_text()).substitute(values)
            yield _place(template.name.removesuffix(SUFFIX), values), text


def _place(name: str, values: Mapping[str, str]) -> Path:
    """Return where a file goes: tests in a folder of their own, other Python files in the package."""
    if name == "test_plugin.py":
        return Path("tests") / f"test_{values['package']}.py"
    return Path(values["package"]) / name if name.endswith(".py") else Path(name)
