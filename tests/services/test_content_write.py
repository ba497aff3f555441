"""What one message of a Write says holds for the ones that come after it, as in containerd."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from metadata.conftest import Events
from metadata.memory_content import MemoryContent

from windlass.contracts.rpc import Call
from windlass.errors import FailedPrecondition
from windlass_api.containerd.services.content.v1 import content_pb2 as pb
from windlass_metadata.database import Database
from windlass_metadata.store import MetadataStore
from windlass_services.content import Content

DATA = b"data"
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Write with the given messages and return the answers."""
    database = Database(tmp_path / "meta.db")
    service = Content(MetadataStore(database, MemoryContent(), {}, Events()))

    async def write(*messages: pb.WriteContentRequest) -> list[pb.WriteContentResponse]:
        async def requests() -> AsyncIterator[pb.WriteContentRequest]:
            for message in messages:
                yield message

        return [answer async for answer in service.write(requests(), Call((("containerd-namespace", "test"),)))]

    yield write
    database.close()


async def test_a_commit_is_held_to_what_was_expected_at_the_beginning(write: Any) -> None:
    """A client need not say twice what it is going to send."""
    begin = pb.WriteContentRequest(action=pb.WRITE, ref="r", data=b"else", expected=DIGEST)
    with pytest.raises(FailedPrecondition, match="has digest"):
        await write(begin, pb.WriteContentRequest(action=pb.COMMIT, offset=4))


async def test_a_commit_is_held_to_the_size_of_the_beginning(write: Any) -> None:
    """Half of a blob is none."""
    begin = pb.WriteContentRequest(action=pb.WRITE, ref="r", data=DATA, total=8)
    with pytest.raises(FailedPrecondition, match="has 4 bytes"):
        await write(begin, pb.WriteContentRequest(action=pb.COMMIT, offset=4))


@pytest.mark.parametrize("refused", [{"total": 8}, {"total": 2}, {"expected": "sha256:" + "0" * 64}])
async def test_a_refused_commit_drops_its_ingest(write: Any, refused: dict[str, Any]) -> None:
    """Different from containerd on purpose: who tries again begins without the wrong bytes."""
    begin = pb.WriteContentRequest(action=pb.WRITE, ref="r", data=DATA)
    with pytest.raises(FailedPrecondition):
        await write(begin, pb.WriteContentRequest(action=pb.COMMIT, offset=4, **refused))

    (status,) = await write(pb.WriteContentRequest(action=pb.STAT, ref="r"))

    assert status.offset == 0


async def test_the_last_word_counts(write: Any) -> None:
    """As the commit's own is the best informed."""
    begin = pb.WriteContentRequest(action=pb.WRITE, ref="r", data=DATA, total=8, expected="sha256:" + "0" * 64)
    *_, committed = await write(begin, pb.WriteContentRequest(action=pb.COMMIT, offset=4, total=4, expected=DIGEST))
    assert committed.digest == DIGEST


async def test_a_total_that_comes_later_continues_the_ingest(write: Any) -> None:
    """The answers tell it; one below zero is none."""
    await write(pb.WriteContentRequest(action=pb.WRITE, ref="r", data=DATA[:2]))
    (late,) = await write(pb.WriteContentRequest(action=pb.STAT, ref="r", total=4))
    (none,) = await write(pb.WriteContentRequest(action=pb.STAT, ref="r", total=-1))
    assert (late.offset, late.total, none.offset) == (2, 4, 2)
    *_, committed = await write(
        pb.WriteContentRequest(action=pb.COMMIT, ref="r", offset=2, total=4, data=DATA[2:], expected=DIGEST)
    )
    assert (committed.offset, committed.digest) == (4, DIGEST)


async def test_offset_zero_begins_again_also_without_data(write: Any) -> None:
    """containerd's client truncates so, and commits an empty blob by it."""
    await write(pb.WriteContentRequest(action=pb.WRITE, ref="r", data=DATA))
    again, committed = await write(
        pb.WriteContentRequest(action=pb.WRITE, ref="r"), pb.WriteContentRequest(action=pb.COMMIT)
    )
    empty = "sha256:" + hashlib.sha256().hexdigest()
    assert (again.offset, again.digest, committed.digest) == (0, empty, empty)


async def test_a_commit_tells_the_digest_that_the_blob_is_called_by(write: Any) -> None:
    """Also one of another algorithm than that of the answers before."""
    other = "sha512:" + hashlib.sha512(DATA).hexdigest()
    *_, committed = await write(
        pb.WriteContentRequest(action=pb.WRITE, ref="r", data=DATA),
        pb.WriteContentRequest(action=pb.COMMIT, offset=4, expected=other),
    )
    assert committed.digest == other
