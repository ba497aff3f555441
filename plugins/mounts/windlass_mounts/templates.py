"""The transformation ``format/``: fills in what is known of the mounts that were made before.

``{{ source 0 }}``, ``{{ target 0 }}`` and ``{{ mount 0 }}`` are the first one's source,
target and the place where it was made; ``{{ overlay 0 2 }}`` are the places of the first
three as overlay wants its lower directories; ``{{ overlay 2 0 }}`` the same in reverse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from windlass.contracts.activations import ActiveMount
from windlass.contracts.mounts import Mount
from windlass.errors import InvalidArgument

TEMPLATE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
CALL = re.compile(r"\s*([a-z]+)((?:\s+[0-9]{1,3})+)\s*", re.ASCII)
SHOWN = 80
MAX_LENGTH = 1 << 20
"""Of a formatted text; templates may be many and what they stand for long."""


def format_mount(mount: Mount, active: Sequence[ActiveMount]) -> Mount:
    """Return a mount with the templates of its source, target and options filled in. Raises InvalidArgument."""
    return replace(
        mount,
        source=fill(mount.source, active),
        target=fill(mount.target, active),
        options=tuple(fill(option, active) for option in mount.options),
    )


def fill(text: str, active: Sequence[ActiveMount]) -> str:
    """Return ``text`` with its templates filled in. Raises InvalidArgument for one that does not parse."""
    size = len(text)

    def value(match: re.Match[str]) -> str:
        nonlocal size
        found = _value(match[1], active)
        size += len(found)
        if size > MAX_LENGTH:
            raise InvalidArgument(f"mount template {text[:SHOWN]!r}… becomes too long, the limit is {MAX_LENGTH}")
        return found

    # Between templates, braces that open one are its beginning without an end; a lone "}}" is text, as in Go.
    if "{{" in TEMPLATE.sub("", text):
        raise InvalidArgument(f"mount template {text[:SHOWN]!r} begins with {{{{ and has no }}}}; close it")
    return TEMPLATE.sub(value, text)


def _value(expression: str, active: Sequence[ActiveMount]) -> str:
    call = CALL.fullmatch(expression)
    shown = "{{" + expression[:SHOWN] + "}}"
    if call is None:
        raise InvalidArgument(f"mount template {shown} is neither source, target, mount nor overlay with its numbers")
    name, numbers = call[1], [int(number) for number in call[2].split()]
    for number in numbers:
        if number >= len(active):
            raise InvalidArgument(f"mount template {shown} names mount {number}, only {len(active)} are made before it")
    match name, numbers:
        case "source", [number]:
            return active[number].mount.source
        case "target", [number]:
            return active[number].mount.target
        case "mount", [number]:
            return active[number].mount_point
        case "overlay", [first, last]:
            step = 1 if first <= last else -1
            return ":".join(_escaped(active[number].mount_point) for number in range(first, last + step, step))
    raise InvalidArgument(f"mount template {shown} is neither source, target, mount nor overlay with its numbers")


def _escaped(path: str) -> str:
    # Where overlayfs looks for the end of a lower directory.
    return path.replace("\\", "\\\\").replace(":", "\\:")
