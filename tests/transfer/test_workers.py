"""Promises of blocking work: nothing of it goes on behind the back of who was told that it has ended."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from windlass_local.waiting import settled
from windlass_transfer.workers import Locks, Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    found = Threads(1, "test")
    yield found
    found.close()


async def test_a_call_that_runs_is_told_to_end_and_waited_for(threads: Threads) -> None:
    told, began, ended = threading.Event(), threading.Event(), []

    def call() -> None:
        began.set()
        told.wait(10)
        time.sleep(0.1)
        ended.append(True)

    task = asyncio.create_task(threads.run(call, told.set))
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


async def test_a_call_that_has_not_begun_never_does(threads: Threads) -> None:
    release, called, aborted = threading.Event(), [], []
    first = asyncio.create_task(threads.run(lambda: release.wait(10), release.set))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(threads.run(lambda: called.append(True), lambda: aborted.append(True)))
    await asyncio.sleep(0.05)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    release.set()
    await first
    assert called == aborted == []


async def test_what_a_call_raises_reaches_its_caller(threads: Threads) -> None:
    def call() -> None:
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        await threads.run(call, lambda: None)


async def test_work_is_settled_before_its_cancellation_is_told() -> None:
    ended = []

    async def work() -> None:
        await asyncio.sleep(0.1)
        ended.append(True)

    task = asyncio.create_task(settled(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


async def test_a_lock_is_one_name_s_and_is_forgotten() -> None:
    locks, order = Locks(), []

    async def work(name: str, number: int) -> None:
        async with locks(name):
            order.append((name, number, "in"))
            await asyncio.sleep(0.01)
            order.append((name, number, "out"))

    await asyncio.gather(*(work("a", number) for number in range(3)), work("b", 0))
    own = [entry for entry in order if entry[0] == "a"]
    assert own == [("a", number, what) for number in range(3) for what in ("in", "out")]
    assert not locks._locks


async def test_who_gives_up_waiting_for_a_lock_leaves_it_to_others() -> None:
    locks = Locks()

    async def hold() -> None:
        async with locks("a"):
            await asyncio.sleep(0.05)

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(hold())
    await asyncio.sleep(0)
    waiting.cancel()
    await holding
    async with asyncio.timeout(5), locks("a"):
        pass
    assert not locks._locks
