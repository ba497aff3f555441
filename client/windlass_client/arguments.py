"""Arguments of `windlass run` that have a syntax of their own: sizes."""

from __future__ import annotations

import re

from windlass.errors import InvalidArgument

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str) -> int:
    """Return the bytes that ``64M`` means; units are powers of 1024."""
    match = re.fullmatch(r"(\d{1,15})([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match or not int(match[1]):
        raise InvalidArgument(f"size {text[:40]!r} is not a number with K, M, G or T")
    return int(match[1]) * UNITS[match[2]]
