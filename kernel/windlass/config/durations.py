"""Durations as Go writes them: ``1m30s``, ``100ms``, ``1.5h``."""

from __future__ import annotations

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"[+-]?(?:{_PART.pattern})+")
_LONGEST = 1 << 63
"""Go counts nanoseconds in 64 bits."""


def seconds(text: str) -> float:
    """Return a duration in seconds. Raises ValueError, saying how one is written."""
    if text in {"0", "+0", "-0"}:
        return 0.0
    if len(text) > 100 or not _WHOLE.fullmatch(text):
        raise ValueError(
            f'"{text[:100]}" is not a valid duration: write a number and a unit, such as "5s", "100ms" or "1m30s"'
        )
    total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if total * 1e9 >= _LONGEST:
        raise ValueError(f'"{text}" is longer than 292 years')
    return -total if text.startswith("-") else total


def write(duration: float) -> str:
    """Return a duration as `seconds` reads it, in Go's own form."""
    if duration < 0:
        return "-" + write(-duration)
    if duration < 1:
        for unit in ("ms", "µs", "ns"):
            if duration >= _UNITS[unit]:
                return f"{round(duration / _UNITS[unit], 6):g}{unit}"
        return "0s"
    hours, rest = divmod(duration, 3600)
    minutes, rest = divmod(rest, 60)
    head = f"{hours:.0f}h" if hours else ""
    head += f"{minutes:.0f}m" if hours or minutes else ""
    return f"{head}{round(rest, 9):g}s"
