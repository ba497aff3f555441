"""Decides when garbage is collected (docs/containerd 3.14).

A caller that waits, or as many deletions as ``deletion_threshold``, start a
collection after ``schedule_delay``. Anything else that may have made garbage
waits for its turn: collections are spaced so that they take no more than
``pause_threshold`` of all time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time

from windlass.contracts.gc import Collector
from windlass.contracts.metadata import Collected, Metadata
from windlass.errors import Error, Unavailable
from windlass.gate import offloaded
from windlass.records import dataclass
from windlass.typing import override
from windlass_metadata.trouble import Trouble

logger = logging.getLogger(__name__)

LEAST_SECONDS = 0.005
"""What a collection is taken to last at least."""

FIRST_INTERVAL = 1.0
LARGEST_PAUSE = 0.5
RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Policy:
    """When to collect; times in seconds. See the configuration for what each does."""

    pause_threshold: float = 0.02
    deletion_threshold: int = 0
    mutation_threshold: int = 100
    schedule_delay: float = 0.0
    startup_delay: float = 0.1


@dataclass(slots=True)
class _Changes:
    """What has happened since the last collection began."""

    deletions: int = 0
    mutations: int = 0


class Scheduler(Collector):
    """Runs collections of one metadata store, one at a time."""

    def __init__(self, metadata: Metadata, policy: Policy) -> None:
        """Watch ``metadata``; `start` must be called on the loop."""
        self._metadata = metadata
        self.configure(policy)
        self._guard = threading.Lock()
        self._changes = _Changes()
        self._waiters: list[asyncio.Future[Collected]] = []
        self._awake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._total = 0.0
        self._collections = 0
        self._allowed = 0.0
        self._trouble = Trouble(logger, "garbage collection")
        metadata.on_mutation(self._mutated)

    def configure(self, policy: Policy) -> None:
        """Schedule the next collections by ``policy``."""
        self._policy = policy
        self._pause = min(max(policy.pause_threshold, 0.0), LARGEST_PAUSE)

    async def start(self) -> None:
        """Begin to schedule; the first collection comes after the startup delay."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="garbage collection scheduler")

    async def stop(self) -> None:
        """Schedule no more; callers that wait get Unavailable."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(Unavailable("the daemon is stopping, garbage is collected when it starts again"))
        self._waiters = []

    @override
    async def collect(self) -> Collected:
        if self._task is None or self._task.done():
            raise Unavailable("garbage collection is not running yet, or not any more")
        waiter: asyncio.Future[Collected] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._awake.set()
        return await waiter

    def _mutated(self, deletion: bool) -> None:
        """Count a change; called in the thread that made it."""
        with self._guard:
            self._changes.mutations += 1
            self._changes.deletions += deletion
            first = self._changes.mutations == 1 or self._changes.deletions == 1
            reached = self._reached(self._changes.deletions, self._policy.deletion_threshold)
            enough = self._reached(self._changes.mutations, self._policy.mutation_threshold)
        if self._loop and (first or reached or enough):
            try:
                self._loop.call_soon_threadsafe(self._awake.set)
            except RuntimeError:
                return  # the loop is closed, the daemon is on its way out

    def _reached(self, count: int, threshold: int) -> bool:
        return 0 < threshold == count

    async def _run(self) -> None:
        await asyncio.sleep(self._policy.startup_delay)
        await self._collect()  # the one at start, which also finds what a crash has left in the stores
        while True:
            delay = self._delay()
            if delay is None:
                await self._wait(None)
            elif delay > 0:
                await self._wait(delay)
            else:
                await asyncio.sleep(self._policy.schedule_delay)
                await self._collect()

    async def _wait(self, seconds: float | None) -> None:
        self._awake.clear()
        if self._delay() == 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._awake.wait()
        except TimeoutError:
            return

    def _delay(self) -> float | None:
        """Return in how many seconds to collect, or None when there is no reason to."""
        policy = self._policy
        with self._guard:
            deletions, mutations = self._changes.deletions, self._changes.mutations
        if self._waiters or 0 < policy.deletion_threshold <= deletions:
            return 0.0
        if deletions or 0 < policy.mutation_threshold <= mutations:
            return max(0.0, self._allowed - time.monotonic())
        return None

    async def _collect(self) -> None:
        waiters, self._waiters = self._waiters, []
        with self._guard:
            changes, self._changes = self._changes, _Changes()
        try:
            done = await offloaded(self._metadata.collect, deadline=None)()
        except Error as error:
            self._failed(error, changes, waiters)
            return
        except asyncio.CancelledError:
            self._waiters = waiters + self._waiters
            raise
        self._space(done.seconds)
        logger.debug(
            "collected garbage in %.3f s: %d rows, %d blobs, %d snapshots",
            done.seconds,
            done.removed,
            done.blobs,
            done.snapshots,
        )
        self._trouble.tell("")
        for failure in done.failures:
            # The cleaner of the store has logged it, once.
            logger.debug("garbage collection: %s", failure)
        if done.failures:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._mutated, True)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(done)

    def _failed(self, error: Error, changes: _Changes, waiters: list[asyncio.Future[Collected]]) -> None:
        self._trouble.tell(str(error))
        with self._guard:
            self._changes.deletions += max(1, changes.deletions)
            self._changes.mutations += changes.mutations
        self._allowed = time.monotonic() + FIRST_INTERVAL + self._interval()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def _space(self, seconds: float) -> None:
        self._total += seconds
        self._collections += 1
        self._allowed = time.monotonic() + self._interval()

    def _interval(self) -> float:
        if not self._pause or not self._collections:
            return FIRST_INTERVAL
        average = max(self._total / self._collections, LEAST_SECONDS)
        return average / self._pause - average
