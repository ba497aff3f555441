"""What one message of a Write says holds for the ones that come after it, as in containerd."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from metadata.conftest import Events
from metadata.memory_content import MemoryContent

from windlass.errors import FailedPrecondition
from windlass.rpc import Call
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

        return [answer async for answer in service.write(requests(), Call(None, {"containerd-namespace": "test"}))]

    yield write
    database.close()


async def test_a_commit_is_held_to_what_was_expected_at_the_beginning(write: Any) -> None:
    """A client need not say twice what it is going to send."""
    begin = pb.WriteContentRequest(action=pb.WRITE, ref="r", data=b"other", expected=DIGEST)
    with pytest.raises(FailedPrecondition, match="has digest"):
        await write(begin, pb.WriteContentRequest(action=pb.COMMIT))


async def test_a_commit_is_held_to_the_size_of_the_beginning(write: Any) -> None:
    """Half of a blob is none."""
    begin = pb.WriteContentRequest(action=pb.WRITE, ref="r", data=DATA, total=8)
    with pytest.raises(FailedPrecondition, match="has 4 bytes"):
        await write(begin, pb.WriteContentRequest(action=pb.COMMIT))


async def test_the_last_word_counts(write: Any) -> None:
    """As the commit's own is the best informed."""
    begin = pb.WriteContentRequest(action=pb.WRITE, ref="r", data=DATA, total=8, expected="sha256:" + "0" * 64)
    *_, committed = await write(begin, pb.WriteContentRequest(action=pb.COMMIT, total=4, expected=DIGEST))
    assert committed.digest == DIGEST
