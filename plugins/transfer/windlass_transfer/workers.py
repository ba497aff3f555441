"""Threads for the blocking work of transfers; a cancelled transfer leaves no work behind in them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import field
from typing import TypeVar

from windlass.errors import Error
from windlass.records import dataclass

R = TypeVar("R")

DOCUMENT_THREADS = 8
"""For what is small: questions to registries, manifests, configs."""
END = 35.0
"""Seconds that a thread has to notice that it is not wanted: a little longer than a registry may be silent."""


class Threads:
    """A pool whose calls can be cancelled."""

    def __init__(self, count: int, name: str) -> None:
        """Run up to ``count`` calls at a time."""
        self._pool = ThreadPoolExecutor(count, name)

    async def run(self, call: Callable[[], R], abort: Callable[[], None]) -> R:
        """Return what ``call`` returns in a thread; a cancelled caller calls ``abort`` and waits until it has ended."""
        job = self._pool.submit(contextvars.copy_context().run, call)
        future = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not job.cancel():  # it runs; asyncio's future would say that it was cancelled all the same
                abort()
                await asyncio.wait([future], timeout=END)
            if future.done() and not future.cancelled():
                future.exception()  # no caller is left to handle it; asyncio would log it
            raise
        finally:
            del job, future  # an error's traceback has this frame, and these have the error

    def close(self) -> None:
        """Take no further calls."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Locks:
    """Locks by name; each exists as long as a task holds it or waits for it."""

    def __init__(self) -> None:
        """Hold none."""
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def __call__(self, name: str) -> AsyncIterator[None]:
        """Hold a lock; a second task waits, and then finds the work of the first done."""
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = (lock, users - 1)


@dataclass
class Tools:
    """What the transfers of a daemon share."""

    layers: Threads
    documents: Threads
    downloads: asyncio.Semaphore
    """Layers that are fetched at a time, in all transfers together."""
    uploads: asyncio.Semaphore
    connections: int = 1
    """For one large layer."""
    blobs: Locks = field(default_factory=Locks)
    """By digest: each blob is fetched once, also when several transfers want it."""
    snapshots: Locks = field(default_factory=Locks)


def tools(downloads: int, uploads: int, connections: int) -> Tools:
    """Return tools for so many layers at a time in each direction, and so many connections for a large one."""
    return Tools(
        Threads(downloads + uploads, "layer"),
        Threads(DOCUMENT_THREADS, "registry"),
        asyncio.Semaphore(downloads),
        asyncio.Semaphore(uploads),
        connections,
    )


def named(error: Error, subject: str) -> Error:
    """Return an error that says what it is about, in front of what it says."""
    return error if subject in str(error) else type(error)(f"{subject}: {error}")
