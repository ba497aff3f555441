"""`windlassd oci-hook`: executes a program as an OCI hook with the container's values in its arguments.

``{{id}}``, ``{{bundle}}``, ``{{rootfs}}``, ``{{pid}}``, ``{{status}}`` and
``{{annotation "key"}}`` in arguments and environment stand for what the OCI runtime
says on stdin and what the bundle's config.json holds (docs/containerd 1.4).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from windlass.errors import StartError

LIMIT = 20 << 20
# Any: JSON as parsed.
Values: TypeAlias = dict[str, Any]
_WORD = re.compile(r"\{\{\s*(\w+)(?:\s+\"([^\"]*)\")?\s*\}\}")


def execute(arguments: Sequence[str], stdin: BinaryIO | None = None) -> int:
    """Become the program that ``arguments`` name; raises StartError when that cannot be."""
    if not arguments:
        raise StartError("oci-hook needs the program to execute and its arguments")
    values = read_values(stdin or sys.stdin.buffer)
    argv = [expand(argument, values) for argument in arguments]
    environment = {key: expand(value, values) for key, value in os.environ.items()}
    program = shutil.which(argv[0])
    if program is None:
        raise StartError(f"hook {argv[0]} is not there or not executable")
    os.execve(program, argv, environment)  # noqa: S606 # no shell is meant


def read_values(stdin: BinaryIO) -> Values:
    """Return what templates may name, from the state on stdin and the bundle it points to."""
    state = _object(stdin.read(LIMIT + 1), "the state on stdin")
    bundle = Path(str(state.get("bundle", "")))
    file = bundle / "config.json"
    try:
        with file.open("rb") as source:
            spec = _object(source.read(LIMIT + 1), str(file))
    except OSError as error:
        raise StartError(f"cannot read {file}: {error.strerror}") from None
    root = spec.get("root")
    rootfs = bundle / str(root.get("path", "rootfs") if isinstance(root, dict) else "rootfs")
    annotations = state.get("annotations")
    return {
        "id": state.get("id", ""),
        "bundle": str(bundle),
        "rootfs": str(rootfs),
        "pid": state.get("pid", 0),
        "status": state.get("status", ""),
        "annotation": annotations if isinstance(annotations, dict) else {},
    }


def _object(text: bytes, name: str) -> Values:
    if len(text) > LIMIT:
        raise StartError(f"{name} is longer than {LIMIT >> 20} MiB")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise StartError(f"{name} is not JSON") from None
    if not isinstance(value, dict):
        raise StartError(f"{name} is not a JSON object")
    return value


def expand(text: str, values: Values) -> str:
    """Return ``text`` with its templates replaced; raises StartError for one that does not exist."""

    def value(found: re.Match[str]) -> str:
        name, key = found[1], found[2]
        if name not in values or (name == "annotation") != (key is not None):
            raise StartError(f"oci-hook knows no {found[0]}; it knows {', '.join(values)}")
        return str(values["annotation"].get(key, "") if name == "annotation" else values[name])

    return _WORD.sub(value, text)
