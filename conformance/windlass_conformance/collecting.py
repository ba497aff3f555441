"""The promises of garbage collection; part of `windlass_conformance.metadata.MetadataSuite`.

Source: docs/containerd 3.14, 8.3.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

from windlass.contracts.containers import Container
from windlass.contracts.content import Info
from windlass.contracts.leases import Resource
from windlass.contracts.metadata import Metadata
from windlass.contracts.snapshots import Info as Snapshot
from windlass.contracts.snapshots import Snapshotter
from windlass.contracts.values import Payload
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from windlass_conformance.kept_things import (
    EXPIRE,
    REF,
    ROOT,
    chain,
    digest_of,
    has_blob,
    has_snapshot,
    image,
    moment,
    put,
)

ROUNDS = 20


class CollectionCases:
    """Which objects a collection keeps, and which it removes."""

    # Blobs

    def test_nothing_holds_what_nobody_names(self, metadata: Metadata, namespace: str) -> None:
        """A blob without lease, image or label goes at the next collection."""
        digest = put(metadata.content(namespace), "garbage")
        metadata.collect()
        assert not has_blob(metadata.content(namespace), digest)

    def test_a_root_label_holds(self, metadata: Metadata, namespace: str) -> None:
        """A blob or a snapshot with the label gc.root stays, whatever the label's value."""
        digest = put(metadata.content(namespace), "root", {ROOT: "any"})
        metadata.collect()
        assert has_blob(metadata.content(namespace), digest)

    def test_a_lease_holds_until_it_is_deleted(self, metadata: Metadata, namespace: str) -> None:
        """What was written under a lease stays with it and goes with it."""
        metadata.leases(namespace).create("one")
        digest = put(metadata.content(namespace, "one"), "leased")
        metadata.collect()
        assert has_blob(metadata.content(namespace), digest)
        metadata.leases(namespace).delete("one")
        metadata.collect()
        assert not has_blob(metadata.content(namespace), digest)

    def test_an_image_holds_its_target_and_all_below(self, metadata: Metadata, namespace: str) -> None:
        """Blobs are held through labels gc.ref.content of those above, with or without a suffix."""
        store = metadata.content(namespace)
        metadata.leases(namespace).create("while making")
        making = metadata.content(namespace, "while making")
        layer, other = put(making, "layer"), put(making, "other")
        config = put(making, "config", {f"{REF}.content.l.0": layer})
        put(making, "index", {f"{REF}.content": config, f"{REF}.content/x": other})
        metadata.images(namespace).create(image("held", "index"))
        metadata.leases(namespace).delete("while making")
        metadata.collect()
        assert all(has_blob(store, digest) for digest in (layer, other, config, digest_of(b"index")))

        metadata.images(namespace).delete("held")
        metadata.collect()
        assert not any(has_blob(store, digest) for digest in (layer, other, config, digest_of(b"index")))

    def test_a_label_that_only_looks_like_a_reference_holds_nothing(self, metadata: Metadata, namespace: str) -> None:
        """gc.ref.contentx is not a reference."""
        digest = put(metadata.content(namespace), "named")
        put(metadata.content(namespace), "names", {ROOT: "now", f"{REF}.contentx": digest})
        metadata.collect()
        assert not has_blob(metadata.content(namespace), digest)

    def test_loops_are_no_trouble(self, metadata: Metadata, namespace: str) -> None:
        """Blobs that name each other go together, and stay together when one is held."""
        store = metadata.content(namespace)
        one, two = digest_of(b"one"), digest_of(b"two")
        put(store, "one", {f"{REF}.content.0": two, ROOT: "now"})
        put(store, "two", {f"{REF}.content.0": one})
        metadata.collect()
        assert has_blob(store, one) and has_blob(store, two)
        store.update(_without_root(metadata, namespace, one), ["labels"])
        metadata.collect()
        assert not has_blob(store, one) and not has_blob(store, two)

    def test_an_expired_image_holds_nothing(self, metadata: Metadata, namespace: str) -> None:
        """An image is a root until the time in gc.expire, and not afterwards."""
        metadata.leases(namespace).create("while making")
        for name, when in (("old", -60), ("young", 3600)):
            put(metadata.content(namespace, "while making"), name)
            metadata.images(namespace).create(image(name, name, {EXPIRE: moment(when)}))
        metadata.leases(namespace).delete("while making")
        metadata.collect()
        store = metadata.content(namespace)
        assert has_blob(store, digest_of(b"young")) and not has_blob(store, digest_of(b"old"))

    def test_a_flat_lease_holds_what_it_lists(self, metadata: Metadata, namespace: str) -> None:
        """A lease with gc.flat holds its resources, and not what those refer to."""
        store = metadata.content(namespace)
        metadata.leases(namespace).create("flat", {"containerd.io/gc.flat": "now"})
        below = put(store, "below", {ROOT: "for now"})
        above = put(store, "above", {f"{REF}.content.0": below, ROOT: "for now"})
        metadata.leases(namespace).add_resource("flat", Resource(above, "content"))
        for digest in (below, above):
            store.update(_without_root(metadata, namespace, digest), ["labels"])
        metadata.collect()
        assert has_blob(store, above) and not has_blob(store, below)

    def test_namespaces_are_collected_apart(self, metadata: Metadata, namespace: str, other: str) -> None:
        """A blob that one namespace gives up stays in another."""
        put(metadata.content(namespace), "both", {ROOT: "now"})
        digest = put_again(metadata, other, "both", {})
        metadata.collect()
        assert has_blob(metadata.content(namespace), digest)
        assert not has_blob(metadata.content(other), digest)

    # Snapshots

    def test_snapshots_that_nobody_names_go(self, metadata: Metadata, namespace: str, snapshotter: str) -> None:
        """Unreferenced snapshots go, active and committed ones, children before their parents."""
        view = metadata.snapshotter(snapshotter, namespace)
        chain(view, "one", "two")
        view.prepare("active", "two")
        metadata.collect()
        assert not any(has_snapshot(view, name) for name in ("active", "two", "one"))

    def test_a_snapshot_holds_its_parents(self, metadata: Metadata, namespace: str, snapshotter: str) -> None:
        """All parents of a held snapshot stay."""
        view = metadata.snapshotter(snapshotter, namespace)
        chain(view, "one", "two", "three", labels={ROOT: "now"})
        metadata.collect()
        assert all(has_snapshot(view, name) for name in ("one", "two", "three"))

    def test_a_container_holds_its_snapshot(self, metadata: Metadata, namespace: str, snapshotter: str) -> None:
        """A container's snapshot stays with all below it, and goes after the container."""
        view = metadata.snapshotter(snapshotter, namespace)
        metadata.leases(namespace).create("while making")
        making = metadata.snapshotter(snapshotter, namespace, "while making")
        chain(making, "base")
        making.prepare("rootfs", "base")
        spec = Payload("types.containerd.io/opencontainers/runtime-spec/1/Spec", b"{}")
        record = Container("c1", "io.containerd.runc.v2", spec=spec, snapshotter=snapshotter, snapshot_key="rootfs")
        metadata.containers(namespace).create(record)
        metadata.leases(namespace).delete("while making")
        metadata.collect()
        assert has_snapshot(view, "rootfs") and has_snapshot(view, "base")
        metadata.containers(namespace).delete("c1")
        metadata.collect()
        assert not has_snapshot(view, "rootfs") and not has_snapshot(view, "base")

    def test_a_blob_holds_the_snapshot_that_it_names(
        self, metadata: Metadata, namespace: str, snapshotter: str
    ) -> None:
        """The label gc.ref.snapshot.<snapshotter> of a config keeps the snapshot of the unpacked image."""
        view = metadata.snapshotter(snapshotter, namespace)
        chain(view, "unpacked", labels={ROOT: "for now"})
        digest = put(metadata.content(namespace), "config", {ROOT: "now", f"{REF}.snapshot.{snapshotter}": "unpacked"})
        view.update(_bare(view, "unpacked"), ["labels"])
        metadata.collect()
        assert has_snapshot(view, "unpacked") and has_blob(metadata.content(namespace), digest)

    def test_a_snapshot_holds_the_blob_that_it_names(
        self, metadata: Metadata, namespace: str, snapshotter: str
    ) -> None:
        """Labels of snapshots are references too."""
        digest = put(metadata.content(namespace), "named", {ROOT: "for now"})
        view = metadata.snapshotter(snapshotter, namespace)
        chain(view, "names", labels={ROOT: "now", f"{REF}.content.0": digest})
        metadata.content(namespace).update(_without_root(metadata, namespace, digest), ["labels"])
        metadata.collect()
        assert has_blob(metadata.content(namespace), digest)

    def test_a_back_reference_holds(self, metadata: Metadata, namespace: str) -> None:
        """A blob with gc.bref.image stays as long as that image, and goes after it."""
        metadata.leases(namespace).create("while making")
        making = metadata.content(namespace, "while making")
        put(making, "target")
        digest = put(making, "said about it", {"containerd.io/gc.bref.image": "held"})
        metadata.images(namespace).create(image("held", "target"))
        metadata.leases(namespace).delete("while making")
        metadata.collect()
        assert has_blob(metadata.content(namespace), digest)
        metadata.images(namespace).delete("held")
        metadata.collect()
        assert not has_blob(metadata.content(namespace), digest)

    # During a collection

    def test_preparing_without_a_lease_races_a_collection_cleanly(
        self, metadata: Metadata, namespace: str, snapshotter: str
    ) -> None:
        """A client without a lease may lose what it made; it gets an error, and nothing is left half made."""
        view = metadata.snapshotter(snapshotter, namespace)
        ended = threading.Event()

        def collect() -> None:
            while not ended.is_set():
                metadata.collect()

        thread = threading.Thread(target=collect)
        thread.start()
        try:
            for number in range(ROUNDS):
                try:
                    view.prepare(f"key {number}")
                    view.commit(f"name {number}", f"key {number}")
                    view.prepare(f"child {number}", f"name {number}")
                except (NotFound, AlreadyExists, FailedPrecondition, InvalidArgument):
                    continue  # it was collected
        finally:
            ended.set()
            thread.join()
        metadata.collect()
        assert list(view.walk()) == []
        view.prepare("afterwards", "", {ROOT: "now"})
        assert has_snapshot(view, "afterwards")

    def test_what_is_leased_survives_collections_beside_it(
        self, metadata: Metadata, namespace: str, snapshotter: str
    ) -> None:
        """Collections by others do not affect a client that works under a lease."""
        metadata.leases(namespace).create("one")
        view = metadata.snapshotter(snapshotter, namespace, "one")
        store = metadata.content(namespace, "one")
        ended = threading.Event()

        def collect() -> None:
            while not ended.is_set():
                metadata.collect()

        thread = threading.Thread(target=collect)
        thread.start()
        try:
            parent = ""
            for number in range(ROUNDS):
                put(store, f"blob {number}")
                view.prepare(f"key {number}", parent)
                view.commit(f"name {number}", f"key {number}")
                parent = f"name {number}"
        finally:
            ended.set()
            thread.join()
        metadata.collect()
        assert all(has_blob(store, digest_of(f"blob {number}".encode())) for number in range(ROUNDS))
        assert all(has_snapshot(view, f"name {number}") for number in range(ROUNDS))


def put_again(metadata: Metadata, namespace: str, text: str, labels: Mapping[str, str]) -> str:
    """Write a blob in a namespace that may share it with another."""
    try:
        return put(metadata.content(namespace), text, labels)
    except AlreadyExists:
        return digest_of(text.encode())


def _without_root(metadata: Metadata, namespace: str, digest: str) -> Info:
    info = metadata.content(namespace).info(digest)
    return replace(info, labels={key: value for key, value in info.labels.items() if key != ROOT})


def _bare(view: Snapshotter, key: str) -> Snapshot:
    return replace(view.stat(key), labels={})
