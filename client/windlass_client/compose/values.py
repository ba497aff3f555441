"""What a compose file says, each value with the line that it is on, and the error that names both."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from windlass.errors import InvalidArgument

LONGEST_QUOTE = 80


@dataclass(frozen=True)
class Place:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Scalar:
    """A single value; ``text`` is None for YAML's null."""

    text: str | None
    at: Place
    tag: str = ""
    """`reset` or `override`, which say how a later file replaces the value of an earlier one."""


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[Value, ...]
    at: Place
    tag: str = ""


@dataclass(frozen=True)
class Section:
    """A mapping; each value is at the line of its key."""

    entries: Mapping[str, Value]
    at: Place
    tag: str = ""


Value = Scalar | Items | Section


def wrong(value: Value, path: str, problem: str) -> InvalidArgument:
    """Return the error about a value: its file and line, the way to it, and what is wrong."""
    return InvalidArgument(f"{value.at}: {path}: {problem}")


def kind(value: Value) -> str:
    """Return what a value is, for an error."""
    if isinstance(value, Scalar):
        return "nothing" if value.text is None else repr(value.text[:LONGEST_QUOTE])
    return "a list" if isinstance(value, Items) else "a mapping"


def is_null(value: Value) -> bool:
    """Tell whether a key has no value."""
    return isinstance(value, Scalar) and value.text is None


def section(value: Value, path: str) -> Section:
    """Return a mapping; a key without a value is an empty one. Raises InvalidArgument."""
    if isinstance(value, Section):
        return value
    if is_null(value):
        return Section({}, value.at)
    raise wrong(value, path, f"must be a mapping, and is {kind(value)}")


def items(value: Value, path: str) -> tuple[Value, ...]:
    """Return the values of a list; a key without a value is an empty one. Raises InvalidArgument."""
    if isinstance(value, Items):
        return value.items
    if is_null(value):
        return ()
    raise wrong(value, path, f"must be a list, and is {kind(value)}")


def is_extension(key: str) -> bool:
    """Tell whether a key is the author's own, which the specification reserves `x-` for."""
    return key.startswith("x-")


def check_keys(value: Section, path: str, known: Collection[str], refused: Mapping[str, str]) -> None:
    """Raise Unimplemented or InvalidArgument for the first key that is not known."""
    from windlass.errors import Unimplemented

    for key, entry in value.entries.items():
        if key in known or is_extension(key):
            continue
        at = f"{path}.{key}" if path else key
        if key in refused:
            raise Unimplemented(f"{entry.at}: {at}: not supported by `windlass compose`; {refused[key]}")
        raise wrong(entry, at, f"the Compose specification has no key {key!r}{_instead(key, [*known, *refused])}")


def _instead(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f"; did you mean {close[0]!r}?" if close else "; remove it, or begin its name with x-"
