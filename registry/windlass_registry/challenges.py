"""Reads WWW-Authenticate, a registry's demand for credentials (RFC 9110 section 11)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

LIMIT = 16 << 10
"""Characters of a header that are looked at."""
MOST = 16

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))\s*')
_SCHEME = re.compile(rf"\s*({_WORD})(?=\s|,|$)")
_OPAQUE = re.compile(r"\s+[A-Za-z0-9._~+/-]+=*\s*(?=,|$)")
_ORDER = ("bearer", "basic")


@dataclass(frozen=True)
class Challenge:
    """One scheme and its parameters, names in small letters."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse(headers: Iterable[str]) -> list[Challenge]:
    """Return the challenges of all headers, the one that we prefer first; unreadable ones are left out."""
    found: list[Challenge] = []
    for header in headers:
        found += _read(header[:LIMIT])
    known = [challenge for challenge in found if challenge.scheme in _ORDER]
    return sorted(known[:MOST], key=lambda challenge: _ORDER.index(challenge.scheme))


def _read(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    position = 0
    while position < len(header) and len(found) < MOST:
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            break
        challenge = Challenge(scheme[1].lower())
        found.append(challenge)
        opaque = _OPAQUE.match(header, scheme.end())
        position = opaque.end() if opaque else _parameters(header, scheme.end(), challenge.parameters)
        comma = header[position : position + 1]
        if comma and comma != ",":
            break
        position += 1
    return found


def _parameters(header: str, position: int, into: dict[str, str]) -> int:
    """Read ``name=value`` pairs and return where they end: at the comma before the next scheme, or at the end."""
    while (pair := _PARAMETER.match(header, position)) is not None:
        value = re.sub(r"\\(.)", r"\1", pair[2]) if pair[2] is not None else pair[3]
        into.setdefault(pair[1].lower(), value)
        position = pair.end()
        if header[position : position + 1] != "," or _PARAMETER.match(header, position + 1) is None:
            break
        position += 1
    return position
