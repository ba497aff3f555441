#!/usr/bin/env python3
"""Generates the Python modules of windlass_api from the .proto files next to them.

    python api/generate.py                        write the modules into the tree
    python api/generate.py --check                exit 1 if the tree differs from a new generation
    python api/generate.py --descriptor-set OUT   write every descriptor, imports included, to OUT only

Needs the extra `generate` of windlass-api, whose versions decide what the output looks like.
"""

from __future__ import annotations

import argparse
import re
import sys
import sysconfig
import tempfile
from pathlib import Path

import grpc_tools  # type: ignore[import-untyped]  # ships no types
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "windlass_api"
WELL_KNOWN_TYPES = Path(grpc_tools.__file__).parent / "_proto"

# Packages that others publish too. protobuf refuses a message that two files define, but accepts
# the same file twice: these are registered under the name that the other package uses.
# Folder below windlass_api -> the folder's name for protobuf.
FOREIGN = {"google/rpc": "google/rpc", "grpc/health/v1": "grpc_health/v1"}


def sources() -> list[Path]:
    """Return every .proto file of the package."""
    return sorted(PACKAGE.rglob("*.proto"))


def run_protoc(*outputs: str) -> None:
    """Run protoc over all sources, or exit with its status."""
    scripts = Path(sysconfig.get_path("scripts"))
    arguments = ["protoc"]
    for ours, registered in FOREIGN.items():
        arguments.append(f"-I{registered}={PACKAGE / ours}")
    arguments += [f"-I{HERE}", f"-I{WELL_KNOWN_TYPES}"]
    for plugin in ("protoc-gen-mypy", "protoc-gen-mypy_grpc"):
        arguments.append(f"--plugin={plugin}={scripts / plugin}")
    arguments += [*outputs, *(str(source) for source in sources())]
    if status := protoc.main(arguments):
        sys.exit(status)


def at_home(text: str) -> str:
    """Point imports and module names of the foreign packages at windlass_api."""
    for ours, registered in FOREIGN.items():
        package = re.escape(registered.replace("/", "."))
        home = "windlass_api." + ours.replace("/", ".")
        text = re.sub(rf"(?<![\w.]){package}(?= import |\.\w+_pb2)", home, text)
    return text


def home_of(path: Path) -> Path:
    """Return where below `api/` a generated file belongs."""
    for ours, registered in FOREIGN.items():
        if path.is_relative_to(registered):
            return Path("windlass_api", ours) / path.relative_to(registered)
    return path


def generate() -> dict[Path, str]:
    """Return the text of every module, by its path below `api/`."""
    with tempfile.TemporaryDirectory() as scratch:
        run_protoc(
            f"--python_out={scratch}",
            f"--grpc_python_out={scratch}",
            f"--mypy_out=quiet:{scratch}",
            f"--mypy_grpc_out=quiet:{scratch}",
        )
        modules = {
            home_of(path.relative_to(scratch)): at_home(path.read_text()) for path in Path(scratch).rglob("*.py*")
        }
    # protoc writes a gRPC module for every file, with or without services.
    for source in sources():
        if not re.search(r"^service ", source.read_text(), re.MULTILINE):
            for suffix in (".py", ".pyi"):
                modules.pop(source.relative_to(HERE).with_name(f"{source.stem}_pb2_grpc{suffix}"), None)
    return modules


def in_tree() -> dict[Path, str]:
    """Return the modules as they are in the tree, like `generate`."""
    files = (path for pattern in ("*_pb2*.py", "*_pb2*.pyi") for path in PACKAGE.rglob(pattern))
    return {path.relative_to(HERE): path.read_text() for path in files}


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Generate the Python modules of windlass_api.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare with the tree, write nothing")
    action.add_argument("--descriptor-set", metavar="OUT", type=Path, help="write a FileDescriptorSet to OUT only")
    options = parser.parse_args()

    if options.descriptor_set:
        run_protoc("--include_imports", f"--descriptor_set_out={options.descriptor_set}")
        return 0

    new, old = generate(), in_tree()
    changed = sorted(path for path in new.keys() | old.keys() if new.get(path) != old.get(path))
    if options.check:
        sys.stderr.writelines(f"api/{path} is not what api/generate.py makes\n" for path in changed)
        return 1 if changed else 0
    for path in changed:
        if path in new:
            (HERE / path).write_text(new[path])
        else:
            (HERE / path).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
