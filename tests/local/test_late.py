"""What a store opens for a transfer that has gone meanwhile is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import cast

import pytest
from local.conftest import Daemon

from windlass.contracts.content import ContentStore, Status
from windlass.contracts.mounts import Mount
from windlass.errors import NoSpace
from windlass.gate import Gate, Handle
from windlass.plugin import contract
from windlass_local.content import LocalContent

DIGEST = "sha256:" + 64 * "0"


@contract
class Opened:
    """A reader and a writer, of which a test wants to know only whether it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class SlowStore:
    """Opens nothing before it is let go on."""

    def __init__(self) -> None:
        self.opened = Opened()
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def reader(self, *_: object) -> Opened:
        self.begun.set()
        self.go_on.wait(10)
        return self.opened

    writer = reader


@pytest.fixture
def store() -> Iterator[SlowStore]:
    store = SlowStore()
    yield store
    store.go_on.set()


async def read(content: LocalContent) -> None:
    async for _ in content.chunks(DIGEST):
        pass


async def write(content: LocalContent) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    await content.write("layer", chunks(), 1)


@pytest.mark.parametrize("work", [read, write])
async def test_what_is_opened_too_late_is_closed(
    work: Callable[[LocalContent], Coroutine[None, None, None]], store: SlowStore
) -> None:
    """By the store's own method, through the handle; else its file would be open until the daemon ends."""
    gate = Gate("type.content.1")
    content = LocalContent(cast(ContentStore, Handle(store, gate)), 1.0)
    working = asyncio.create_task(work(content))
    await asyncio.to_thread(store.begun.wait, 10)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    store.go_on.set()
    assert await asyncio.to_thread(store.opened.closed.wait, 10)
    gate.close()


@contract
class Unwilling(Opened):
    """A writer of an ingest that has bytes already, and cannot be emptied."""

    def status(self) -> Status:
        return Status("layer", offset=5, total=1, expected="", started_at=0, updated_at=0)

    def truncate(self, size: int) -> None:
        raise NoSpace("no space left")


class FullStore:
    """Continues an old ingest on a full disk."""

    def __init__(self) -> None:
        self.opened = Unwilling()
        self.aborted: list[str] = []

    def writer(self, *_: object) -> Unwilling:
        return self.opened

    def abort(self, ref: str) -> None:
        self.aborted.append(ref)


async def test_an_old_ingest_that_cannot_be_emptied_is_given_up() -> None:
    """Else it would be open, and so locked for every other client, until the daemon ends."""
    store, gate = FullStore(), Gate("type.content.1")
    with pytest.raises(NoSpace):
        await write(LocalContent(cast(ContentStore, Handle(store, gate)), 1.0))
    assert store.opened.closed.is_set()
    assert store.aborted == ["layer"]
    gate.close()


async def test_mounts_that_are_made_for_a_cancelled_caller_are_undone(daemon: Daemon) -> None:
    """Nothing else ends them before the lease does, and that may be another client's."""
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(10)

    daemon.mounts.before = wait
    namespace = daemon.inside("tests")

    async def use() -> None:
        async with namespace.mountable((Mount("format/overlay", "overlay"),)):
            pass

    using = asyncio.create_task(use())
    await asyncio.to_thread(begun.wait, 10)
    using.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert not daemon.mounts.active
