"""Threads that do one plugin's work for the event loop.

`loop.run_in_executor` makes two futures, three callbacks and a lock out of every
call; a daemon that makes sixty calls for one container feels that. Here a call is
one object that goes to a thread and comes back.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from windlass.errors import DeadlineExceeded, Unavailable, as_exception

R = TypeVar("R")


class Pool:
    """Up to ``size`` threads, started when they are needed; they keep no process from ending."""

    def __init__(self, name: str, size: int) -> None:
        """Start no thread yet; those to come carry ``name``."""
        self.name = name
        self._size = size
        self._jobs: queue.SimpleQueue[Job[object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0
        self._closed = False

    def submit(self, call: Callable[[], R], discard: Callable[[R], object] | None) -> Job[R]:
        """Have a thread make ``call``; only on the loop. Raises Unavailable once closed."""
        job = Job(self, call, discard)
        self.add(job)
        return job

    def add(self, job: Job[R]) -> None:
        """Queue a job. Raises Unavailable once closed."""
        with self._lock:
            if self._closed:
                raise Unavailable(f"{self.name} has been stopped; it takes no further calls")
            self._unfinished += 1
            grow = self._threads < min(self._size, self._unfinished)
            self._threads += grow
        if grow:
            threading.Thread(target=self._work, name=self.name, daemon=True).start()
        self._jobs.put(job)  # type: ignore[arg-type] # invariant: what a job returns is its caller's business

    def close(self) -> None:
        """Take no further jobs; those under way are not waited for, and those in the queue are dropped."""
        with self._lock:
            self._closed = True
            threads = self._threads
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job.drop()
        for _ in range(threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job  # else its result would live until the next one comes
            with self._lock:
                self._unfinished -= 1


class Job(Generic[R]):
    """One call on its way through a pool; ``future`` belongs to the loop that submitted it."""

    __slots__ = ("_call", "_context", "_discard", "_loop", "_pool", "future", "missed")

    def __init__(self, pool: Pool, call: Callable[[], R], discard: Callable[[R], object] | None) -> None:
        """Give a result that nobody waits for any more to ``discard``, in a thread of the pool."""
        self._pool = pool
        self._call = call
        self._discard = discard
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[R] = self._loop.create_future()
        self.missed = False
        """It has failed because it took too long."""

    def run(self) -> None:
        """Make the call and send the loop its outcome; in a thread."""
        if self.future.done():
            return  # the caller has gone, or its deadline has passed, while this was in the queue
        try:
            result = self._context.run(self._call)
        except BaseException as error:  # noqa: BLE001 -- not swallowed: whoever awaits the future gets it
            self._send(self._fail, error)
            del self  # the error's traceback has this frame, and this job's future has the error
        else:
            if not self._send(self._deliver, result) and self._discard is not None:
                self._discard(result)

    def expire(self, name: str, timeout: float) -> None:
        """Fail a job that has not ended in time."""
        if not self.future.done():
            self.missed = True
            what = f"{self._pool.name}: {name or 'a call'}"
            self.future.set_exception(DeadlineExceeded(f"{what} did not end within {timeout:g} s"))

    def abandon(self) -> None:
        """Discard a result that has come, but not to its caller, who was cancelled in that very moment."""
        if self.future.done() and not self.future.cancelled() and self.future.exception() is None:
            self._release(self.future.result())

    def drop(self) -> None:
        """End a job that no thread will take."""
        self._send(self._fail, Unavailable("the plugin was stopped before it took the call"))

    def _send(self, callback: Callable[[R], None] | Callable[[BaseException], None], outcome: object) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback, outcome)  # type: ignore[arg-type] # the pair is made above
        except RuntimeError:
            return False  # the loop has been closed, and nobody waits
        return True

    def _deliver(self, result: R) -> None:
        if not self.future.done():
            self.future.set_result(result)
        else:
            self._release(result)

    def _release(self, result: R) -> None:
        if self._discard is not None:
            discard = self._discard
            try:
                self._pool.submit(lambda: discard(result), None)
            except Unavailable:
                discard(result)

    def _fail(self, error: BaseException) -> None:
        if self.future.done():
            return
        self.future.set_exception(as_exception(error))
