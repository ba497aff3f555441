"""The promises of leases; part of `windlass_conformance.metadata.MetadataSuite` (docs/containerd 3.8, 8.3)."""

from __future__ import annotations

import pytest

from windlass.contracts.leases import Resource
from windlass.contracts.metadata import Metadata
from windlass.errors import AlreadyExists, InvalidArgument, NotFound, Unimplemented
from windlass_conformance.kept_things import chain, digest_of, leased, moment, put


class LeaseCases:
    """Leases, and the objects that they hold."""

    def test_a_lease_is_made_once(self, metadata: Metadata, namespace: str) -> None:
        """A second lease of the same ID is AlreadyExists."""
        leases = metadata.leases(namespace)
        leases.create("one")
        with pytest.raises(AlreadyExists):
            leases.create("one")

    def test_a_lease_without_id_gets_one(self, metadata: Metadata, namespace: str) -> None:
        """Leases without ID get different ones."""
        leases = metadata.leases(namespace)
        made = {leases.create().id for _ in range(3)}
        assert len(made) == 3 and "" not in made

    def test_a_deleted_lease_is_gone(self, metadata: Metadata, namespace: str) -> None:
        """Deleting a lease that is not there, or not any more, is NotFound."""
        leases = metadata.leases(namespace)
        leases.create("one")
        leases.delete("one")
        assert leases.list() == []
        for name in ("one", "never"):
            with pytest.raises(NotFound):
                leases.delete(name)

    def test_leases_are_listed_as_they_were_made(self, metadata: Metadata, namespace: str) -> None:
        """List keeps labels and times, and filters by ID and label; a label with an empty value is absent."""
        leases = metadata.leases(namespace)
        one = leases.create("one", {"kind": "a", "empty": ""})
        two = leases.create("two", {"kind": "b"})
        assert {each.id: each.created_at for each in leases.list()} == {"one": one.created_at, "two": two.created_at}
        assert one.created_at > 0
        found = {
            text: [each.id for each in leases.list([text])]
            for text in ("id==two", "labels.kind", "labels.kind==a", "labels.empty")
        }
        assert found == {
            "id==two": ["two"],
            "labels.kind": ["one", "two"],
            "labels.kind==a": ["one"],
            "labels.empty": [],
        }
        assert [each.id for each in leases.list(["id==one", "id==two"])] == ["one", "two"]

    def test_resources_are_held_once(self, metadata: Metadata, namespace: str, snapshotter: str) -> None:
        """A resource is held once however often it is added, exists or not, and let go by its own name."""
        leases = metadata.leases(namespace)
        leases.create("one")
        kinds = ("content", "ingests", "images", f"snapshots/{snapshotter}")
        for kind in kinds:
            for _ in range(2):
                leases.add_resource("one", Resource(digest_of(b"none"), kind))
        assert leased(metadata, namespace, "one") == {(kind, digest_of(b"none")) for kind in kinds}
        leases.delete_resource("one", Resource(digest_of(b"none"), "images"))
        assert ("images", digest_of(b"none")) not in leased(metadata, namespace, "one")

    @pytest.mark.parametrize("kind", ["snapshots", "snapshots/a/b"])
    def test_a_malformed_type_is_refused(self, metadata: Metadata, namespace: str, kind: str) -> None:
        """Snapshots are held by the name of their snapshotter; anything else is InvalidArgument."""
        metadata.leases(namespace).create("one")
        with pytest.raises(InvalidArgument):
            metadata.leases(namespace).add_resource("one", Resource("x", kind))

    @pytest.mark.parametrize("kind", ["containers", "leases", "anything"])
    def test_a_type_that_leases_do_not_know_is_refused(self, metadata: Metadata, namespace: str, kind: str) -> None:
        """A resource of an unknown type is Unimplemented."""
        metadata.leases(namespace).create("one")
        with pytest.raises(Unimplemented):
            metadata.leases(namespace).add_resource("one", Resource("x", kind))

    def test_an_unknown_lease_holds_nothing(self, metadata: Metadata, namespace: str) -> None:
        """Every call about a lease that is not there is NotFound, also writing under it."""
        leases = metadata.leases(namespace)
        resource = Resource(digest_of(b"x"), "content")
        with pytest.raises(NotFound):
            leases.add_resource("none", resource)
        with pytest.raises(NotFound):
            leases.delete_resource("none", resource)
        with pytest.raises(NotFound):
            leases.resources("none")
        with pytest.raises(NotFound):
            put(metadata.content(namespace, "none"), "x")

    def test_leases_are_of_their_namespace(self, metadata: Metadata, namespace: str, other: str) -> None:
        """The same ID in another namespace is another lease."""
        metadata.leases(namespace).create("one")
        with pytest.raises(NotFound):
            metadata.leases(other).delete("one")
        assert metadata.leases(other).list() == []

    def test_what_is_written_is_held(self, metadata: Metadata, namespace: str) -> None:
        """An open ingest is held by the lease that it was opened under; committed, the blob is, and the ingest not."""
        metadata.leases(namespace).create("one")
        store = metadata.content(namespace, "one")
        writer = store.writer("open", 4, digest_of(b"open"))
        assert ("ingests", "open") in leased(metadata, namespace, "one")
        writer.write(b"open")
        writer.commit(4, digest_of(b"open"))
        assert leased(metadata, namespace, "one") == {("content", digest_of(b"open"))}

    def test_an_ingest_that_is_given_up_is_let_go(self, metadata: Metadata, namespace: str) -> None:
        """Abort removes an ingest from its lease."""
        metadata.leases(namespace).create("one")
        store = metadata.content(namespace, "one")
        store.writer("given up", 4).close()
        store.abort("given up")
        assert leased(metadata, namespace, "one") == set()

    def test_a_blob_that_is_there_is_held_too(self, metadata: Metadata, namespace: str) -> None:
        """A writer for a blob that is there is AlreadyExists, and the lease holds the blob, and no ingest."""
        metadata.leases(namespace).create("first")
        metadata.leases(namespace).create("second")
        digest = put(metadata.content(namespace, "first"), "there")
        with pytest.raises(AlreadyExists):
            metadata.content(namespace, "second").writer("again", 5, digest)
        assert leased(metadata, namespace, "second") == {("content", digest)}

    def test_snapshots_are_held_by_key_and_then_by_name(
        self, metadata: Metadata, namespace: str, snapshotter: str
    ) -> None:
        """A lease holds an active snapshot by its key, and after the commit by its name."""
        metadata.leases(namespace).create("one")
        view = metadata.snapshotter(snapshotter, namespace, "one")
        view.prepare("active")
        assert (f"snapshots/{snapshotter}", "active") in leased(metadata, namespace, "one")
        view.commit("committed", "active")
        assert leased(metadata, namespace, "one") == {(f"snapshots/{snapshotter}", "committed")}

    def test_an_expired_lease_is_listed_until_it_is_collected(
        self, metadata: Metadata, namespace: str, snapshotter: str
    ) -> None:
        """An expired lease holds nothing: the next collection removes it and what it held."""
        metadata.leases(namespace).create("old", {"containerd.io/gc.expire": moment(-60)})
        metadata.leases(namespace).create("young", {"containerd.io/gc.expire": moment(3600)})
        old = put(metadata.content(namespace, "old"), "old")
        young = put(metadata.content(namespace, "young"), "young")
        chain(metadata.snapshotter(snapshotter, namespace), "base", labels={})
        metadata.collect()
        found = {info.digest for info in metadata.content(namespace).walk()}
        assert young in found and old not in found
        assert [each.id for each in metadata.leases(namespace).list()] == ["young"]
