"""Large blobs stay open for whoever reads them part by part, and for nobody else."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from metadata.conftest import KEPT, World, put

from windlass.contracts.content import CHUNK
from windlass.contracts.values import Descriptor
from windlass.errors import NotFound
from windlass_content.store import LocalStore
from windlass_metadata.open_blobs import CAPACITY, OpenBlobs
from windlass_metadata.store import MetadataStore

DATA = os.urandom(300_000)


@pytest.fixture
def metadata(make_world: Callable[..., World], tmp_path: Path) -> MetadataStore:
    return make_world(content=LocalStore(tmp_path / "content")).open()


def held(root: Path) -> list[str]:
    """Return the blobs below ``root`` that this process has open."""
    found = []
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{each}"))
    return [link for link in found if link.startswith(f"{root}/") and "/blobs/" in link]


def test_the_next_part_is_at_hand(metadata: MetadataStore) -> None:
    """Once the blob was opened; never more than a chunk, and only for a namespace that has it."""
    view = metadata.content("one")
    digest = put(view, DATA, KEPT)
    assert view.remembered(digest, 0, 1000) is None
    view.reader(Descriptor("", digest, 0)).close()
    assert view.remembered(digest, 1000, 5000) == (len(DATA), DATA[1000:6000])
    assert view.remembered(digest, len(DATA) - 5, 100) == (len(DATA), DATA[-5:])
    assert view.remembered(digest, len(DATA) + 5, 100) == (len(DATA), b"")
    with pytest.raises(NotFound):
        metadata.content("two").remembered(digest, 0, 1000)
    view.delete(digest)
    with pytest.raises(NotFound):
        view.remembered(digest, 0, 1000)


def test_much_at_once_is_not_read_on_the_loop(metadata: MetadataStore) -> None:
    view = metadata.content("one")
    digest = put(view, bytes(2 * CHUNK), KEPT)
    view.reader(Descriptor("", digest, 0)).close()
    assert view.remembered(digest) is None


def test_a_blob_that_is_removed_is_closed(metadata: MetadataStore, tmp_path: Path) -> None:
    """Or its space would stay in use."""
    view = metadata.content("one")
    digest = put(view, DATA)
    view.reader(Descriptor("", digest, 0)).close()
    assert len(held(tmp_path)) == 1
    view.delete(digest)
    metadata.collect()
    assert held(tmp_path) == []


def test_few_are_open_and_none_after_the_end(tmp_path: Path) -> None:
    store, blobs = LocalStore(tmp_path), OpenBlobs()
    for number in range(CAPACITY + 5):
        with closing(store.writer("ref")) as writer:
            writer.write(b"%d" % number)
            digest = writer.digest()
            writer.commit()
        blobs.keep(digest, lambda: store.reader(Descriptor("", digest, 0)))  # noqa: B023 - called at once
    assert len(held(tmp_path)) == CAPACITY
    blobs.close()
    assert held(tmp_path) == []
