"""When garbage is collected (docs/containerd 3.14, 8.3)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from windlass.contracts.metadata import Collected
from windlass.errors import Unavailable
from windlass_metadata.scheduler import Policy, Scheduler


class Collections:
    """Stands for a metadata store; each collection takes ``seconds`` or what it claims to."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.claimed = 0.0
        self.problem: Exception | None = None
        self.failures: tuple[str, ...] = ()
        self.gate = threading.Event()
        self.gate.set()
        self.watcher: Callable[[bool], None] = lambda deletion: None

    def on_mutation(self, callback: Callable[[bool], None]) -> None:
        self.watcher = callback

    def collect(self) -> Collected:
        assert self.gate.wait(10)
        self.times.append(time.monotonic())
        if self.problem:
            problem, self.problem = self.problem, None
            raise problem
        return Collected(removed=len(self.times), seconds=self.claimed, failures=self.failures)

    def mutate(self, count: int, deletion: bool = False) -> None:
        for _ in range(count):
            self.watcher(deletion)


@asynccontextmanager
async def running(metadata: Collections, **policy: Any) -> AsyncIterator[Scheduler]:
    policy = {"startup_delay": 0.0, **policy}
    scheduler = Scheduler(metadata, Policy(**policy))  # type: ignore[arg-type] # as much of one as it uses
    await scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.stop()


@pytest.fixture
def metadata() -> Collections:
    return Collections()


async def runs(metadata: Collections, count: int, seconds: float = 3.0) -> None:
    """Wait until there have been ``count`` collections."""
    deadline = time.monotonic() + seconds
    while len(metadata.times) < count:
        assert time.monotonic() < deadline, f"{len(metadata.times)} collections instead of {count}"
        await asyncio.sleep(0.005)


async def test_first_collection_comes_after_the_startup_delay(metadata: Collections) -> None:
    started = time.monotonic()
    async with running(metadata, startup_delay=0.2):
        metadata.mutate(500, deletion=True)
        await runs(metadata, 1)
    assert metadata.times[0] - started >= 0.2


async def test_who_waits_gets_a_collection_that_began_after_they_asked(metadata: Collections) -> None:
    async with running(metadata) as scheduler:
        await runs(metadata, 1)
        metadata.gate.clear()
        first = asyncio.create_task(scheduler.collect())
        await asyncio.sleep(0.05)
        second = asyncio.create_task(scheduler.collect())
        third = asyncio.create_task(scheduler.collect())
        await asyncio.sleep(0.05)
        metadata.gate.set()
        assert (await first).removed == 2
        assert (await second).removed == (await third).removed == 3


async def test_deletion_threshold_collects_once_at_once(metadata: Collections) -> None:
    metadata.claimed = 100.0  # the next turn is hours away
    async with running(metadata, deletion_threshold=5):
        await runs(metadata, 1)
        metadata.mutate(4, deletion=True)
        await asyncio.sleep(0.1)
        assert len(metadata.times) == 1
        metadata.mutate(1, deletion=True)
        await runs(metadata, 2)
        await asyncio.sleep(0.1)
        assert len(metadata.times) == 2


async def test_pause_threshold_spaces_collections(metadata: Collections) -> None:
    """At 2 % and 4 ms, which counts as 5 ms, there are 245 ms between two."""
    metadata.claimed = 0.004
    async with running(metadata, pause_threshold=0.02):
        await runs(metadata, 1)
        for _ in range(30):
            metadata.mutate(1, deletion=True)
            await asyncio.sleep(0.02)
    assert len(metadata.times) in (2, 3, 4)
    assert all(later - earlier > 0.2 for earlier, later in zip(metadata.times, metadata.times[1:], strict=False))


async def test_mutations_that_delete_nothing_count_only_in_number(metadata: Collections) -> None:
    async with running(metadata, mutation_threshold=10, pause_threshold=0.5):
        await runs(metadata, 1)
        metadata.mutate(9)
        await asyncio.sleep(0.2)
        assert len(metadata.times) == 1
        metadata.mutate(1)
        await runs(metadata, 2)


async def test_schedule_delay_lets_waiters_gather(metadata: Collections) -> None:
    async with running(metadata, schedule_delay=0.1) as scheduler:
        await runs(metadata, 1)
        started = time.monotonic()
        done = await asyncio.gather(scheduler.collect(), scheduler.collect())
    assert [one.removed for one in done] == [2, 2]
    assert metadata.times[1] - started >= 0.1


async def test_failed_collection_is_told_and_tried_again(
    metadata: Collections, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits gets the error; the log has it once, however often it is tried."""
    async with running(metadata, pause_threshold=0.5) as scheduler:
        await runs(metadata, 1)
        metadata.problem = Unavailable("no")
        with pytest.raises(Unavailable):
            await scheduler.collect()
        await runs(metadata, 3)
    assert [record.getMessage().partition(";")[0] for record in caplog.records if record.levelname == "WARNING"] == [
        "garbage collection: no"
    ]


async def test_counts_come_from_any_thread(metadata: Collections) -> None:
    async with running(metadata, deletion_threshold=400):
        await runs(metadata, 1)
        threads = [threading.Thread(target=metadata.mutate, args=(100, True)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        await runs(metadata, 2)


async def test_stop_tells_who_waits(metadata: Collections) -> None:
    async with running(metadata, startup_delay=10.0) as scheduler:
        waiting = asyncio.create_task(scheduler.collect())
        await asyncio.sleep(0.01)
    with pytest.raises(Unavailable, match="stopping"):
        await waiting
    with pytest.raises(Unavailable):
        await scheduler.collect()
