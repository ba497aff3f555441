"""Small blobs that were read stay in memory, and stay as private as they were."""

from __future__ import annotations

from contextlib import closing

import pytest
from metadata.conftest import World, digest_of, put
from metadata.memory_content import MemoryContent

from windlass.contracts.values import Descriptor
from windlass.errors import NotFound
from windlass_metadata.small_blobs import LARGEST, OVERHEAD, SmallBlobs
from windlass_metadata.store import MetadataStore

DATA = b'{"schemaVersion": 2}'


def test_a_small_blob_is_in_memory_once_it_was_read(metadata: MetadataStore, world: World) -> None:
    view = metadata.content("one")
    digest = put(view, DATA)
    assert view.remembered(digest) is None

    view.reader(Descriptor("", digest, 0)).close()
    assert view.remembered(digest) == (len(DATA), DATA) == metadata.content("one").remembered(digest)
    assert view.remembered(digest, 1, 2) == (len(DATA), DATA[1:3])

    view.delete(digest)
    with pytest.raises(NotFound):
        view.remembered(digest)


def test_a_namespace_without_the_blob_does_not_get_it(metadata: MetadataStore) -> None:
    digest = put(metadata.content("one"), DATA)
    metadata.content("one").reader(Descriptor("", digest, 0)).close()
    with pytest.raises(NotFound):
        metadata.content("two").remembered(digest)


def test_a_large_blob_is_not_kept(metadata: MetadataStore) -> None:
    view = metadata.content("one")
    digest = put(view, bytes(LARGEST + 1))
    view.reader(Descriptor("", digest, 0)).close()
    assert view.remembered(digest) is None


def test_what_was_not_read_for_longest_makes_room(metadata: MetadataStore) -> None:
    view = metadata.content("one")
    kept = SmallBlobs(capacity=2 * (40 + OVERHEAD))
    blobs = [bytes([number]) * 40 for number in range(3)]
    for data in blobs[:2]:
        with closing(view.reader(Descriptor("", put(view, data), 0))) as reader:
            kept.read(digest_of(data), reader)
    assert kept.get(digest_of(blobs[0])) == blobs[0]
    with closing(view.reader(Descriptor("", put(view, blobs[2]), 0))) as reader:
        kept.read(digest_of(blobs[2]), reader)
        kept.read(digest_of(blobs[2]), reader)
    assert [kept.get(digest_of(data)) for data in blobs] == [blobs[0], None, blobs[2]]


def test_tiny_blobs_are_counted_with_what_each_takes() -> None:
    """Or a million of three bytes would be kept as if they were nothing."""
    kept = SmallBlobs(capacity=100_000)
    store = MemoryContent()
    digests = [put(store, b"%d" % number) for number in range(1000)]
    for digest in digests:
        with closing(store.reader(Descriptor("", digest, 0))) as reader:
            kept.read(digest, reader)
    assert sum(kept.get(digest) is not None for digest in digests) < 400
