"""Signals that end containers: as CRI, images and Linux name them."""

from __future__ import annotations

import signal

from windlass.errors import InvalidArgument
from windlass_api.runtime.v1 import api_pb2 as cri

PREFIX = "SIGNAL_"


def check(wanted: cri.Signal.ValueType) -> None:
    """Raise InvalidArgument for a number that CRI has no signal for."""
    if wanted not in cri.Signal.values():
        raise InvalidArgument(f"unknown CRI stop signal {wanted}")


def name_of(wanted: cri.Signal.ValueType) -> str:
    """Return Linux's name of a signal of CRI: SIGRTMIN+3 for SIGNAL_SIGRTMINPLUS3."""
    return cri.Signal.Name(wanted).removeprefix(PREFIX).replace("PLUS", "+").replace("MINUS", "-")


def of_name(name: str) -> cri.Signal.ValueType:
    """Return CRI's signal of a name or number; the runtime's default for what CRI has no signal for."""
    if name.isascii() and name.isdecimal():
        known = {each.value: each.name for each in signal.Signals}
        name = known.get(int(name[:4]), name)
    text = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    value: dict[str, cri.Signal.ValueType] = dict(cri.Signal.items())
    return value.get(PREFIX + text.replace("+", "PLUS").replace("-", "MINUS"), cri.SIGNAL_RUNTIME_DEFAULT)


def number(name: str) -> int:
    """Return a signal by number or name, with or without SIG; SIGTERM for what is not one."""
    if name.isascii() and name.isdecimal() and len(name) < 4:
        return int(name)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    for base, sign in (("SIGRTMIN", "+"), ("SIGRTMAX", "-")):
        offset = full.removeprefix(f"{base}{sign}")
        if offset != full and offset.isdecimal() and int(offset) <= signal.SIGRTMAX - signal.SIGRTMIN:
            return int(signal.Signals[base]) + int(f"{sign}{offset}")
    known = signal.Signals.__members__.get(full)
    return int(known) if known is not None else signal.SIGTERM
