"""What a namespace sees of a snapshotter, and the protocol for remote snapshots (docs/containerd 3.7, 8.3)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from google.protobuf.message import Message
from metadata.conftest import World
from metadata.memory_snapshotter import MemorySnapshotter

from windlass.contracts.leases import Resource
from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import LABEL_REF, Info, Kind, Snapshotter
from windlass.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Error,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from windlass_api.containerd.events.snapshot_pb2 import SnapshotCommit
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2
from windlass_metadata import ledger as ledger_module
from windlass_metadata.snapshots import MANY, Snapshots
from windlass_metadata.store import MetadataStore
from windlass_remote.records import to_snapshot


@pytest.fixture
def snapshotter(metadata: MetadataStore) -> Snapshotter:
    return metadata.snapshotter("memory", "ns")


def names(snapshotter: Snapshotter) -> list[str]:
    return sorted(info.name for info in snapshotter.walk())


def commit(snapshotter: Snapshotter, name: str, parent: str = "", **labels: str) -> None:
    snapshotter.prepare(f"key-{name}", parent)
    snapshotter.commit(name, f"key-{name}", labels)


class TestView:
    def test_backend_names_carry_namespace_number_and_key(self, snapshotter: Snapshotter, world: World) -> None:
        mounts = snapshotter.prepare("a/b")
        (backend,) = world.snapshotter.snapshots

        assert (backend.split("/", 2)[0], backend.split("/", 2)[2]) == ("ns", "a/b")
        assert mounts == (Mount("bind", f"/memory/{backend}"),)

    def test_only_snapshot_labels_reach_the_snapshotter(self, snapshotter: Snapshotter, world: World) -> None:
        labels = {"containerd.io/snapshot/uidmapping": "0:1:2", "containerd.io/gc.root": "x", "mine": "y"}
        snapshotter.prepare("s", "", {**labels, "empty": ""})
        (info,) = world.snapshotter.snapshots.values()

        assert info.labels == {"containerd.io/snapshot/uidmapping": "0:1:2"}
        assert snapshotter.stat("s").labels == labels

        snapshotter.update(replace(snapshotter.stat("s"), labels={"mine": "z"}), ["labels.mine"])
        snapshotter.update(
            replace(snapshotter.stat("s"), labels={"containerd.io/snapshot/gidmapping": "1"}),
            ["labels.containerd.io/snapshot/gidmapping", "labels.containerd.io/snapshot/uidmapping"],
        )
        (info,) = world.snapshotter.snapshots.values()
        assert info.labels == {"containerd.io/snapshot/gidmapping": "1"}
        assert snapshotter.stat("s").labels["mine"] == "z"

    def test_labels_of_the_snapshotter_shine_through(self, snapshotter: Snapshotter, world: World) -> None:
        snapshotter.prepare("s", "", {"mine": "1"})
        ((backend, info),) = world.snapshotter.snapshots.items()
        label = "containerd.io/snapshot/overlay.upperdir"
        world.snapshotter.snapshots[backend] = replace(info, labels={label: "/upper"})

        assert snapshotter.stat("s").labels == {"mine": "1", label: "/upper"}
        assert [info.name for info in snapshotter.walk([f'labels."{label}"=="/upper"'])] == ["s"]

    def test_namespaces_do_not_see_each_other(self, metadata: MetadataStore, snapshotter: Snapshotter) -> None:
        commit(snapshotter, "layer")
        other = metadata.snapshotter("memory", "other")
        same = metadata.snapshotter("other", "ns")

        for view in (other, same):
            assert names(view) == []
            with pytest.raises(NotFound):
                view.stat("layer")
            with pytest.raises(NotFound, match="parent snapshot layer"):
                view.prepare("child", "layer")
            view.prepare("layer")

    def test_events(self, snapshotter: Snapshotter, world: World) -> None:
        commit(snapshotter, "layer")
        snapshotter.view("view", "layer")
        snapshotter.remove("view")

        assert world.events.topics() == ["/snapshot/prepare", "/snapshot/commit", "/snapshot/remove"]
        event = SnapshotCommit.FromString(world.events.published[1][2].value)
        assert event == SnapshotCommit(key="key-layer", name="layer", snapshotter="memory")

    def test_removed_is_gone_at_once_and_from_the_snapshotter_with_the_next_collection(
        self, metadata: MetadataStore, snapshotter: Snapshotter, world: World
    ) -> None:
        snapshotter.prepare("s")
        snapshotter.remove("s")
        assert names(snapshotter) == [] and len(world.snapshotter.snapshots) == 1

        snapshotter.prepare("s", labels={"containerd.io/gc.root": "x"})
        assert metadata.collect().snapshots == 1
        assert names(snapshotter) == ["s"] and len(world.snapshotter.snapshots) == 1
        assert world.snapshotter.cleanups == 1

    def test_snapshot_with_a_child_stays(self, snapshotter: Snapshotter) -> None:
        commit(snapshotter, "layer")
        snapshotter.prepare("child", "layer")
        for _ in range(2):
            with pytest.raises(FailedPrecondition, match="cannot remove snapshot with child"):
                snapshotter.remove("layer")

    def test_rebase_is_recorded_if_the_snapshotter_did_it(self, snapshotter: Snapshotter) -> None:
        """A parent at commit counts only for a snapshot that was prepared without one."""
        commit(snapshotter, "base")
        commit(snapshotter, "base2")
        snapshotter.prepare("top")
        snapshotter.commit("done", "top", {}, "base")
        snapshotter.prepare("kept", "base")
        snapshotter.commit("kept2", "kept", {}, "base2")

        assert snapshotter.stat("done").parent == "base"
        assert snapshotter.stat("kept2").parent == "base"
        snapshotter.prepare("x")
        with pytest.raises(NotFound):
            snapshotter.commit("y", "x", {}, "nobody")
        with pytest.raises(InvalidArgument):
            snapshotter.commit("y", "x", {}, "x")

    def test_unexpected_collision_in_the_snapshotter_is_no_already_exists(
        self, snapshotter: Snapshotter, world: World
    ) -> None:
        """The key is new, so the caller would look for a snapshot that is not there (docs/containerd 3.7)."""

        def collide(method: str, key: str) -> None:
            if method in ("prepare", "commit"):
                raise AlreadyExists(key)

        snapshotter.prepare("key")
        world.snapshotter.before = collide
        for call in (lambda: snapshotter.prepare("s"), lambda: snapshotter.commit("name", "key")):
            with pytest.raises(Error) as caught:
                call()
            assert type(caught.value) is Error
        world.snapshotter.before = lambda method, key: None
        assert names(snapshotter) == ["key"]
        snapshotter.commit("name", "key")

    def test_failed_prepare_leaves_the_key_free(self, snapshotter: Snapshotter, world: World) -> None:
        def fail(method: str, key: str) -> None:
            if method == "prepare":
                raise DeadlineExceeded("slow")

        world.snapshotter.before = fail
        with pytest.raises(DeadlineExceeded):
            snapshotter.prepare("s")
        world.snapshotter.before = lambda method, key: None
        with pytest.raises(NotFound):
            snapshotter.stat("s")
        snapshotter.prepare("s")

    def test_commit_whose_answer_was_lost_is_found_out(self, snapshotter: Snapshotter, world: World) -> None:
        """The snapshotter did commit, and then said it took too long."""

        def late(method: str, key: str) -> None:
            if method == "committed":
                raise DeadlineExceeded("slow")

        snapshotter.prepare("key")
        world.snapshotter.before = late
        with pytest.raises(DeadlineExceeded):
            snapshotter.commit("name", "key")
        world.snapshotter.before = lambda method, key: None

        assert snapshotter.stat("name").kind == Kind.COMMITTED
        assert names(snapshotter) == ["name"]

    def test_commit_that_did_not_happen_is_found_out(self, snapshotter: Snapshotter, world: World) -> None:
        def fail(method: str, key: str) -> None:
            if method == "commit":
                raise DeadlineExceeded("slow")

        snapshotter.prepare("key")
        world.snapshotter.before = fail
        with pytest.raises(DeadlineExceeded):
            snapshotter.commit("name", "key")
        world.snapshotter.before = lambda method, key: None

        assert names(snapshotter) == ["key"]
        snapshotter.commit("name", "key")
        assert names(snapshotter) == ["name"]


class TestConcurrency:
    @pytest.fixture
    def committing(self, snapshotter: Snapshotter, world: World) -> Callable[[], None]:
        """A commit of "key" as "name" that stands still inside the snapshotter, until the fixture is called."""
        entered, leave = threading.Event(), threading.Event()

        def block(method: str, key: str) -> None:
            if method == "commit":
                entered.set()
                assert leave.wait(10)

        snapshotter.prepare("key")
        world.snapshotter.before = block
        thread = threading.Thread(target=snapshotter.commit, args=("name", "key"))
        thread.start()
        assert entered.wait(10)

        def finish() -> None:
            leave.set()
            thread.join(10)

        return finish

    def test_nobody_else_is_kept_waiting(
        self, metadata: MetadataStore, snapshotter: Snapshotter, committing: Callable[[], None]
    ) -> None:
        """Neither other keys nor a collection, which takes nothing that is under way."""
        snapshotter.prepare("other")
        snapshotter.remove("other")
        metadata.collect()
        assert snapshotter.stat("key").kind == Kind.ACTIVE
        with pytest.raises(NotFound):
            snapshotter.stat("name")
        committing()
        assert names(snapshotter) == ["name"]

    def test_second_committer_waits_and_can_then_build_on_the_name(
        self, snapshotter: Snapshotter, committing: Callable[[], None]
    ) -> None:
        """Clients that unpack one layer at once take AlreadyExists for "go on with the next"."""
        snapshotter.prepare("key2")
        timer = threading.Timer(0.2, committing)
        timer.start()
        with pytest.raises(AlreadyExists):
            snapshotter.commit("name", "key2")
        snapshotter.prepare("next", "name")
        timer.join()

    def test_who_waits_too_long_is_told_so(
        self, snapshotter: Snapshotter, committing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_module, "PATIENCE", 0.05)
        for call in (
            lambda: snapshotter.remove("key"),
            lambda: snapshotter.commit("third", "key"),
            lambda: snapshotter.prepare("child", "name"),
        ):
            with pytest.raises(Unavailable, match="in use"):
                call()
        committing()


class TestLeases:
    @pytest.fixture
    def leased(self, metadata: MetadataStore) -> Snapshotter:
        metadata.leases("ns").create("l")
        return metadata.snapshotter("memory", "ns", "l")

    def held(self, metadata: MetadataStore, namespace: str = "ns", lease: str = "l") -> list[str]:
        resources = metadata.leases(namespace).resources(lease)
        assert {resource.type for resource in resources} <= {"snapshots/memory"}
        return [resource.id for resource in resources]

    def test_lease_follows_from_key_to_name(self, metadata: MetadataStore, leased: Snapshotter) -> None:
        leased.prepare("key")
        assert self.held(metadata) == ["key"]
        leased.commit("name", "key")
        assert self.held(metadata) == ["name"]
        leased.view("view", "name")
        assert self.held(metadata) == ["name", "view"]
        leased.remove("view")
        assert self.held(metadata) == ["name"]

    def test_collision_is_held_nevertheless(
        self, metadata: MetadataStore, snapshotter: Snapshotter, leased: Snapshotter
    ) -> None:
        commit(snapshotter, "name")
        snapshotter.prepare("key")
        with pytest.raises(AlreadyExists):
            leased.prepare("key")
        assert self.held(metadata) == ["key"]
        with pytest.raises(AlreadyExists):
            leased.commit("name", "key")
        assert self.held(metadata) == ["key", "name"]

    def test_nothing_is_held_of_what_failed(self, metadata: MetadataStore, leased: Snapshotter) -> None:
        with pytest.raises(NotFound):
            leased.prepare("key", "nobody")
        assert self.held(metadata) == []
        assert metadata.leases("ns").resources("l") == []

    def test_lease_that_goes_while_the_snapshotter_works(
        self, metadata: MetadataStore, leased: Snapshotter, world: World
    ) -> None:
        """Prepare fails and leaves nothing; commit, which cannot be undone, succeeds."""

        def drop(method: str, key: str) -> None:
            if method == "prepare":
                metadata.leases("ns").delete("l")

        world.snapshotter.before = drop
        with pytest.raises(NotFound, match="lease"):
            leased.prepare("key")
        world.snapshotter.before = lambda method, key: None
        assert list(metadata.snapshotter("memory", "ns").walk()) == []


class TestRemote:
    """The label ``containerd.io/snapshot.ref``: what a snapshotter has already need not be unpacked."""

    @pytest.fixture
    def world(self, make_world: Callable[..., World]) -> World:
        return make_world(snapshotter=MemorySnapshotter(remote=True))

    def view(self, metadata: MetadataStore, namespace: str, lease: str = "l") -> Snapshotter:
        if lease not in [lease.id for lease in metadata.leases(namespace).list()]:
            metadata.leases(namespace).create(lease)
        return metadata.snapshotter("memory", namespace, lease)

    def unpack(self, snapshotter: Snapshotter, key: str, ref: str, parent: str = "") -> None:
        snapshotter.prepare(key, parent, {LABEL_REF: ref})
        snapshotter.commit(ref, key, {LABEL_REF: ref})

    def test_another_namespace_finds_what_one_has_unpacked(self, metadata: MetadataStore) -> None:
        one, two = self.view(metadata, "one"), self.view(metadata, "two")
        self.unpack(one, "key", "layer")

        with pytest.raises(AlreadyExists, match="layer"):
            two.prepare("key", "", {LABEL_REF: "layer"})

        info = two.stat("layer")
        assert (info.kind, info.name, info.parent) == (Kind.COMMITTED, "layer", "")
        assert metadata.leases("two").resources("l") == [Resource("layer", "snapshots/memory")]
        with pytest.raises(NotFound):
            two.stat("key")
        two.prepare("next", "layer")

    def test_chain_is_found_layer_by_layer(self, metadata: MetadataStore) -> None:
        one, two = self.view(metadata, "one"), self.view(metadata, "two")
        self.unpack(one, "a", "lower")
        self.unpack(one, "b", "upper", "lower")

        for ref, parent in (("lower", ""), ("upper", "lower")):
            with pytest.raises(AlreadyExists):
                two.prepare(f"key-{ref}", parent, {LABEL_REF: ref})
        assert two.stat("upper").parent == "lower"

    def test_another_parent_is_another_snapshot(self, metadata: MetadataStore) -> None:
        one, two = self.view(metadata, "one"), self.view(metadata, "two")
        self.unpack(one, "a", "lower")
        self.unpack(one, "b", "upper", "lower")

        two.prepare("key", "", {LABEL_REF: "upper"})
        assert two.stat("key").kind == Kind.ACTIVE

    def test_same_namespace_gets_the_name_under_a_new_lease(self, metadata: MetadataStore) -> None:
        self.unpack(self.view(metadata, "one"), "key", "layer")
        with pytest.raises(AlreadyExists):
            self.view(metadata, "one", "new").prepare("key2", "", {LABEL_REF: "layer"})
        assert metadata.leases("one").resources("new") == [Resource("layer", "snapshots/memory")]

    def test_two_namespaces_may_unpack_at_once(self, metadata: MetadataStore) -> None:
        one, two = self.view(metadata, "one"), self.view(metadata, "two")
        one.prepare("key", "", {LABEL_REF: "layer"})
        two.prepare("key", "", {LABEL_REF: "layer"})
        one.commit("layer", "key", {LABEL_REF: "layer"})
        two.commit("layer", "key", {LABEL_REF: "layer"})
        assert one.stat("layer").kind == two.stat("layer").kind == Kind.COMMITTED

    def test_missing_parent_is_not_found_and_nothing_is_held(self, metadata: MetadataStore) -> None:
        two = self.view(metadata, "two")
        with pytest.raises(NotFound):
            two.prepare("key", "nobody", {LABEL_REF: "layer"})
        assert metadata.leases("two").resources("l") == []

    def test_shared_snapshot_stays_while_one_namespace_has_it(self, metadata: MetadataStore, world: World) -> None:
        one, two = self.view(metadata, "one"), self.view(metadata, "two")
        self.unpack(one, "key", "layer")
        with pytest.raises(AlreadyExists):
            two.prepare("key", "", {LABEL_REF: "layer"})

        one.remove("layer")
        metadata.collect()
        assert two.stat("layer").kind == Kind.COMMITTED
        two.remove("layer")
        metadata.collect()
        assert world.snapshotter.snapshots == {}

    def test_what_was_thrown_away_is_rescued(self, metadata: MetadataStore, world: World) -> None:
        """Between its removal and the collection the snapshotter still has it."""
        one, two = self.view(metadata, "one"), self.view(metadata, "two")
        self.unpack(one, "key", "layer")
        one.remove("layer")
        with pytest.raises(AlreadyExists):
            two.prepare("key", "", {LABEL_REF: "layer"})
        metadata.collect()
        assert two.stat("layer").kind == Kind.COMMITTED

    def test_snapshotter_that_contradicts_itself(self, metadata: MetadataStore, world: World) -> None:
        def lie(method: str, key: str) -> None:
            if method == "prepare":
                raise AlreadyExists("no it does not")

        world.snapshotter.before = lie
        with pytest.raises(NotFound, match="reported target snapshot layer, but does not have it"):
            self.view(metadata, "two").prepare("key", "", {LABEL_REF: "layer"})
        assert metadata.leases("two").resources("l") == []


def test_walk_skips_what_the_snapshotter_has_lost(snapshotter: Snapshotter, world: World) -> None:
    snapshotter.prepare("lost")
    world.snapshotter.snapshots.clear()
    snapshotter.prepare("kept")

    assert names(snapshotter) == ["kept"]
    for call in (snapshotter.stat, snapshotter.mounts, snapshotter.usage):
        with pytest.raises(NotFound, match="snapshot lost is recorded"):
            call("lost")
    snapshotter.remove("lost")


def test_filters_see_kinds_and_parents(snapshotter: Snapshotter) -> None:
    commit(snapshotter, "layer", color="red")
    snapshotter.prepare("child", "layer")

    def found(*filters: str) -> list[str]:
        return sorted(info.name for info in snapshotter.walk(filters))

    assert found("kind==committed") == ["layer"]
    assert found("parent==layer", "labels.color==red") == ["child", "layer"]
    with pytest.raises(InvalidArgument):
        snapshotter.walk(["kind=="])


def listed(snapshotter: Snapshotter, *filters: str) -> list[Message]:
    """Return what the bytes of a list say."""
    assert isinstance(snapshotter, Snapshots)
    return [*snapshots_pb2.ListSnapshotsResponse.FromString(b"".join(snapshotter.walk_encoded(filters))).info]


@pytest.mark.parametrize("more", [0, MANY])
def test_bytes_say_what_a_walk_does_also_after_changes(snapshotter: Snapshotter, world: World, more: int) -> None:
    def check(*filters: str) -> list[Message]:
        found = listed(snapshotter, *filters)
        assert found == [to_snapshot(info) for info in snapshotter.walk(filters)]
        return found

    for number in range(more):
        snapshotter.prepare(f"more-{number}")
    commit(snapshotter, "layer", color="red")
    snapshotter.prepare("child", "layer", {"containerd.io/snapshot/a": "1", "mine": "1"})
    before = check()
    assert check() == before
    assert len(check("parent==layer")) == 1
    snapshotter.update(Info(Kind.ACTIVE, "child", labels={"mine": "2"}), ["labels.mine"])
    assert check() != before
    before = check()
    backend = next(name for name in world.snapshotter.snapshots if name.endswith("/child"))
    known = world.snapshotter.snapshots[backend]
    world.snapshotter.snapshots[backend] = replace(known, labels={**known.labels, "its-own": "x"})
    assert check() != before
    snapshotter.commit("other", "child")
    assert check("kind==committed") == [each for each in check() if each not in check("kind==active")]
    snapshotter.remove("other")
    assert len(check()) == more + 1
    world.snapshotter.snapshots.clear()
    assert check() == []


def test_info_is_that_of_the_contract(snapshotter: Snapshotter) -> None:
    snapshotter.prepare("s")
    info = snapshotter.stat("s")
    assert info == Info(Kind.ACTIVE, "s", "", {}, info.created_at, info.created_at)
