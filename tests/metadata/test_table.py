"""Tables of records: what is kept of a field, what filters see, and what updates may change."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import ClassVar

import pytest

from windlass.contracts.values import Descriptor, Payload, Platform
from windlass.errors import AlreadyExists, InvalidArgument, NotFound
from windlass_metadata.columns import descriptor, number, payload, payloads, strings
from windlass_metadata.fields import Mutable, Visible, labels
from windlass_metadata.table import Table


class Colour(IntEnum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True, slots=True)
class Thing:
    """A field of each kind."""

    id: str
    target: Descriptor
    spec: Payload | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Payload] = field(default_factory=dict)
    colour: Colour = Colour.RED
    done: bool = False


THINGS = Table(
    "things",
    "thing",
    Thing,
    (
        descriptor("target"),
        payload("spec"),
        strings("labels"),
        payloads("extensions"),
        number("colour", Colour),
        number("done", bool),
    ),
)
SCHEMA = """
CREATE TABLE things (
    namespace TEXT, id TEXT, media_type TEXT, digest TEXT, size INTEGER, annotations TEXT, spec_type TEXT, spec BLOB,
    labels TEXT, extensions TEXT, colour INTEGER, done INTEGER, PRIMARY KEY (namespace, id)
)
"""
TARGET = Descriptor("type", "digest", 7, {"a": "1"})
FULL = Thing("one", TARGET, Payload("t", b"\x00\xff"), {"k": "v"}, {"e": Payload("u", b"\xfe")}, Colour.RED, True)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute(SCHEMA)
    yield connection
    connection.close()


@pytest.mark.parametrize("thing", [FULL, Thing("two", TARGET)])
def test_a_record_is_read_as_it_was_written(db: sqlite3.Connection, thing: Thing) -> None:
    THINGS.write(db, thing, "ns")
    found = THINGS.existing(db, "ns", thing.id)
    assert found == thing
    assert type(found.colour) is Colour
    assert type(found.done) is bool


def test_what_has_no_column_and_what_has_no_value_is_not_kept(db: sqlite3.Connection) -> None:
    """A descriptor's platform, and labels and annotations that are empty."""
    target = replace(TARGET, annotations={"a": "1", "b": ""}, platform=Platform("linux", "amd64"))
    THINGS.write(db, Thing("one", target, labels={"k": "v", "gone": ""}), "ns")
    assert THINGS.find(db, "ns", "one") == Thing("one", TARGET, labels={"k": "v"})


def test_records_belong_to_their_scope_and_come_by_key(db: sqlite3.Connection) -> None:
    for namespace, id in (("ns", "b"), ("ns", "a"), ("other", "c")):
        THINGS.write(db, Thing(id, TARGET), namespace)
    assert [thing.id for thing in THINGS.all(db, "ns")] == ["a", "b"]
    assert not THINGS.has(db, "ns", "c")
    assert THINGS.find(db, "ns", "c") is None
    assert not THINGS.delete(db, "ns", "c")
    assert THINGS.delete(db, "other", "c")
    assert THINGS.all(db, "other") == []


def test_writing_replaces_the_record_of_that_key(db: sqlite3.Connection) -> None:
    THINGS.write(db, FULL, "ns")
    THINGS.write(db, Thing("one", TARGET), "ns")
    assert THINGS.all(db, "ns") == [Thing("one", TARGET)]


def test_errors_name_the_record(db: sqlite3.Connection) -> None:
    for look in (THINGS.existing, THINGS.require):
        with pytest.raises(NotFound, match=r"^thing one does not exist$"):
            look(db, "ns", "one")
    THINGS.refuse(db, "ns", "one")
    THINGS.write(db, FULL, "ns")
    THINGS.require(db, "ns", "one")
    with pytest.raises(AlreadyExists, match=r"^thing one already exists$"):
        THINGS.refuse(db, "ns", "one")


VISIBLE = Visible[Thing]({"id": "id", "target.digest": "target.digest"}, {"labels": "labels"})


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ([], True),
        (["id==one"], True),
        (["id==two", "target.digest==digest"], True),
        (["target==digest"], False),
        (["target.digest.more"], False),
        (["labels.k==v"], True),
        (["labels"], False),
        (["colour==1"], False),
    ],
)
def test_filters_see_the_fields_that_are_named(filters: list[str], matches: bool) -> None:
    assert VISIBLE.test(filters)(FULL) is matches


def test_a_filter_that_is_not_valid_is_refused_before_any_record_is_read() -> None:
    with pytest.raises(InvalidArgument):
        VISIBLE.test(["=="])


class TestUpdates:
    MUTABLE: ClassVar[Mutable[Thing]] = Mutable[Thing](
        {"labels": labels}, {"spec": ("spec",), "look": ("colour", "done")}
    )
    WANTED = Thing("one", Descriptor("x", "y", 1), Payload("new", b""), {"other": "2"}, {}, Colour.BLUE, False)

    def test_only_what_is_named_changes(self) -> None:
        changed = self.MUTABLE.changed(FULL, self.WANTED, ["look", "labels.other"], "thing one")
        assert changed == replace(FULL, labels={"k": "v", "other": "2"}, colour=Colour.BLUE, done=False)

    def test_no_path_is_every_field_that_may_change(self) -> None:
        changed = self.MUTABLE.changed(FULL, self.WANTED, [], "thing one")
        assert changed == replace(self.WANTED, target=FULL.target, extensions=FULL.extensions)

    def test_a_key_that_is_missing_is_removed(self) -> None:
        assert self.MUTABLE.changed(FULL, self.WANTED, ["labels.k"], "thing one") == replace(FULL, labels={})

    @pytest.mark.parametrize("path", ["id", "spec.x", "labelsx", "", "target"])
    def test_another_path_is_refused_with_those_that_are_known(self, path: str) -> None:
        with pytest.raises(InvalidArgument, match="of thing one: only labels, spec, look can change"):
            self.MUTABLE.changed(FULL, self.WANTED, [path], "thing one")
