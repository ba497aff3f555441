"""Collects every child's exit, also of children whose pid is not known yet.

runc returns when the container's process runs, and that process may end before
its pid file is read. While any runc is working, exits of unknown pids are kept.
What runc leaves behind is the keeper's child. The keeper reports its end, and
reaps it when the worker has recorded that, so that no pid that is watched is
reused.
"""

from __future__ import annotations

import os
import time

from windlass_shim_runc.loop import Flag, Loop
from windlass_shim_runc.signals import SIGCHLD, handle, wake_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from windlass_shim_runc.keeper import KeeperLine

    OnExit = Callable[[int, int], None]
    """Called with the exit status, 0 to 255, and nanoseconds since the epoch."""


SIGNALLED = 128


class Reaper:
    """Knows which children are awaited; needs SIGCHLD for itself."""

    def __init__(self, loop: Loop, line: KeeperLine | None = None) -> None:
        self._loop = loop
        self._line = line
        self._watched: dict[int, OnExit] = {}
        self._unclaimed: dict[int, tuple[int, int]] = {}
        self._launching = 0
        self._woken, self._wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def start(self) -> None:
        """Take over SIGCHLD; from now on every child is reaped."""
        wake_by(self._wakeup)
        handle(SIGCHLD, lambda _number, _frame: None)
        self._loop.call_on(self._woken, self._drain)
        if self._line is not None:
            self._loop.call_on(self._line.fileno(), self._on_keeper)

    @property
    def pids(self) -> Iterable[int]:
        """The children that are watched."""
        return self._watched

    def watch(self, pid: int, on_exit: OnExit) -> None:
        """Call ``on_exit`` once, immediately if the child has ended already."""
        if pid in self._unclaimed:
            on_exit(*self._unclaimed.pop(pid))
        else:
            self._watched[pid] = on_exit

    async def wait(self, pid: int, timeout: float | None = None) -> int:
        """Return a child's exit status; raises TimeoutError and goes on watching."""
        ended, status = Flag(self._loop), SIGNALLED

        def on_exit(code: int, _at: int) -> None:
            nonlocal status
            status = code
            ended.set()

        self.watch(pid, on_exit)
        await ended.wait(timeout)
        return status

    def __enter__(self) -> None:
        """Keep exits of unknown pids until the context ends; contexts may overlap."""
        self._launching += 1

    def __exit__(self, *_: object) -> None:
        """Forget the exits that `watch` has not claimed, when no context is left."""
        self._launching -= 1
        if not self._launching:
            self._unclaimed.clear()

    def _on_keeper(self) -> None:
        assert self._line is not None
        self._ended(*self._line.ended_child())
        self._line.reap()

    def _drain(self) -> None:
        try:
            os.read(self._woken, 4096)
        except BlockingIOError:
            pass
        self.reap()

    def reap(self) -> None:
        """Collect all that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            self._ended(pid, code if code >= 0 else SIGNALLED - code, time.time_ns())

    def _ended(self, pid: int, status: int, at: int) -> None:
        on_exit = self._watched.pop(pid, None)
        if on_exit is not None:
            on_exit(status, at)
        elif self._launching:
            self._unclaimed[pid] = (status, at)
