"""A small event loop: coroutines that wait for descriptors, for each other, and for time.

asyncio would double the shim's memory. A task waits for one thing at a time, a
descriptor is waited for by one task at a time, and nothing here runs in threads.

A task that waits where it could be begun anew *rests*. When all of them do for
a while, the loop can end: what it waited for begins another (`keeper`).
"""

from __future__ import annotations

import heapq
import itertools
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    Work = Coroutine["Wait", None, None]


READ = select.EPOLLIN
WRITE = select.EPOLLOUT
NO_DESCRIPTOR = -1


class Wait:
    """What a task is parked on while it awaits this: a descriptor, a flag, or either; and for how long."""

    __slots__ = ("events", "fd", "flag", "rests", "timeout")

    def __init__(
        self,
        fd: int = NO_DESCRIPTOR,
        events: int = 0,
        flag: Flag | None = None,
        timeout: float | None = None,
        rests: bool = False,
    ) -> None:
        self.fd = fd
        self.events = events
        self.flag = flag
        self.timeout = timeout
        self.rests = rests

    def __await__(self) -> Generator[Wait, None, None]:
        yield self


class Flag:
    """Something that happens once, for which any number of tasks wait."""

    __slots__ = ("_loop", "is_set", "waiters")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.is_set = False
        self.waiters: list[Task] = []

    def set(self) -> None:
        """Wake every task that waits."""
        self.is_set = True
        for task in list(self.waiters):
            self._loop.wake(task)

    async def wait(self, timeout: float | None = None) -> None:
        """Return when the flag is set; raises TimeoutError."""
        if not self.is_set:
            await Wait(flag=self, timeout=timeout)

    async def rest(self) -> None:
        """Return when the flag is set; the task rests until then."""
        if not self.is_set:
            await Wait(flag=self, rests=True)


class Lock:
    """Held by one task at a time, as an async context."""

    __slots__ = ("_freed", "_loop")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._freed: Flag | None = None

    async def __aenter__(self) -> None:
        while self._freed is not None:
            await self._freed.wait()
        self._freed = Flag(self._loop)

    async def __aexit__(self, *_: object) -> None:
        freed, self._freed = self._freed, None
        assert freed is not None
        freed.set()


class Task:
    """A coroutine in progress; ``finished`` is set at its end, however it ended."""

    __slots__ = ("coroutine", "deadline", "finished", "timer", "wait")

    def __init__(self, loop: Loop, coroutine: Work) -> None:
        self.coroutine = coroutine
        self.finished = Flag(loop)
        self.wait: Wait | None = None
        self.timer = 0
        self.deadline: float | None = None
        """When whatever it waits for raises TimeoutError, once: what it then has to clean up may take its time."""


class Loop:
    """Runs tasks until `stop`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._parked: dict[int, Task] = {}
        self._ready: list[tuple[Task, BaseException | None]] = []
        self._timers: list[tuple[float, int, Task]] = []
        self._numbers = itertools.count(1)
        self._stopped = False
        self._current: Task | None = None
        self._tasks = 0
        self._resting = 0
        self.may_rest: Callable[[], bool] | None = None
        """Asked before `run` returns because all tasks rest; without it they rest for ever."""
        self.quiet = 0.0
        """Seconds without any event after which tasks that rest are taken to go on resting."""

    def spawn(self, coroutine: Work) -> Task:
        """Start a task; it runs when the current one waits."""
        task = Task(self, coroutine)
        self._tasks += 1
        self._ready.append((task, None))
        return task

    def limit(self, seconds: float) -> None:
        """Let the current task wait for ``seconds`` in all, whatever it waits for; then it gets a TimeoutError."""
        if self._current is not None:
            self._current.deadline = time.monotonic() + seconds

    def cancel(self, task: Task) -> None:
        """End a task where it waits: its ``finally`` blocks run now, and must not wait themselves."""
        if not task.finished.is_set:
            self._unpark(task)
            task.coroutine.close()
            self._finish(task)

    async def readable(
        self, fd: int, timeout: float | None = None, flag: Flag | None = None, rests: bool = False
    ) -> None:
        """Return when ``fd`` can be read or has hung up, or ``flag`` is set; raises TimeoutError."""
        if flag is None or not flag.is_set:
            await Wait(fd, READ, flag, timeout, rests)

    async def writable(self, fd: int, timeout: float | None = None) -> None:
        """Return when ``fd`` can be written or has no reader any more; raises TimeoutError."""
        await Wait(fd, WRITE, None, timeout)

    async def sleep(self, seconds: float, rests: bool = False) -> None:
        """Return after ``seconds``."""
        try:
            await Wait(timeout=seconds, rests=rests)
        except TimeoutError:
            return

    def call_on(self, fd: int, callback: Callable[[], None]) -> Task:
        """Call ``callback`` whenever ``fd`` can be read; the task rests between."""

        async def watch() -> None:
            while True:
                await self.readable(fd, rests=True)
                callback()

        return self.spawn(watch())

    def wake(self, task: Task, error: BaseException | None = None) -> None:
        """Let a parked task go on, with an exception if one is given."""
        self._unpark(task)
        self._ready.append((task, error))

    def stop(self) -> None:
        """Make `run` return once the current task waits."""
        self._stopped = True

    def run(self) -> bool:
        """Run tasks until `stop` is called; or until all rest and may, which returns True."""
        rested = False
        while not (self._stopped or rested):
            ready, self._ready = self._ready, []
            for task, error in ready:
                self._step(task, error)
            if not self._stopped:
                rested = self._poll()
        return rested

    def close(self) -> None:
        """Give the loop's descriptor back."""
        self._epoll.close()

    def _poll(self) -> bool:
        """Wait for events and time; tells whether there were none for so long that all tasks rest."""
        timeout = -1.0
        if self._ready:
            timeout = 0.0
        elif self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        resting = self.may_rest is not None and self._resting == self._tasks and not 0 <= timeout < self.quiet
        events = self._epoll.poll(self.quiet if resting else timeout)
        if resting and not events:
            assert self.may_rest is not None
            if self.may_rest():
                return True
        for fd, _ in events:
            # One that was woken by an earlier event of this round is not parked any more.
            if fd in self._parked:
                self.wake(self._parked[fd])
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, number, task = heapq.heappop(self._timers)
            if task.timer == number:
                if task.deadline is not None and task.deadline <= now:
                    task.deadline = None
                self.wake(task, TimeoutError())
        return False

    def _step(self, task: Task, error: BaseException | None) -> None:
        if task.finished.is_set:
            return
        self._current = task
        try:
            wait = task.coroutine.send(None) if error is None else task.coroutine.throw(error)
        except StopIteration:
            self._finish(task)
        except Exception:  # noqa: BLE001 -- a defect in one task must not end the only keeper of the others' containers
            sys.excepthook(*sys.exc_info())
            self._finish(task)
        else:
            self._park(task, wait)

    def _finish(self, task: Task) -> None:
        self._tasks -= 1
        task.finished.set()

    def _park(self, task: Task, wait: Wait) -> None:
        if wait.fd != NO_DESCRIPTOR:
            try:
                self._epoll.register(wait.fd, wait.events)
            except OSError as error:
                # The task's own mistake, which must not be the end of all.
                self._ready.append((task, error))
                return
            self._parked[wait.fd] = task
        # One that has a deadline would lose it.
        wait.rests = wait.rests and task.deadline is None
        self._resting += wait.rests
        task.wait = wait
        if wait.flag is not None:
            wait.flag.waiters.append(task)
        end = task.deadline
        if wait.timeout is not None:
            timeout = time.monotonic() + wait.timeout
            end = timeout if end is None else min(end, timeout)
        if end is not None:
            task.timer = next(self._numbers)
            heapq.heappush(self._timers, (end, task.timer, task))

    def _unpark(self, task: Task) -> None:
        wait, task.wait, task.timer = task.wait, None, 0
        if wait is None:
            return
        self._resting -= wait.rests
        if wait.fd != NO_DESCRIPTOR:
            self._epoll.unregister(wait.fd)
            del self._parked[wait.fd]
        if wait.flag is not None:
            wait.flag.waiters.remove(task)
