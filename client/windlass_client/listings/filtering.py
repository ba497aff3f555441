"""`ps --filter`: values of one key are alternatives, labels and different keys must all match, as docker has it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument
from windlass_client.shortnames import full

if TYPE_CHECKING:
    from windlass_client.listings.containers import Seen

STATES = ("created", "restarting", "running", "paused", "exited", "removing", "dead")
HEALTH = ("starting", "healthy", "unhealthy", "none")


@dataclass(frozen=True)
class Filters:
    """What a container must be."""

    values: Mapping[str, Sequence[str]]

    @property
    def names_states(self) -> bool:
        """Whether containers that do not run may be meant."""
        return bool({"status", "exited"} & set(self.values))

    def accepts(self, each: Seen) -> bool:
        """Return whether a container matches."""
        for key, values in self.values.items():
            matches = (TESTS[key](each, value) for value in values)
            if not (all(matches) if key == "label" else any(matches)):
                return False
        return True


def parse(texts: Sequence[str]) -> Filters:
    """Read ``key=value``. Raises InvalidArgument for what is not known."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if key not in TESTS or not equals or not value:
            raise InvalidArgument(f"filter {text[:80]!r} is not known; use KEY=VALUE with {', '.join(sorted(TESTS))}")
        if key == "status" and value not in STATES:
            raise InvalidArgument(f"filter {text[:80]!r}: states are {', '.join(STATES)}")
        if key == "health" and value not in HEALTH:
            raise InvalidArgument(f"filter {text[:80]!r}: health is {', '.join(HEALTH)}")
        if key == "exited" and not re.fullmatch(r"-?\d{1,10}", value):
            raise InvalidArgument(f"filter {text[:80]!r}: an exit code is a number")
        found.setdefault(key, []).append(value)
    return Filters(found)


def _name(each: Seen, value: str) -> bool:
    try:
        return re.search(value.removeprefix("/"), each.name) is not None
    except re.error:
        return value in each.name


def _label(each: Seen, value: str) -> bool:
    key, equals, wanted = value.partition("=")
    held = each.container.labels
    return key in held and (not equals or held[key] == wanted)


def _ancestor(each: Seen, value: str) -> bool:
    return each.container.image in (value, full(value))


def _exited(each: Seen, value: str) -> bool:
    return each.state.word in ("exited", "restarting") and each.state.exit_code == int(value)


def _volume(each: Seen, value: str) -> bool:
    text = each.container.spec.value
    return (
        any(f'"{end}"'.encode() in text for end in (value, value.rstrip("/"))) or f"/volumes/{value}/".encode() in text
    )


TESTS: Mapping[str, Callable[[Seen, str], bool]] = {
    "id": lambda each, value: each.container.id.startswith(value),
    "name": _name,
    "label": _label,
    "status": lambda each, value: each.state.word == value,
    "exited": _exited,
    "health": lambda each, value: (each.state.health or "none") == value,
    "ancestor": _ancestor,
    "network": lambda each, value: value in each.networks,
    "volume": _volume,
}
