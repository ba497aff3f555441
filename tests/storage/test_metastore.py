"""What the rows of a snapshotter promise: the 22 behaviours of docs/containerd 8.4, durability and damage."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.contracts.snapshots import Info, Kind, Usage
from windlass.errors import (
    AlreadyExists,
    DataLoss,
    Error,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from windlass_storage.metastore import Metastore, Record
from windlass_storage.snapshot_table import MIGRATIONS

USAGE = Usage(inodes=3, size=4096)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Metastore]:
    store = Metastore(tmp_path / "metadata.db")
    yield store
    store.close()


@pytest.fixture
def populated(store: Metastore) -> Metastore:
    """committed-1 <- committed-2 <- active-2, view-2; active-1 and view-1 without parent"""
    committed(store, "committed-1")
    committed(store, "committed-2", "committed-1")
    for number, parent in ((1, ""), (2, "committed-2")):
        store.create(Kind.ACTIVE, f"active-{number}", parent, {"n": str(number)})
        store.create(Kind.VIEW, f"view-{number}", parent)
    return store


def committed(store: Metastore, name: str, parent: str = "") -> Record:
    store.create(Kind.ACTIVE, f"key of {name}", parent)
    return store.commit(name, f"key of {name}", USAGE)


def test_every_kind_is_described(populated: Metastore) -> None:
    for name, kind, parent in (
        ("committed-1", Kind.COMMITTED, ""),
        ("committed-2", Kind.COMMITTED, "committed-1"),
        ("active-1", Kind.ACTIVE, ""),
        ("active-2", Kind.ACTIVE, "committed-2"),
        ("view-1", Kind.VIEW, ""),
        ("view-2", Kind.VIEW, "committed-2"),
    ):
        info = populated.stat(name)
        assert (info.name, info.kind, info.parent) == (name, kind, parent)
    assert populated.lookup("committed-1").usage == USAGE
    assert populated.lookup("active-1").usage == Usage(0, 0)


def test_what_is_missing_is_not_found(store: Metastore) -> None:
    """In an empty database and in one with rows."""
    for _ in range(2):
        for call in (store.stat, store.lookup, store.get, store.remove, lambda key: store.update(Info(Kind.VIEW, key))):
            with pytest.raises(NotFound, match="snapshot missing does not exist"):
                call("missing")
        with pytest.raises(NotFound):
            store.commit("name", "missing", USAGE)
        if not list(store.walk()):
            committed(store, "other")


def test_walk_visits_each_once(populated: Metastore) -> None:
    found = list(populated.walk())
    assert len(found) == 6
    assert all(info == populated.stat(info.name) for info in found)


def test_get_is_for_mounting(populated: Metastore) -> None:
    """Active snapshots and views have their IDs and those beneath; committed ones are refused."""
    one, two = populated.lookup("committed-1").id, populated.lookup("committed-2").id
    assert populated.get("active-2").parents == (two, one)
    assert populated.get("view-2").kind == Kind.VIEW
    assert populated.get("active-1").parents == ()
    with pytest.raises(FailedPrecondition, match="committed-1 is committed"):
        populated.get("committed-1")


def test_ids_are_unique_and_stay(store: Metastore) -> None:
    """An ID survives commit and is not given again after removal."""
    first = store.create(Kind.ACTIVE, "a")
    second = store.create(Kind.VIEW, "b")
    assert first.id != second.id
    assert store.commit("c", "a", USAGE).id == first.id
    assert store.create(Kind.ACTIVE, "d", "c").parents == (first.id,)
    last = store.create(Kind.ACTIVE, "e")
    store.remove("e")
    assert store.create(Kind.ACTIVE, "e").id > last.id


@pytest.mark.parametrize("kind", [Kind.ACTIVE, Kind.VIEW])
def test_create_checks_key_and_parent(populated: Metastore, kind: Kind) -> None:
    """The same as `check` says beforehand."""
    for key, parent, expected in (
        ("new", "missing", NotFound),
        ("active-1", "", AlreadyExists),
        ("committed-1", "", AlreadyExists),
        ("view-2", "committed-1", AlreadyExists),
        ("new", "active-1", InvalidArgument),
        ("new", "view-1", InvalidArgument),
        ("", "", InvalidArgument),
    ):
        with pytest.raises(expected):
            populated.create(kind, key, parent)
        with pytest.raises(expected):
            populated.check(key, parent)
    assert populated.check("new", "committed-2") == populated.get("active-2").parents


def test_commit(populated: Metastore) -> None:
    """The key goes, the name comes; taken names, views and committed ones are refused."""
    with pytest.raises(AlreadyExists):
        populated.commit("committed-1", "active-1", USAGE)
    with pytest.raises(FailedPrecondition):
        populated.commit("new", "committed-1", USAGE)
    with pytest.raises(FailedPrecondition, match="view-1 is view"):
        populated.commit("new", "view-1", USAGE)
    with pytest.raises(InvalidArgument):
        populated.commit("", "active-1", USAGE)
    record = populated.commit("new", "active-1", USAGE, {"a": "b"})
    assert (record.kind, record.labels, record.usage) == (Kind.COMMITTED, {"a": "b"}, USAGE)
    with pytest.raises(NotFound):
        populated.stat("active-1")


def test_remove(populated: Metastore) -> None:
    """The row that was is returned; a parent stays, however often one tries."""
    for _ in range(3):
        with pytest.raises(FailedPrecondition, match="cannot remove snapshot with child: committed-1"):
            populated.remove("committed-1")
    before = populated.lookup("view-2")
    assert populated.remove("view-2") == before


def test_parents_are_nearest_first_at_every_depth(store: Metastore) -> None:
    ids: list[int] = []
    for depth in range(20):
        record = committed(store, f"layer{depth}", f"layer{depth - 1}" if depth else "")
        assert list(record.parents) == ids[::-1]
        ids.append(record.id)


def test_rebase(populated: Metastore) -> None:
    """A snapshot without parent gets one at commit, which then cannot be removed."""
    two = populated.lookup("committed-2")
    record = populated.commit("rebased", "active-1", USAGE, parent="committed-2")
    assert record.parents == (two.id, *two.parents)
    assert populated.stat("rebased").parent == "committed-2"
    for name in ("active-2", "view-2"):
        populated.remove(name)
    with pytest.raises(FailedPrecondition, match="rebased"):
        populated.remove("committed-2")


def test_rebase_of_what_has_a_parent_changes_nothing(populated: Metastore) -> None:
    """The same parent is allowed, none is no change, another is ignored (docs/containerd 3.7)."""
    populated.commit("same", "active-2", USAGE, parent="committed-2")
    populated.create(Kind.ACTIVE, "key", "committed-2")
    populated.commit("none", "key", USAGE, parent="")
    populated.create(Kind.ACTIVE, "key", "committed-2")
    populated.commit("other", "key", USAGE, parent="committed-1")
    assert {populated.stat(name).parent for name in ("same", "none", "other")} == {"committed-2"}


@pytest.mark.parametrize(("parent", "expected"), [("missing", NotFound), ("active-2", InvalidArgument)])
def test_rebase_onto_what_is_no_parent_is_refused(populated: Metastore, parent: str, expected: type[Error]) -> None:
    with pytest.raises(expected):
        populated.commit("new", "active-1", USAGE, parent=parent)
    assert populated.stat("active-1").kind == Kind.ACTIVE


def test_labels_and_filters_take_any_text(store: Metastore) -> None:
    """Slashes, other scripts, 4096 characters."""
    for key in ("a/b/c", "схема", "x" * 4096, "' OR 1=1 --", "%_"):
        store.create(Kind.ACTIVE, key, "", {key: key})
        assert store.stat(key).labels == {key: key}
        store.remove(key)


def test_place_that_fails_leaves_no_row(store: Metastore) -> None:
    def place(record: Record) -> None:
        raise OSError(f"no room for {record.id}")

    with pytest.raises(OSError, match="no room"):
        store.create(Kind.ACTIVE, "key", place=place)
    assert list(store.walk()) == []
    store.create(Kind.ACTIVE, "key")


def test_threads_do_not_disturb_each_other(store: Metastore) -> None:
    """Many threads create, commit, walk and remove; every row is whole."""
    committed(store, "base")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                store.create(Kind.ACTIVE, f"{number}-{turn}", "base")
                store.commit(f"c{number}-{turn}", f"{number}-{turn}", USAGE)
                assert len(list(store.walk([f"name==c{number}-{turn}"]))) == 1
                store.remove(f"c{number}-{turn}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [info.name for info in store.walk()] == ["base"]


def test_rows_survive_the_death_of_the_process(tmp_path: Path) -> None:
    """Also those that were not flushed."""
    code = (
        "import os, sys; from pathlib import Path; from windlass_storage.metastore import Metastore; "
        "s = Metastore(Path(sys.argv[1])); s.create(2, 'alive'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "metadata.db")], timeout=30)
    store = Metastore(tmp_path / "metadata.db")
    assert store.stat("alive").kind == Kind.ACTIVE
    store.close()


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "metadata.db") as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(FailedPrecondition, match="upgrade"):
        Metastore(tmp_path / "metadata.db")


def test_damage_is_told(tmp_path: Path) -> None:
    """The file is named, and not changed."""
    path = tmp_path / "metadata.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(DataLoss, match=str(path)):
        Metastore(path)
    assert path.read_bytes() == b"not a database" * 1000


def test_a_closed_store_says_so(store: Metastore) -> None:
    store.close()
    store.close()
    with pytest.raises(FailedPrecondition, match="closed"):
        store.stat("x")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_told_and_harmless(tmp_path: Path) -> None:
    """The path is named; what was there is there, and there is room again after removal."""
    from windlass.contracts.mounts import Mount
    from windlass_linux import mounting

    with mounting.mounted([Mount("tmpfs", "tmpfs", ("size=1M",))], tmp_path) as place:
        store = Metastore(Path(place) / "metadata.db")
        try:
            store.create(Kind.ACTIVE, "first")
            ballast = Path(place) / "ballast"
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(b"x" * 4096)
            with pytest.raises(ResourceExhausted, match="metadata"):
                for number in range(1000):
                    store.create(Kind.ACTIVE, f"more{number}", "", {"x": "y" * 4000})
            assert store.stat("first").kind == Kind.ACTIVE
            ballast.unlink()
            store.create(Kind.ACTIVE, "second")
        finally:
            store.close()
