"""Namespaces share blobs or do not, and leases hold what is written (docs/containerd 3.5, 8.1, 8.3)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from metadata.conftest import World, digest_of, put

from windlass.contracts.content import ContentStore
from windlass.contracts.leases import Resource
from windlass.contracts.namespaces import Namespace
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, NotFound, Unavailable
from windlass_api.containerd.events.content_pb2 import ContentCreate, ContentDelete
from windlass_metadata.store import MetadataStore

DATA = b"the bytes of one blob" * 1000
DIGEST = digest_of(DATA)


def read(store: ContentStore, digest: str) -> bytes:
    with closing(store.reader(Descriptor("", digest, 0))) as reader:
        return reader.read_at(0, reader.size)


class TestSharing:
    @pytest.mark.parametrize("size", [0, len(DATA)])
    def test_blob_of_another_namespace_need_not_be_sent(self, metadata: MetadataStore, world: World, size: int) -> None:
        put(metadata.content("one"), DATA)
        before = time.time_ns()

        with closing(metadata.content("two").writer("ref", size, DIGEST)) as writer:
            status = writer.status()
            assert (status.offset, status.total, writer.digest()) == (len(DATA), len(DATA), DIGEST)
            assert metadata.content("two").status("ref") == status
            writer.commit(len(DATA), DIGEST, {"k": "v"})

        info = metadata.content("two").info(DIGEST)
        assert before <= info.created_at == info.updated_at <= time.time_ns()
        assert info.labels == {"k": "v"} and metadata.content("one").info(DIGEST).labels == {}
        assert read(metadata.content("two"), DIGEST) == DATA
        assert metadata.content("two").statuses() == [] == world.content.statuses()

    def test_another_size_is_another_blob(self, metadata: MetadataStore) -> None:
        put(metadata.content("one"), DATA)
        with closing(metadata.content("two").writer("ref", 5, DIGEST)) as writer:
            assert writer.status().offset == 0

    def test_append_makes_a_private_copy(self, metadata: MetadataStore) -> None:
        put(metadata.content("one"), DATA)

        with closing(metadata.content("two").writer("ref", len(DATA), DIGEST)) as writer:
            writer.write(b"more")
            assert writer.status().offset == len(DATA) + 4
            writer.commit(len(DATA) + 4, digest_of(DATA + b"more"))

        assert read(metadata.content("two"), digest_of(DATA + b"more")) == DATA + b"more"
        assert read(metadata.content("one"), DIGEST) == DATA
        with pytest.raises(NotFound):
            metadata.content("two").info(DIGEST)

    def test_truncate_makes_an_empty_ingest(self, metadata: MetadataStore) -> None:
        put(metadata.content("one"), DATA)
        with closing(metadata.content("two").writer("ref", 0, DIGEST)) as writer:
            writer.truncate(0)
            assert (writer.status().offset, writer.digest()) == (0, digest_of(b""))

    def test_commit_of_something_else_is_refused(self, metadata: MetadataStore) -> None:
        put(metadata.content("one"), DATA)
        with closing(metadata.content("two").writer("ref", 0, DIGEST)) as writer:
            for size, expected in ((5, ""), (0, digest_of(b"x"))):
                with pytest.raises(FailedPrecondition):
                    writer.commit(size, expected)
            writer.commit()

    def test_virtual_ref_has_one_writer_too(self, metadata: MetadataStore) -> None:
        put(metadata.content("one"), DATA)
        content = metadata.content("two")
        with closing(content.writer("ref", 0, DIGEST)):
            with pytest.raises(Unavailable, match="locked"):
                content.writer("ref", 0, DIGEST)
            with pytest.raises(Unavailable):
                content.abort("ref")
        content.abort("ref")
        with pytest.raises(NotFound):
            content.status("ref")

    def test_isolated_namespaces_send_their_own_bytes(self, make_world: Callable[..., World]) -> None:
        metadata = make_world(shared=False).open()
        put(metadata.content("one"), DATA)
        with closing(metadata.content("two").writer("ref", len(DATA), DIGEST)) as writer:
            assert (writer.status().offset, writer.digest()) == (0, digest_of(b""))
            writer.write(DATA)
            writer.commit(len(DATA), DIGEST)
        assert read(metadata.content("two"), DIGEST) == DATA

    def test_shareable_namespace_shares_in_spite_of_isolation(self, make_world: Callable[..., World]) -> None:
        metadata = make_world(shared=False).open()
        metadata.namespaces().create(Namespace("one", {"containerd.io/namespace.shareable": "true"}))
        put(metadata.content("one"), DATA)
        with closing(metadata.content("two").writer("ref", len(DATA), DIGEST)) as writer:
            assert writer.status().offset == len(DATA)

    def test_namespaces_see_their_own_blobs_and_ingests_only(self, metadata: MetadataStore) -> None:
        put(metadata.content("one"), DATA)
        metadata.content("one").writer("ref").close()
        two = metadata.content("two")

        assert list(two.walk()) == [] == two.statuses()
        for call in (two.info, two.delete, lambda digest: two.reader(Descriptor("", digest, 0))):
            with pytest.raises(NotFound):
                call(DIGEST)
        with pytest.raises(NotFound):
            two.abort("ref")
        two.writer("ref").close()

    def test_backend_refs_carry_namespace_and_number(self, metadata: MetadataStore, world: World) -> None:
        metadata.content("one").writer("layer/sha256:x").close()
        metadata.content("two").writer("layer/sha256:x").close()

        refs = sorted(status.ref for status in world.content.statuses())
        assert [ref.split("/", 2)[::2] for ref in refs] == [["one", "layer/sha256:x"], ["two", "layer/sha256:x"]]
        assert len({ref.split("/")[1] for ref in refs}) == 2


class TestLeases:
    @pytest.fixture
    def content(self, metadata: MetadataStore) -> ContentStore:
        metadata.leases("ns").create("l")
        return metadata.content("ns", "l")

    def held(self, metadata: MetadataStore) -> list[Resource]:
        return metadata.leases("ns").resources("l")

    def test_ingest_is_held_until_its_commit_and_then_the_blob_is(
        self, metadata: MetadataStore, content: ContentStore
    ) -> None:
        with closing(content.writer("ref")) as writer:
            writer.write(DATA)
            assert self.held(metadata) == [Resource("ref", "ingests")]
            writer.commit()
        assert self.held(metadata) == [Resource(DIGEST, "content")]

    def test_abort_lets_go(self, metadata: MetadataStore, content: ContentStore) -> None:
        content.writer("ref").close()
        content.abort("ref")
        assert self.held(metadata) == []

    def test_abort_is_no_reason_to_collect(self, metadata: MetadataStore, content: ContentStore) -> None:
        """Clients without a lease abort an ingest of what is there already, which a collection would take."""
        content.writer("ref").close()
        deletions: list[bool] = []
        metadata.on_mutation(deletions.append)
        content.abort("ref")
        assert deletions == [False]

    def test_existing_blob_is_held_when_a_writer_is_refused(
        self, metadata: MetadataStore, content: ContentStore
    ) -> None:
        put(metadata.content("ns"), DATA)
        with pytest.raises(AlreadyExists):
            content.writer("ref", len(DATA), DIGEST)
        assert self.held(metadata) == [Resource(DIGEST, "content")]

    def test_existing_blob_is_held_when_a_commit_is_refused(
        self, metadata: MetadataStore, content: ContentStore
    ) -> None:
        put(metadata.content("ns"), DATA)
        with closing(content.writer("ref")) as writer:
            writer.write(DATA)
            with pytest.raises(AlreadyExists):
                writer.commit()
        assert self.held(metadata) == [Resource(DIGEST, "content")]
        assert content.statuses() == []

    def test_delete_lets_go(self, metadata: MetadataStore, content: ContentStore) -> None:
        put(content, DATA)
        content.delete(DIGEST)
        assert self.held(metadata) == []


def test_events_tell_of_new_entries_only(metadata: MetadataStore, world: World) -> None:
    put(metadata.content("ns"), DATA)
    with pytest.raises(AlreadyExists):
        put(metadata.content("ns"), DATA)
    metadata.content("ns").delete(DIGEST)

    (_, created, first), (_, deleted, second) = world.events.published
    assert (created, deleted) == ("/content/create", "/content/delete")
    assert ContentCreate.FromString(first.value) == ContentCreate(digest=DIGEST, size=len(DATA))
    assert ContentDelete.FromString(second.value) == ContentDelete(digest=DIGEST)


def test_the_event_of_a_blob_has_the_media_type_that_its_writer_was_opened_with(
    metadata: MetadataStore, world: World
) -> None:
    """Also of one that another namespace has already. Clients of the Content service cannot say one."""
    for namespace in ("one", "two"):
        with closing(metadata.content(namespace).writer("ref", len(DATA), DIGEST, "text/plain")) as writer:
            if not writer.status().offset:
                writer.write(DATA)
            writer.commit()

    wanted = ContentCreate(digest=DIGEST, size=len(DATA), mediaType="text/plain")
    assert [ContentCreate.FromString(event.value) for _, _, event in world.events.published] == [wanted, wanted]


def test_failed_commit_leaves_the_ingest(metadata: MetadataStore, world: World) -> None:
    def fail(method: str, name: str) -> None:
        if method == "commit":
            raise DeadlineExceeded("too slow")

    content = metadata.content("ns")
    with closing(content.writer("ref")) as writer:
        writer.write(DATA)
        world.content.before = fail
        with pytest.raises(DeadlineExceeded):
            writer.commit()
        world.content.before = lambda method, name: None
        writer.commit()
    assert read(content, DIGEST) == DATA


def test_nothing_is_locked_while_the_store_commits(metadata: MetadataStore, world: World) -> None:
    """A commit that takes long keeps nobody else from writing and reading."""
    entered, leave = threading.Event(), threading.Event()

    def block(method: str, name: str) -> None:
        if method == "commit" and name.endswith("slow"):
            entered.set()
            assert leave.wait(10)

    world.content.before = block
    slow = threading.Thread(target=put, args=(metadata.content("ns"), DATA), kwargs={"ref": "slow"})
    slow.start()
    assert entered.wait(10)
    put(metadata.content("ns"), b"quick")
    metadata.leases("ns").create("l")
    metadata.collect()
    assert len(list(metadata.content("ns").walk())) == 0
    leave.set()
    slow.join(10)

    assert read(metadata.content("ns"), DIGEST) == DATA
