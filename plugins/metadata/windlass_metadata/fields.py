"""What filters see of a record, and what updates may change of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from windlass.contracts.values import Payload
from windlass.errors import InvalidArgument
from windlass.filters import expressions
from windlass.filters.fieldpaths import selects, updated_map
from windlass.records import dataclass

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    class Labelled(DataclassInstance, Protocol):
        """A record with labels."""

        @property
        def labels(self) -> Mapping[str, str]:
            """Its labels."""

    class Extensible(DataclassInstance, Protocol):
        """A record with extensions."""

        @property
        def extensions(self) -> Mapping[str, Payload]:
            """Its extensions, by name."""


T = TypeVar("T")
D = TypeVar("D", bound="DataclassInstance")
L = TypeVar("L", bound="Labelled")
X = TypeVar("X", bound="Extensible")

MapChange = Callable[[D, D, str, str], D]
"""Takes the current record, the wanted one, ``map`` or ``map.key``, and the record's name; returns the changed one."""


class Visible(Generic[T]):
    """The fields of a record that filters see, by their paths: strings, and maps below whose name is a key.

    Each stands for an attribute of the record, or for one of an attribute, such as ``target.digest``.
    """

    def __init__(self, strings: Mapping[str, str], maps: Mapping[str, str]) -> None:
        self._fields = {path.split(".")[0]: name.split(".")[0] for path, name in maps.items()}
        self._whole = {tuple(path.split(".")): name.split(".")[0] for path, name in strings.items()}
        self._strings = {tuple(path.split(".")): attrgetter(name) for path, name in strings.items()}
        self._maps = {path: attrgetter(name) for path, name in maps.items()}

    def test(self, filters: Sequence[str]) -> Callable[[T], bool]:
        """Return what tells whether a record matches one of ``filters``. Raises InvalidArgument."""
        return self._test(expressions.parse_all(filters))

    def reading(self, filters: Sequence[str]) -> tuple[frozenset[str], Callable[[object], bool]]:
        """Return the record's fields that `test` looks at, and it: anything that has those will do."""
        alternatives = expressions.parse_all(filters)
        paths = {selector.fieldpath for selectors in alternatives for selector in selectors}
        found = {self._fields.get(path[0]) or self._whole.get(path) for path in paths}
        return frozenset(filter(None, found)), self._test(alternatives)

    def _test(self, alternatives: Sequence[tuple[expressions.Selector, ...]]) -> Callable[[object], bool]:
        accepts = expressions.accepting(alternatives)
        if accepts is expressions.match_all:
            return lambda _record: True
        return lambda record: accepts(self.adaptor(record))

    def adaptor(self, record: object) -> expressions.Adaptor:
        """Show a record to a filter."""

        def read(path: Sequence[str]) -> tuple[str, bool]:
            if path[0] in self._maps:
                return expressions.label_of(self._maps[path[0]](record), path)
            string = self._strings.get(tuple(path))
            return expressions.value_of(string(record)) if string else expressions.ABSENT

        return read


@dataclass(frozen=True)
class Mutable(Generic[D]):
    """The fields of a record that an update may change, by their paths: maps, and those that are taken as a whole."""

    maps: Mapping[str, MapChange[D]]
    whole: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What a path takes over from the wanted record."""

    def changed(self, current: D, wanted: D, fieldpaths: Sequence[str], what: str) -> D:
        """Return ``current`` with the fields of ``wanted`` that ``fieldpaths`` name, or all. Raises InvalidArgument."""
        result = current
        for path in fieldpaths or (*self.maps, *self.whole):
            if path in self.whole:
                result = replace(result, **{name: getattr(wanted, name) for name in self.whole[path]})
            else:
                result = self._map(path, what)(result, wanted, path, what)
        return result

    def _map(self, path: str, what: str) -> MapChange[D]:
        for name, change in self.maps.items():
            if selects(path, name):
                return change
        names = ", ".join((*self.maps, *self.whole))
        raise InvalidArgument(f"cannot update field {path[:128]!r} of {what}: only {names} can change")


def labels(current: L, wanted: L, path: str, what: str) -> L:
    """Change the labels."""
    return replace(current, labels=updated_map("labels", current.labels, wanted.labels, [path], what))


def check_extensions(what: str, extensions: Mapping[str, Payload]) -> None:
    """Raise InvalidArgument for an extension without a name."""
    if "" in extensions:
        raise InvalidArgument(f"{what}: the name of an extension must not be empty")


def extensions(current: X, wanted: X, path: str, _what: str) -> X:
    """Change the extensions: all of them, or one, which is removed when ``wanted`` lacks it."""
    if path == "extensions":
        return replace(current, extensions=wanted.extensions)
    key = path.removeprefix("extensions.")
    kept = {name: value for name, value in current.extensions.items() if name != key}
    if key in wanted.extensions:
        kept[key] = wanted.extensions[key]
    return replace(current, extensions=kept)
