"""What the metadata store finds out of step with the stores behind it, and how that is mended."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from metadata.conftest import KEPT, World, digest_of, make_world, put  # noqa: F401 - make_world is a fixture
from metadata.memory_content import MemoryContent

from windlass.contracts.checks import Problem
from windlass.contracts.containers import Container
from windlass.contracts.images import Image
from windlass.contracts.values import Descriptor, Payload
from windlass_metadata.store import MetadataStore
from windlass_snapshot_native.snapshotter import NativeSnapshotter

NS = "ns"


class Place:
    """A metadata store before memory and a native snapshotter, with an image, its layer, snapshots and a container."""

    def __init__(self, world: World, native: NativeSnapshotter) -> None:
        self.world = world
        self.native = native
        self.metadata: MetadataStore = world.open()
        content = self.metadata.content(NS)
        self.layer = put(content, b"layer", KEPT)
        self.manifest = put(content, b"manifest", {"containerd.io/gc.ref.content.l.0": self.layer})
        self.metadata.images(NS).create(Image("img:1", Descriptor("application/x", self.manifest, 8)))
        snapshots = self.metadata.snapshotter("memory", NS)
        snapshots.prepare("extract", "", KEPT)
        snapshots.commit("top", "extract", KEPT)
        snapshots.prepare("box", "top", KEPT)
        self.metadata.containers(NS).create(
            Container("box", spec=Payload("spec", b"{}"), runtime="r", snapshotter="memory", snapshot_key="box")
        )

    def check(self, repair: bool = False, deep: bool = False) -> list[Problem]:
        return self.metadata.check(repair, deep)

    def found(self, repair: bool = False, deep: bool = False) -> list[str]:
        return [str(problem) for problem in self.check(repair, deep)]

    def sql(self, statement: str, *values: str) -> None:
        self.metadata._ledger.database.write(lambda rows: rows.execute(statement, values).rowcount)


@pytest.fixture
def place(make_world: Callable[..., World], tmp_path: Path) -> Place:  # noqa: F811 - the fixture
    native = NativeSnapshotter(tmp_path / "native")
    return Place(make_world(snapshotter=native), native)


def memory(place: Place) -> MemoryContent:
    return place.world.content


def test_all_is_well(place: Place) -> None:
    """Also deep, and after garbage was made and collected."""
    assert place.found(deep=True) == []
    put(place.metadata.content(NS), b"garbage")
    place.metadata.collect()
    assert place.found(repair=True, deep=True) == []


def test_a_lost_blob_is_named_with_the_image_that_needs_it(place: Place) -> None:
    """Repaired, it is forgotten, so that a pull brings it again."""
    del memory(place).blobs[place.layer]
    (found,) = place.found()
    assert found == f"blob {place.layer} is missing; run with --repair to have it forgotten, then pull img:1 again"
    (problem,) = place.check(repair=True)
    assert problem.repaired and problem.remedy == "it was forgotten; pull img:1 again"
    assert place.found() == []
    put(place.metadata.content(NS), b"layer", KEPT, ref="again")


def test_a_cut_blob_is_damage(place: Place) -> None:
    info, data = memory(place).blobs[place.layer]
    memory(place).blobs[place.layer] = type(info)(info.digest, 3), data[:3]
    assert "has 3 bytes, not 5" in place.found()[0]
    assert place.check(repair=True)[0].repaired
    assert place.layer not in memory(place).blobs
    assert place.found() == []


def test_changed_bytes_are_found_by_a_deep_check(place: Place) -> None:
    info, _ = memory(place).blobs[place.layer]
    memory(place).blobs[place.layer] = info, b"lAyer"
    assert place.found() == []
    assert "has other bytes than it was stored with" in place.found(deep=True)[0]


def test_a_blob_that_nobody_knows_is_removed(place: Place) -> None:
    writer = memory(place).writer("stray")
    writer.write(b"stray")
    writer.commit()
    assert place.found() == [f"blob {digest_of(b'stray')} belongs to nothing; garbage collection removes it"]
    assert [problem.repaired for problem in place.check(repair=True)] == [True]
    assert digest_of(b"stray") not in memory(place).blobs
    assert place.layer in memory(place).blobs


def test_an_ingest_without_bytes_and_bytes_without_an_ingest(place: Place) -> None:
    writer = place.metadata.content(NS).writer("half")
    writer.write(b"x")
    writer.close()
    (backend,) = memory(place).ingests
    stray = memory(place).ingests.pop(backend)
    stray.status = dataclasses.replace(stray.status, ref="stray")
    memory(place).ingests["stray"] = stray
    assert place.found() == [
        "ingest half of namespace ns has lost its bytes; it will start from its beginning",
        "ingest stray belongs to nothing; garbage collection removes it",
    ]
    assert all(problem.repaired for problem in place.check(repair=True))
    assert place.found() == [] and not memory(place).ingests


def test_a_lost_snapshot_goes_when_nobody_uses_it(place: Place) -> None:
    """A container keeps its row; without it the whole chain is forgotten."""
    for kind in ("active", "committed"):
        for info in list(place.native.walk([f"kind=={kind}"])):
            place.native.remove(info.name)
    found = place.found(repair=True)
    assert found[0] == (
        "snapshot box of memory, namespace ns, is missing; remove container box, which cannot be used any more"
    )
    place.metadata.containers(NS).delete("box")
    assert all(problem.repaired for problem in place.check(repair=True))
    assert place.found() == []


def test_a_snapshot_that_nobody_knows_is_removed(place: Place) -> None:
    place.native.prepare("stray")
    assert place.found() == ["snapshot of memory stray belongs to nothing; garbage collection removes it"]
    assert place.check(repair=True)[0].repaired
    assert place.found() == []


def test_a_snapshot_of_another_kind_is_damage(place: Place) -> None:
    place.sql("UPDATE snapshots SET kind = 3 WHERE key = 'box'")
    (found,) = place.found()
    assert "snapshot box of memory, namespace ns, is active in the snapshotter, committed here;" in found
    assert found.endswith("remove what was made on it, then itself")


def test_directories_are_compared_with_rows(place: Place, tmp_path: Path) -> None:
    """By the library, so for every snapshotter that keeps directories."""
    snapshots = tmp_path / "native/snapshots"
    (snapshots / "77").mkdir()
    assert place.found() == [f"directory {snapshots}/77 belongs to no snapshot; it is deleted at the next cleanup"]
    assert place.check(repair=True)[0].repaired
    assert place.found() == []
    (snapshots / "2").rmdir()
    assert f"has lost its directory {snapshots}/2; remove it" in place.found(repair=True)[0]


def test_names_without_what_they_name(place: Place) -> None:
    """An image without its target, a container without its snapshot."""
    place.sql("DELETE FROM content WHERE digest = ?", place.manifest)
    place.sql("DELETE FROM snapshots WHERE key = 'box'")
    found = place.found()
    assert f"image img:1 of namespace ns has no {place.manifest}; pull it again, or remove it" in found
    assert "container box of namespace ns has no snapshot box of memory; remove it" in found


def test_a_damaged_database_is_named(place: Place) -> None:
    path = place.world.root / "meta.db"
    place.world.close()
    with sqlite3.connect(path) as rows:
        rows.execute("PRAGMA writable_schema = ON")
        other = "(SELECT rootpage FROM sqlite_schema WHERE name = 'snapshots_by_backend')"
        rows.execute(f"UPDATE sqlite_schema SET rootpage = {other} WHERE name = 'content_by_digest'")
    place.metadata = place.world.open()
    assert any("metadata database is damaged" in line for line in place.found())
