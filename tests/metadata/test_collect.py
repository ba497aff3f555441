"""Garbage collection from end to end: rows, blobs and files, while others go on writing, and when stores fail."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from sqlite3 import Connection
from typing import Any

import pytest
from metadata.conftest import KEPT, World, digest_of, image, put

from windlass.contracts.leases import Resource
from windlass.contracts.metadata import Collectible
from windlass.contracts.sandboxes import Sandbox
from windlass.contracts.snapshots import Snapshotter
from windlass.errors import AlreadyExists, Internal, NotFound, Unavailable
from windlass_api.containerd.services.images.v1.events_pb2 import ImageDelete
from windlass_metadata import cleaner as cleaner_module
from windlass_metadata import collect as collect_module
from windlass_metadata.graph import Graph
from windlass_metadata.store import MetadataStore

PAST = {"containerd.io/gc.expire": "2001-02-03T04:05:06Z"}


def refers(*digests: str) -> dict[str, str]:
    return {f"containerd.io/gc.ref.content.{number}": digest for number, digest in enumerate(digests)}


def chain(snapshotter: Snapshotter, *names: str) -> None:
    parent = ""
    for name in names:
        snapshotter.prepare("key", parent)
        snapshotter.commit(name, "key")
        parent = name


def blobs(metadata: MetadataStore, namespace: str = "ns") -> set[str]:
    return {info.digest for info in metadata.content(namespace).walk()}


def snapshots(metadata: MetadataStore, name: str = "memory") -> set[str]:
    return {info.name for info in metadata.snapshotter(name, "ns").walk()}


def test_blob_of_two_namespaces_that_goes_from_both_at_once(metadata: MetadataStore, world: World) -> None:
    """One batch of the sweep has both rows: the blob goes once, with the last of them."""
    for namespace in ("one", "two"):
        put(metadata.content(namespace), b"shared")

    collected = metadata.collect()
    assert (collected.removed, collected.blobs) == (2, 1)
    assert not world.content.blobs


def test_blob_that_only_one_of_two_namespaces_keeps(metadata: MetadataStore, world: World) -> None:
    put(metadata.content("one"), b"shared")
    digest = put(metadata.content("two"), b"shared", KEPT)

    collected = metadata.collect()
    assert (collected.removed, collected.blobs) == (1, 0)
    assert set(world.content.blobs) == {digest}


def test_two_images_share_a_layer_until_both_are_gone(metadata: MetadataStore, world: World) -> None:
    content = metadata.content("ns")
    shared, only = put(content, b"shared"), put(content, b"only")
    first = put(content, b"first", refers(shared, only))
    second = put(content, b"second", refers(shared))
    metadata.images("ns").create(image("one", first))
    metadata.images("ns").create(image("two", second))

    assert metadata.collect().removed == 0
    metadata.images("ns").delete("one")
    done = metadata.collect()
    assert (done.removed, done.blobs, done.failures) == (2, 2, ())
    assert blobs(metadata) == {shared, second} == set(world.content.blobs)
    metadata.images("ns").delete("two")
    metadata.collect()
    assert blobs(metadata) == set() == set(world.content.blobs)


def test_chain_goes_leaves_first(metadata: MetadataStore, world: World) -> None:
    """And the snapshots of a container stay."""
    chain(metadata.snapshotter("memory", "ns"), "a", "b", "c")
    metadata.snapshotter("memory", "ns").prepare("kept", "a", KEPT)
    world.events.published.clear()

    done = metadata.collect()

    assert (done.removed, done.snapshots) == (2, 2)
    assert snapshots(metadata) == {"a", "kept"}
    assert [(topic, b"c" in event.value) for _, topic, event in world.events.published] == [
        ("/snapshot/remove", True),
        ("/snapshot/remove", False),
    ]


def test_expired_images_and_leases_go_and_the_world_is_told(metadata: MetadataStore, world: World) -> None:
    metadata.images("ns").create(image("old", put(metadata.content("ns"), b"x"), PAST))
    metadata.leases("ns").create("old", PAST)
    world.events.published.clear()

    assert metadata.collect().removed == 3
    assert metadata.images("ns").list() == [] == metadata.leases("ns").list()
    ((namespace, topic, event),) = world.events.published
    assert (namespace, topic, ImageDelete.FromString(event.value).name) == ("ns", "/images/delete", "old")


def test_blob_stays_while_any_namespace_has_it(metadata: MetadataStore, world: World) -> None:
    digest = put(metadata.content("one"), b"x")
    with closing(metadata.content("two").writer("ref", 0, digest)) as writer:
        writer.commit(labels=KEPT)
    metadata.collect()
    assert blobs(metadata, "one") == set()
    assert blobs(metadata, "two") == {digest} == set(world.content.blobs)


def test_ingests_go_with_their_lease(metadata: MetadataStore, world: World) -> None:
    metadata.leases("ns").create("l")
    with closing(metadata.content("ns", "l").writer("ref")) as writer:
        writer.write(b"x")
    metadata.collect()
    assert len(world.content.statuses()) == 1
    metadata.leases("ns").delete("l")
    metadata.collect()
    assert metadata.content("ns").statuses() == [] == world.content.statuses()


def test_open_writer_is_never_collected(metadata: MetadataStore) -> None:
    """Not even when the lease goes from under it."""
    metadata.leases("ns").create("l")
    with closing(metadata.content("ns", "l").writer("ref")) as writer:
        writer.write(b"x")
        metadata.leases("ns").delete("l")
        metadata.collect()
        writer.write(b"y")
        with pytest.raises(NotFound, match="lease"):
            writer.commit()
    assert metadata.content("ns").status("ref").offset == 2


def test_virtual_ingest_keeps_the_bytes_of_another_namespace(metadata: MetadataStore, world: World) -> None:
    digest = put(metadata.content("one"), b"x")
    with closing(metadata.content("two").writer("ref", 0, digest)) as writer:
        metadata.content("one").delete(digest)
        metadata.collect()
        writer.commit(labels=KEPT)
    metadata.collect()
    assert set(world.content.blobs) == {digest}


def test_strays_in_the_stores_are_found_at_the_first_collection(metadata: MetadataStore, world: World) -> None:
    """Whatever a crash has left that no row knows."""
    put(world.content, b"stray")
    world.content.writer("ns/1/stray").close()
    chain(world.snapshotter, "ns/1/a", "ns/2/b")
    kept = put(metadata.content("ns"), b"kept", KEPT)
    metadata.snapshotter("memory", "ns").prepare("kept", "", KEPT)

    done = metadata.collect()

    assert (done.blobs, done.snapshots, done.removed) == (1, 2, 0)
    assert set(world.content.blobs) == {kept} and world.content.statuses() == []
    assert len(world.snapshotter.snapshots) == 1


Between = Callable[[Callable[[], object]], None]
"""Has a function called between mark and sweep."""


class TestWhileOthersWrite:
    """A change that is made between mark and sweep is respected."""

    @pytest.fixture
    def between(self, monkeypatch: pytest.MonkeyPatch) -> Between:
        """Have a function called when marking is over and the sweep has not begun."""
        load = Graph.load
        calls: list[Callable[[], object]] = []

        def load_and_call(graph: Graph, rows: Connection) -> None:
            load(graph, rows)
            if calls:
                calls.pop()()

        monkeypatch.setattr(Graph, "load", load_and_call)
        return calls.append

    @pytest.fixture
    def tree(self, metadata: MetadataStore) -> tuple[str, ...]:
        """Garbage: a manifest, which refers to a config, which refers to a layer."""
        content = metadata.content("ns")
        layer = put(content, b"layer")
        config = put(content, b"config", refers(layer))
        return put(content, b"manifest", refers(config)), config, layer

    def test_new_image_keeps_everything_beneath_it(
        self, metadata: MetadataStore, between: Between, tree: tuple[str, ...]
    ) -> None:
        between(lambda: metadata.images("ns").create(image("new", tree[0])))
        assert metadata.collect().removed == 0
        assert blobs(metadata) == set(tree)

    def test_new_lease_resource(self, metadata: MetadataStore, between: Between, tree: tuple[str, ...]) -> None:
        metadata.leases("ns").create("l")
        between(lambda: metadata.leases("ns").add_resource("l", Resource(tree[1], "content")))
        metadata.collect()
        assert blobs(metadata) == set(tree[1:])

    def test_new_label(self, metadata: MetadataStore, between: Between, tree: tuple[str, ...]) -> None:
        holder = metadata.content("ns").info(put(metadata.content("ns"), b"holder", KEPT))
        changed = type(holder)(holder.digest, labels={**KEPT, **refers(tree[2])})
        between(lambda: metadata.content("ns").update(changed))
        metadata.collect()
        assert blobs(metadata) == {holder.digest, tree[2]}

    def test_lease_that_is_prolonged_by_being_made_anew(
        self, metadata: MetadataStore, between: Between, tree: tuple[str, ...]
    ) -> None:
        metadata.leases("ns").create("l", PAST)
        metadata.leases("ns").add_resource("l", Resource(tree[0], "content"))

        def renew() -> None:
            metadata.leases("ns").delete("l")
            metadata.leases("ns").create("l")
            metadata.leases("ns").add_resource("l", Resource(tree[0], "content"))

        between(renew)
        assert metadata.collect().removed == 0

    def test_refused_writer_with_a_lease(
        self, metadata: MetadataStore, between: Between, tree: tuple[str, ...]
    ) -> None:
        metadata.leases("ns").create("l")

        def write() -> None:
            with pytest.raises(AlreadyExists):
                metadata.content("ns", "l").writer("ref", 0, tree[0])

        between(write)
        assert metadata.collect().removed == 0

    def test_blob_that_is_deleted_and_comes_back(self, metadata: MetadataStore, between: Between, world: World) -> None:
        digest = put(metadata.content("ns"), b"x")

        def again() -> None:
            metadata.content("ns").delete(digest)
            put(metadata.content("ns"), b"x")

        between(again)
        metadata.collect()
        assert blobs(metadata) == {digest} == set(world.content.blobs)

    def test_snapshot_on_a_parent_that_was_garbage(self, metadata: MetadataStore, between: Between) -> None:
        view = metadata.snapshotter("memory", "ns")
        chain(view, "a", "b", "c")
        between(lambda: view.prepare("child", "b"))
        metadata.collect()
        assert snapshots(metadata) == {"a", "b", "child"}

    def test_container_on_a_snapshot_that_was_garbage(self, metadata: MetadataStore, between: Between) -> None:
        from windlass.contracts.containers import Container
        from windlass.contracts.values import Payload

        view = metadata.snapshotter("memory", "ns")
        chain(view, "a", "b")
        record = Container("c", "r", None, Payload("s", b""), snapshotter="memory", snapshot_key="b")
        between(lambda: metadata.containers("ns").create(record))
        assert metadata.collect().removed == 0

    def test_half_swept_tree_is_never_left_dangling(
        self, metadata: MetadataStore, tree: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Referrers go first: who takes up what is still there finds all that it refers to."""
        swept: list[int] = []
        sweep = collect_module._sweep

        # Any: as _sweep has them
        def one_and_then(*args: Any) -> int:
            count = sweep(*args)
            if not swept:
                metadata.images("ns").create(image("new", tree[1]))
            swept.append(count)
            return count

        monkeypatch.setattr(collect_module, "_sweep", one_and_then)
        monkeypatch.setattr(collect_module, "BATCH", 1)
        collect_module.collect(metadata._ledger, batch=1)
        assert swept == [1, 0, 0]
        assert blobs(metadata) == set(tree[1:])

    def test_under_load_nothing_that_is_held_goes(self, metadata: MetadataStore) -> None:
        """Four writers make and drop images over shared blobs while collections run."""
        stop = time.monotonic() + 1.5
        problems: list[str] = []

        def work(number: int) -> None:
            images = metadata.images("ns")
            lease = f"lease-{number}"
            while time.monotonic() < stop and not problems:
                metadata.leases("ns").create(lease)
                content = metadata.content("ns", lease)
                digests = []
                for part in range(3):
                    try:
                        digests.append(put(content, b"part %d" % part, ref=f"{number}-{part}"))
                    except AlreadyExists:
                        digests.append(digest_of(b"part %d" % part))
                try:
                    target = put(content, b"manifest %d" % number, refers(*digests), ref=f"m{number}")
                except AlreadyExists:
                    target = digest_of(b"manifest %d" % number)
                images.create(image(f"image-{number}", target))
                metadata.leases("ns").delete(lease)
                time.sleep(0.002)
                for digest in (target, *digests):
                    try:
                        content.reader(image("x", digest).target).close()
                    except NotFound as error:
                        problems.append(str(error))
                images.delete(f"image-{number}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            metadata.collect()
        assert problems == []
        metadata.collect()
        assert blobs(metadata) == set()


class TestStoresThatFail:
    def test_hanging_snapshotter_blocks_nothing_else(self, world: World) -> None:
        """The collection says so and ends; the next one leaves it alone; it goes on when it is free again."""
        leave = threading.Event()

        def hang(method: str, key: str) -> None:
            if method == "remove":
                assert leave.wait(10)

        metadata = world.open(clean_timeout=0.2)
        metadata.snapshotter("memory", "ns").prepare("a")
        metadata.snapshotter("other", "ns").prepare("b")
        put(metadata.content("ns"), b"x")
        world.snapshotter.before = hang
        started = time.monotonic()
        first, second = metadata.collect(), metadata.collect()
        assert time.monotonic() - started < 2
        assert world.other.snapshots == {} == world.content.blobs
        assert [failure[:18] for failure in first.failures] == ["snapshotter memory"]
        assert "still busy" in second.failures[0]
        metadata.snapshotter("other", "ns").prepare("c")

        leave.set()
        deadline = time.monotonic() + 5
        while world.snapshotter.snapshots and time.monotonic() < deadline:
            time.sleep(0.01)
        assert world.snapshotter.snapshots == {}

    def test_failing_snapshotter_is_parked_and_tried_again(
        self, metadata: MetadataStore, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cleaner_module, "FIRST_PAUSE", 0.1)

        def fail(method: str, key: str) -> None:
            if method in ("remove", "cleanup"):
                raise Internal("broken")

        metadata.snapshotter("memory", "ns").prepare("a")
        world.snapshotter.before = fail
        assert metadata.collect().failures == ("snapshotter memory: broken",)
        assert "tried again" in metadata.collect().failures[0]
        world.snapshotter.before = lambda method, key: None
        time.sleep(0.15)
        assert metadata.collect().failures == ()
        assert world.snapshotter.snapshots == {}

    def test_a_snapshotter_that_is_away_is_told_once_and_again_when_that_changes(
        self,
        metadata: MetadataStore,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(cleaner_module, "FIRST_PAUSE", 0.0)
        caplog.set_level(logging.INFO, cleaner_module.__name__)
        reasons = iter(["away"] * 5 + ["broken"] * 5)

        def fail(method: str, key: str) -> None:
            if method == "remove":
                raise Internal(next(reasons))

        metadata.snapshotter("memory", "ns").prepare("a")
        world.snapshotter.before = fail
        for _ in range(10):
            assert metadata.collect().failures
        world.snapshotter.before = lambda method, key: None
        for _ in range(3):
            assert metadata.collect().failures == ()
        told = [record.getMessage().partition(";")[0] for record in caplog.records]
        assert told == [f"cleaning snapshotter memory: {what}" for what in ("away", "broken", "all is well again")]

    def test_defective_snapshotter_is_a_failure_and_no_more(self, metadata: MetadataStore, world: World) -> None:
        def crash(method: str, key: str) -> None:
            if method == "remove":
                raise ZeroDivisionError("defect")

        metadata.snapshotter("memory", "ns").prepare("a")
        world.snapshotter.before = crash
        assert metadata.collect().failures == ("snapshotter memory: defect",)

    def test_content_store_that_fails_keeps_its_trash(
        self, metadata: MetadataStore, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cleaner_module, "FIRST_PAUSE", 0.0)

        def fail(method: str, name: str) -> None:
            if method == "delete":
                raise Internal("broken")

        for number in range(3):
            put(metadata.content("ns"), b"%d" % number)
        world.content.before = fail
        assert metadata.collect().failures == ("content store: broken",)
        assert blobs(metadata) == set() and len(world.content.blobs) == 3
        world.content.before = lambda method, name: None
        assert metadata.collect().blobs == 3

    def test_blob_wanted_again_while_it_is_being_deleted_is_written_anew(
        self, metadata: MetadataStore, world: World
    ) -> None:
        """The commit waits until the old bytes are gone, so that they cannot go after it."""
        entered, leave = threading.Event(), threading.Event()

        def block(method: str, name: str) -> None:
            if method == "delete":
                entered.set()
                assert leave.wait(10)

        digest = put(metadata.content("ns"), b"x")
        world.content.before = block
        collecting = threading.Thread(target=metadata.collect)
        collecting.start()
        assert entered.wait(10)
        committing = threading.Thread(target=put, args=(metadata.content("ns"), b"x", KEPT))
        committing.start()
        time.sleep(0.1)
        assert blobs(metadata) == set()
        leave.set()
        committing.join(10)
        collecting.join(10)
        assert blobs(metadata) == {digest} == set(world.content.blobs)


def test_collections_at_once_are_made_one_after_another(metadata: MetadataStore, world: World) -> None:
    for number in range(20):
        put(metadata.content("ns"), b"%d" % number)
    threads = [threading.Thread(target=metadata.collect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert world.content.blobs == {}


@dataclass
class Shelf:
    """A store outside of the database."""

    things: dict[str, Collectible] = field(default_factory=dict)
    stuck: set[str] = field(default_factory=set)

    def put(self, id: str, lease: str = "", **labels: str) -> None:
        named = {f"containerd.io/gc.{key.replace('_', '.')}": value for key, value in labels.items()}
        self.things[id] = Collectible("ns", id, named, lease)

    def collectibles(self) -> list[Collectible]:
        return list(self.things.values())

    def discard(self, namespace: str, id: str) -> None:
        assert namespace == "ns"
        if id in self.stuck:
            raise Unavailable(f"{id} is stuck")
        self.things.pop(id, None)


def test_what_other_stores_keep_is_collected_with_the_rest(world: World) -> None:
    """An object outside of the database goes with its lease, or with what its label refers back to."""
    metadata, shelf = world.open(), Shelf()
    metadata.collect_from("thing", shelf)
    lease = metadata.leases("ns").create("lease")
    metadata.images("ns").create(image("image", digest_of(b"x")))
    shelf.put("nobody's")
    shelf.put("root", root="yes")
    shelf.put("leased", lease=lease.id)
    shelf.put("of the image", bref_image="image")

    metadata.collect()
    assert set(shelf.things) == {"root", "leased", "of the image"}
    metadata.leases("ns").delete(lease.id)
    metadata.images("ns").delete("image")
    metadata.collect()
    assert set(shelf.things) == {"root"}


def test_what_other_stores_keep_is_held_by_labels_that_name_it(world: World) -> None:
    """``gc.ref.<kind>`` of anything that is kept, in the same namespace, holds every object of that name."""
    metadata, shelf = world.open(), Shelf()
    metadata.collect_from("thing", shelf)
    for id, name in enumerate(("a", "a", "b", "c", "d", "e")):
        shelf.things[str(id)] = Collectible("ns", str(id), name=name)
    labels = {"gc.ref.thing": "a", "gc.ref.thing.2": "b", "gc.ref.thingy": "d"}
    named = {f"containerd.io/{key}": value for key, value in labels.items()}
    metadata.images("ns").create(replace(image("image", digest_of(b"x")), labels=named))
    metadata.sandboxes("ns").create(Sandbox("s", labels={"containerd.io/gc.ref.thing/1": "c"}))
    metadata.images("other").create(
        replace(image("image", digest_of(b"x")), labels={"containerd.io/gc.ref.thing": "e"})
    )

    metadata.collect()
    assert [one.name for one in shelf.things.values()] == ["a", "a", "b", "c"]
    metadata.images("ns").delete("image")
    metadata.collect()
    assert [one.name for one in shelf.things.values()] == ["c"]


def test_an_object_that_another_store_cannot_remove_keeps_no_other(world: World) -> None:
    """What fails is named, and tried again; the rest goes."""
    metadata, shelf = world.open(), Shelf()
    metadata.collect_from("thing", shelf)
    shelf.put("first")
    shelf.put("second")
    shelf.stuck.add("first")
    assert metadata.collect().failures == ("thing store: first is stuck",)
    assert set(shelf.things) == {"first"}
