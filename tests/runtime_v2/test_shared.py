"""Many may wait for one thing, and give up: it goes on for the others."""

from __future__ import annotations

import asyncio
import time

import pytest

from windlass.errors import NotFound
from windlass_runtime_v2.shared import Shared


async def test_everyone_gets_what_comes() -> None:
    """Those that came before and those that come after; one that gave up ends nothing."""
    release = asyncio.Event()

    async def work() -> int:
        await release.wait()
        return 7

    shared = Shared(asyncio.create_task(work()))
    waiting = [asyncio.create_task(shared.result()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*waiting[1:], shared.result()) == [7, 7, 7]
    assert waiting[0].cancelled()


async def test_everyone_gets_the_error() -> None:
    """Also those that ask afterwards."""

    async def work() -> None:
        await asyncio.sleep(0)
        raise NotFound("gone")

    shared = Shared(asyncio.create_task(work()))
    for _ in range(2):
        with pytest.raises(NotFound, match="gone"):
            await shared.result()


async def test_many_may_give_up_at_once() -> None:
    """A connection has up to 65,536 calls, and when it ends the daemon must not stand still for minutes."""
    shared = Shared(asyncio.create_task(asyncio.sleep(60)))
    waiting = [asyncio.create_task(shared.result()) for _ in range(20_000)]
    await asyncio.sleep(0)
    began = time.thread_time()
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    assert time.thread_time() - began < 5  # of processor time; a quarter of a minute with asyncio.shield
    shared.job.cancel()
