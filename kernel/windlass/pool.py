"""Threads that do one plugin's work for the event loop.

`loop.run_in_executor` makes two futures, three callbacks and a lock out of every
call; a daemon that makes sixty calls for one container feels that. Here a call is
one object that goes to a thread and comes back.

A result has one owner at any time: the thread that made it, then the loop on its
way to the caller, then the caller. Where the caller has gone before, by its deadline
or cancelled, the owner at that moment gives the result to ``discard``.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from functools import partial
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
        self.threads: set[int] = set()
        """The identifiers of the threads that have started."""
        # The lock guards what follows. There are as many threads as unfinished jobs, up to the size, so that no job
        # waits while a thread could be started; none is put in the queue after the pool has been closed.
        self._lock = threading.Lock()
        self._started = 0
        self._unfinished = 0
        self._closed = False

    def submit(self, call: Callable[[], R], discard: Callable[[R], object] | None) -> Job[R]:
        """Make ``call`` in a thread; only on the loop. Raises Unavailable once closed."""
        job = Job(self, call, discard)
        with self._lock:
            if self._closed:
                raise Unavailable(f"{self.name} has been stopped; it takes no further calls")
            self._unfinished += 1
            grow = self._started < min(self._size, self._unfinished)
            self._started += grow
            self._jobs.put(job)  # type: ignore[arg-type] # invariant: only the job's caller knows what it returns
        if grow:
            threading.Thread(target=self._work, name=self.name, daemon=True).start()
        return job

    def close(self) -> None:
        """Take no further jobs; those under way are not waited for, and those in the queue are dropped."""
        with self._lock:
            self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                if job := self._jobs.get_nowait():
                    job.send(job.fail, Unavailable("the plugin was stopped before it took the call"))
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        self.threads.add(threading.get_ident())
        while (job := self._jobs.get()) is not None:
            job.run()
            del job  # else its result would live until the next one comes
            with self._lock:
                self._unfinished -= 1


class Job(Generic[R]):
    """One call on its way through a pool.

    ``future`` belongs to the loop that submitted it: only that loop settles it; a
    thread may look whether it is done, which is final.
    """

    __slots__ = ("_call", "_context", "_discard", "_pool", "future", "missed")

    def __init__(self, pool: Pool, call: Callable[[], R], discard: Callable[[R], object] | None) -> None:
        """Give a result whose caller has gone to ``discard``, in a thread of the pool."""
        self._pool = pool
        self._call = call
        self._context = contextvars.copy_context()
        self._discard = discard
        self.future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.missed = False
        """It has failed because it took too long."""

    def run(self) -> None:
        """Make the call and send the loop its outcome; in a thread."""
        if self.future.done():
            return  # the caller has gone, or its deadline has passed, while this was in the queue
        try:
            result = self._context.run(self._call)
        except BaseException as error:  # noqa: BLE001 -- not swallowed: who awaits the future gets it
            self.send(self.fail, error)
            del self  # the error's traceback has this frame, and this job's future has the error
        else:
            if not self.send(self._deliver, result) and self._discard is not None:
                self._discard(result)

    def expire(self, method: object, seconds: float) -> None:
        """Fail a job that has not ended in time; on the loop, as are those that follow."""
        if not self.future.done():
            self.missed = True
            what = f"{self._pool.name}: {getattr(method, '__name__', 'a call').lstrip('_')}"
            self.future.set_exception(DeadlineExceeded(f"{what} did not end within {seconds:g} s"))

    def abandon(self) -> None:
        """Discard a result that has come, but not to its caller, who was cancelled in that very moment."""
        if self.future.done() and not self.future.cancelled() and self.future.exception() is None:
            self._release(self.future.result())

    def fail(self, error: BaseException) -> None:
        """Tell the caller, if it is still there, that the call ended with an error."""
        if not self.future.done():
            self.future.set_exception(as_exception(error))

    def send(self, callback: Callable[[R], None] | Callable[[BaseException], None], outcome: object) -> bool:
        """Have the loop call back; from any thread."""
        try:
            self.future.get_loop().call_soon_threadsafe(callback, outcome)  # type: ignore[arg-type] # the pair is made above
        except RuntimeError:
            return False  # the loop has been closed: there is no caller any more
        return True

    def _deliver(self, result: R) -> None:
        if not self.future.done():
            self.future.set_result(result)
        else:
            self._release(result)

    def _release(self, result: R) -> None:
        if self._discard is None:
            return
        try:
            self._pool.submit(partial(self._discard, result), None)
        except Unavailable:
            self._discard(result)
