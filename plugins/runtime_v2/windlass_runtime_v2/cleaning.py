"""Cleans up after shims that are gone, again and again until nothing is left.

What cannot be cleaned yet keeps its bundle, by which a later daemon finds it, and its name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from windlass.contracts.tasks import Exit
from windlass.errors import Error, Unavailable
from windlass_runtime_v2.bundle import Bootstrap, Bundle
from windlass_runtime_v2.names import Key
from windlass_runtime_v2.task import is_alive

T = TypeVar("T")

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
LONGEST_TIME = 60.0
"""Seconds that a later attempt may take: a runtime may need longer than the first one is given."""

POLL = 0.5

CleanOnce = Callable[[Bundle, Bootstrap | None, float], Awaitable[Exit | None]]
"""Ends what a shim has left within some seconds and removes the bundle; raises Error or OSError for what stays."""


class Cleaning:
    """One clean-up, from its first attempt until all is gone."""

    def __init__(self, job: asyncio.Task[Exit | None], tried: asyncio.Future[None]) -> None:
        self.job = job
        """Done when all is gone; its result is how the task ended, if that is known."""
        self.tried = tried
        """Done after the first attempt, however that ended."""

    async def until_ended(self, pid: int) -> Exit | None:
        """Return when all is gone or, after the first attempt, when the process of ``pid`` does not run any more."""
        await asyncio.wait({self.tried})
        while not self.job.done() and is_alive(pid):
            await asyncio.wait({self.job}, timeout=POLL)
        if not self.job.done() or self._has_defect():
            return None
        return self.job.result()

    def _has_defect(self) -> bool:
        """Return whether it ended by a defect, which is in the log; clients that wait for the task get an answer."""
        return not self.job.cancelled() and not isinstance(self.job.exception(), Error | None)


class Cleaner:
    """Cleans up one bundle at a time or many; for use on the loop."""

    def __init__(self, kind: str, clean: CleanOnce, timeout: float) -> None:
        """Give the first attempt ``timeout`` seconds."""
        self.left: dict[Key, str] = {}
        """The names of what could not be cleaned up yet, and why."""
        self._kind = kind
        self._clean = clean
        self._timeout = timeout
        self._jobs: set[asyncio.Task[Exit | None]] = set()
        self._stopping = asyncio.Event()

    def begin(self, bundle: Bundle, bootstrap: Bootstrap | None) -> Cleaning:
        """Clean up after a dead shim. The job's failure means that the daemon stops before all is gone."""
        tried: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        job = asyncio.create_task(self._until_clean(bundle, bootstrap, tried))
        self._jobs.add(job)
        job.add_done_callback(self._done)
        return Cleaning(job, tried)

    async def clean(self, bundle: Bundle, bootstrap: Bootstrap | None) -> None:
        """Return after the first attempt; what that leaves is tried again without the caller."""
        await asyncio.wait({self.begin(bundle, bootstrap).tried})

    async def stop(self, timeout: float) -> None:
        """Finish attempts that are under way, for so many seconds, and begin none any more."""
        self._stopping.set()
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=timeout)
        for job in self._jobs:
            job.cancel()

    async def _until_clean(
        self, bundle: Bundle, bootstrap: Bootstrap | None, tried: asyncio.Future[None]
    ) -> Exit | None:
        key, what = (bundle.namespace, bundle.id), f"{self._kind} {bundle.id}"
        pause, timeout = FIRST_PAUSE, self._timeout
        try:
            while True:
                try:
                    exit = await self._clean(bundle, bootstrap, timeout)
                    break
                except (Error, OSError) as error:
                    reason = str(error)
                if self.left.get(key) != reason:
                    logger.warning("%s: what its shim left cannot be removed yet; trying again: %s", what, reason)
                self.left[key] = reason
                settle(tried)
                await self._pause(pause)
                pause, timeout = min(2 * pause, LONGEST_PAUSE), max(timeout, min(2 * timeout, LONGEST_TIME))
            if key in self.left:
                logger.info("%s: what its shim had left is gone now", what)
            return exit
        finally:
            self.left.pop(key, None)
            settle(tried)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
        raise Unavailable("the daemon is stopping")

    def _done(self, job: asyncio.Task[Exit | None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None and not isinstance(error, Error):
            job.get_loop().call_exception_handler({"message": "a clean-up failed", "exception": error, "task": job})


def settle(future: asyncio.Future[None]) -> None:
    """Make a future done that may be so already."""
    if not future.done():
        future.set_result(None)
