"""The command that changes limits."""

from __future__ import annotations

import json
import sys

from windlass_oci_runtime import changing
from windlass_oci_runtime.cli.options import Options, Usage
from windlass_oci_runtime.state import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_oci_runtime.json_types import Document

FLAGS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "kernel-memory-tcp": ("memory", "kernelTCP"),
    "pids-limit": ("pids", "limit"),
}
SIZES = ("memory", "memory-reservation", "memory-swap", "kernel-memory-tcp")
UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}


def update_command(root: str, options: Options) -> None:
    """Set the limits of a document, or those of flags."""
    # Any: JSON.
    resources: Document = {}
    if source := options.text("resources"):
        resources = _document(source)
    else:
        for flag, (group, name) in FLAGS.items():
            if text := options.text(flag):
                value = size(text, flag) if flag in SIZES else options.number(flag)
                resources.setdefault(group, {})[name] = value
        for flag, name in (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")):
            if text := options.text(flag):
                resources.setdefault("cpu", {})[name] = text
    changing.update(Container(root, options.operands[0]), resources)


def _document(source: str) -> Document:
    try:
        if source == "-":
            found = json.load(sys.stdin)
        else:
            with open(source, "rb") as file:
                found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise Usage(f"--resources {source} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Usage(f"--resources {source} is not an object")
    return found


def size(text: str, flag: str) -> int:
    """Return bytes of a size such as 64m or 1.5G; -1 is none. Raises Usage."""
    if text == "-1":
        return -1
    digits = text.lower().removesuffix("ib").removesuffix("b")
    shift = UNITS.get(digits[-1:], 0)
    try:
        return int(float(digits[:-1] if shift else digits) * (1 << shift))
    except (ValueError, OverflowError):
        raise Usage(f"--{flag} {text!r} is not a size such as 64m") from None
