"""Arguments of `windlass run` that have a syntax of their own: mounts and sizes."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Mount

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
ALIASES = {"src": "source", "dst": "destination", "target": "destination", "readonly": "ro"}


def parse_mount(text: str) -> Mount:
    """Read ``type=bind,src=/host,dst=/inside,options=rbind:ro``; type bind may be left out, ``ro`` may stand alone."""
    fields = {}
    for word in next(csv.reader([text])):
        key, _, value = word.partition("=")
        fields[ALIASES.get(key, key)] = value
    kind = fields.pop("type", "bind")
    options = [option for option in fields.pop("options", "").split(":") if option]
    if "ro" in fields:
        fields.pop("ro")
        options.append("ro")
    source, destination = fields.pop("source", ""), fields.pop("destination", "")
    if fields:
        raise InvalidArgument(
            f"mount {text[:200]!r} has unknown fields {', '.join(fields)}; known are type, src, dst, options, ro"
        )
    if not destination.startswith("/"):
        raise InvalidArgument(f"mount {text[:200]!r} has no absolute dst")
    if kind == "bind":
        if not source.startswith("/"):
            raise InvalidArgument(f"mount {text[:200]!r} has no absolute src")
        if not {"bind", "rbind"} & set(options):
            options.insert(0, "rbind")
    return {"type": kind, "source": source or kind, "destination": destination, "options": options}


def parse_size(text: str) -> int:
    """Return the bytes that ``64M`` means; units are powers of 1024."""
    match = re.fullmatch(r"(\d{1,15})([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match or not int(match[1]):
        raise InvalidArgument(f"size {text[:40]!r} is not a number with K, M, G or T")
    return int(match[1]) * UNITS[match[2]]
