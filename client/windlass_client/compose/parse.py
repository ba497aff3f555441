"""YAML with the line of each value, within bounds: nothing in a file can make it larger than it is.

Plain words stay text: what reads a value knows whether it wants a number, and `0644`, `22:22` and `no` mean in
compose files what their authors typed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from windlass.errors import InvalidArgument, NotFound
from windlass_client.compose.values import Items, Place, Scalar, Section, Value

LARGEST_FILE = 1 << 20
DEEPEST = 64
MOST_VALUES = 100_000
"""Values of a file once each alias stands for what it names."""
NULLS = ("", "~", "null", "Null", "NULL")
MERGE = "<<"
STANDARD = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}
TAGS = {"!reset": "reset", "!override": "override"}


def read(path: Path) -> str:
    """Return the text of a file. Raises NotFound, InvalidArgument."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InvalidArgument(f"{path} is larger than {LARGEST_FILE >> 20} MiB, so it is not a compose file")
        return path.read_text()
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; name the compose file with -f") from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def parse(text: str, file: str) -> Section:
    """Return the mapping that a YAML document is. Raises InvalidArgument."""
    try:
        value = _Composer(file, yaml.parse(text, Loader=yaml.SafeLoader)).document()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidArgument(f"{file}:{line}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InvalidArgument(f"{file}: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(value, Section):
        raise InvalidArgument(f"{file}:1: a compose file must be a mapping with the key services")
    return value


@dataclass
class _Anchored:
    value: Value
    weight: int


class _Composer:
    """Makes values of the parser's events; an alias stands for a value that is complete, so nothing contains itself."""

    def __init__(self, file: str, events: Iterator[yaml.Event]) -> None:
        self._file = file
        self._events = events
        self._anchors: dict[str, _Anchored] = {}
        self._weight = 0

    def document(self) -> Value:
        """Return the only document."""
        value: Value = Scalar(None, Place(self._file, 1))
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.NodeEvent):
                value = self._value(event, 0)
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._wrong(
                        event, "a second YAML document; put it into a file of its own and name it with -f"
                    )
        return value

    def _value(self, event: yaml.Event, depth: int) -> Value:
        if depth > DEEPEST:
            raise self._wrong(event, f"nested more than {DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._weight
        self._count(event, 1)
        value = self._node(event, depth)
        anchor = event.anchor if isinstance(event, yaml.NodeEvent) else None
        if anchor:
            self._anchors[anchor] = _Anchored(value, self._weight - before)
        return value

    def _node(self, event: yaml.Event, depth: int) -> Value:
        if isinstance(event, yaml.ScalarEvent):
            null = event.implicit[0] and event.value in NULLS
            return Scalar(None if null else event.value, self._place(event), self._tag(event, event.tag))
        if isinstance(event, yaml.SequenceStartEvent):
            return Items(tuple(self._items(depth)), self._place(event), self._tag(event, event.tag))
        assert isinstance(event, yaml.MappingStartEvent)
        return self._mapping(event, depth)

    def _alias(self, event: yaml.AliasEvent) -> Value:
        anchored = self._anchors.get(event.anchor or "")
        if anchored is None:
            raise self._wrong(event, f"alias *{event.anchor} names no anchor before it")
        self._count(event, anchored.weight)
        return anchored.value

    def _items(self, depth: int) -> Iterator[Value]:
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                return
            yield self._value(event, depth + 1)

    def _mapping(self, start: yaml.MappingStartEvent, depth: int) -> Section:
        entries: dict[str, Value] = {}
        inherited: list[Section] = []
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(event)
            value = self._value(next(self._events), depth + 1)
            if key == MERGE:
                inherited += self._merged(event, value)
                continue
            if key in entries:
                raise self._wrong(
                    event, f"key {key!r} is there twice, first on line {entries[key].at.line}; remove one"
                )
            # errors about a value name the line of its key, also where it begins on the next
            entries[key] = replace(value, at=self._place(event))
        for each in inherited:
            entries = {**each.entries, **entries}
        return Section(entries, self._place(start), self._tag(start, start.tag))

    def _key(self, event: yaml.Event) -> str:
        if isinstance(event, yaml.ScalarEvent):
            return event.value
        raise self._wrong(event, "a key must be text")

    def _merged(self, event: yaml.Event, value: Value) -> list[Section]:
        """Return what `<<` brings, the strongest first."""
        found = [value] if isinstance(value, Section) else value.items if isinstance(value, Items) else []
        sections = [each for each in found if isinstance(each, Section)]
        if not sections or len(sections) != len(found):
            raise self._wrong(event, "<< must name a mapping, or a list of mappings")
        return sections

    def _count(self, event: yaml.Event, weight: int) -> None:
        self._weight += weight
        if self._weight > MOST_VALUES:
            raise self._wrong(event, f"with its aliases the file has more than {MOST_VALUES} values")

    def _tag(self, event: yaml.Event, tag: str | None) -> str:
        if tag is None or tag in STANDARD or tag == "!":
            return ""
        if tag not in TAGS:
            raise self._wrong(event, f"tag {tag!r} is not known; known are !reset and !override")
        return TAGS[tag]

    def _place(self, event: yaml.Event) -> Place:
        assert event.start_mark is not None
        return Place(self._file, event.start_mark.line + 1)

    def _wrong(self, event: yaml.Event, problem: str) -> InvalidArgument:
        return InvalidArgument(f"{self._place(event)}: {problem}")
