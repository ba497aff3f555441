"""Compiles the modules that a distribution names as hot, with mypyc: python scripts/compiled.py [--clean | --check].

`compiled` in `[tool.windlass]` of a pyproject.toml has their paths. Extension modules are made beside the sources, and
Python prefers them; `--clean` removes them again. A C compiler and Python's headers are needed. `--check` says whether
the Python that runs this finds all of them compiled, wherever it has them.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
AT_ONCE = 2
"""Distributions; a compiler takes half a gigabyte of memory."""
SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))
BUILD = """
import sys
from mypyc.build import mypycify
from setuptools import setup
config, name, target, *files = sys.argv[1:]
options = {"opt_level": "3", "debug_level": "0", "target_dir": target, "group_name": name}
extensions = mypycify([f"--config-file={config}", *files], **options)
arguments = ["-q", "build_ext", f"--build-lib={target}/lib", f"--build-temp={target}/temp"]
setup(name=name, packages=[], ext_modules=extensions, script_args=arguments)
"""


def projects() -> Iterator[tuple[Path, list[str]]]:
    """Yield each distribution that has hot modules, and their paths in it."""
    for path in sorted(path for pattern in ("*", "plugins/*") for path in TREE.glob(f"{pattern}/pyproject.toml")):
        names = tomllib.loads(path.read_text()).get("tool", {}).get("windlass", {}).get("compiled", [])
        if names:
            yield path.parent, names


def build(project: Path, modules: list[str], scratch: Path) -> Path:
    """Compile a distribution's modules below ``scratch``, and return the directory to be copied over its own."""
    files = [str(project / name) for name in modules]
    arguments = [str(TREE / "pyproject.toml"), project.name, str(scratch), *files]
    # Not in the project, whose pyproject.toml is for another builder.
    subprocess.run([sys.executable, "-c", BUILD, *arguments], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
    return scratch / "lib"


def in_place() -> None:
    """Put extension modules beside the sources."""

    def one(project: Path, modules: list[str]) -> None:
        with tempfile.TemporaryDirectory(prefix="windlass-compiled-") as scratch:
            shutil.copytree(build(project, modules, Path(scratch)), project, dirs_exist_ok=True)
        sys.stdout.write(f"{len(modules)} modules of {project.name} are compiled\n")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, *zip(*projects(), strict=True)))


def clean() -> None:
    """Remove what `in_place` has made."""
    for project, _ in projects():
        for path in project.rglob(f"*{SUFFIX}"):
            path.unlink()


def check() -> None:
    """Exit with a message unless each of the modules is imported from an extension module."""
    names = [name.removesuffix(".py").replace("/", ".") for _, modules in projects() for name in modules]
    pure = [name for name in names if not str(import_module(name).__file__).endswith(SUFFIX)]
    if pure:
        sys.exit(f"not compiled: {', '.join(pure)}")
    sys.stdout.write(f"{len(names)} modules are compiled\n")


def into(wheel: Path, project: Path, modules: list[str]) -> Path:
    """Return a wheel for this Python and this machine in place of a pure one: the same files, and compiled ones."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    target = wheel.with_name(wheel.name.replace("-py3-none-any.whl", f"-{tag}-{tag}-{platform}.whl"))
    with tempfile.TemporaryDirectory(prefix="windlass-compiled-") as scratch, zipfile.ZipFile(wheel) as pure:
        library = build(project, modules, Path(scratch))
        added = {str(path.relative_to(library)): path.read_bytes() for path in sorted(library.rglob("*.so"))}
        files = {name: pure.read(name) for name in pure.namelist()}
        time = pure.infolist()[0].date_time
    (record,) = (name for name in files if name.endswith(".dist-info/RECORD"))
    about = record.replace("RECORD", "WHEEL")
    files[about] = (
        files[about]
        .replace(b"Tag: py3-none-any", f"Tag: {tag}-{tag}-{platform}".encode())
        .replace(b"Root-Is-Purelib: true", b"Root-Is-Purelib: false")
    )
    files = {**added, **files}
    del files[record]
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, time)
            entry.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(entry, data)
    wheel.unlink()
    return target


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    if sys.argv[1:] == ["--clean"]:
        clean()
    elif sys.argv[1:] == ["--check"]:
        check()
    else:
        in_place()
