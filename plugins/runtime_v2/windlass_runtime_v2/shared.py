"""One piece of work for which many wait."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

R = TypeVar("R")


class Shared(Generic[R]):
    """Work for which any number of callers wait, each of whom may give up without ending it.

    What `asyncio.shield` takes to give up grows with their number: when the client of 20,000 waits goes, the loop
    would stand still for a quarter of a minute.
    """

    def __init__(self, job: asyncio.Future[R]) -> None:
        """Wait for ``job``, a task or a future."""
        self.job = job
        # Each caller has a future of its own: what is done for one that gives up does not depend on the others.
        self._waiting: set[asyncio.Future[None]] = set()
        job.add_done_callback(self._wake)

    @property
    def failed(self) -> bool:
        """Whether the work has ended without a result."""
        return self.job.done() and (self.job.cancelled() or self.job.exception() is not None)

    def _wake(self, _job: asyncio.Future[R]) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def result(self) -> R:
        """Return what the work gives, or raise what it raises."""
        if not self.job.done():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
        return self.job.result()
