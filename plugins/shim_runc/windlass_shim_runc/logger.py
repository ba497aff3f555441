"""Runs the logger of a ``binary://`` URI, which reads a process's output itself."""

from __future__ import annotations

import fcntl
import os

from windlass.errors import DeadlineExceeded, Error, FailedPrecondition
from windlass_shim_runc.loop import Flag, Loop, Task
from windlass_shim_runc.reaper import Reaper
from windlass_shim_runc.signals import SIGKILL, SIGTERM
from windlass_shim_runc.spawn import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

READY_TIMEOUT = 10.0
STOP_TIMEOUT = 12.0

END_TIMEOUT = 1.0
"""How long a logger may take to read what is left, and end with it, before it gets a signal."""

FIRST_PASSED = 3
ABOVE_PASSED = 10


class Logger:
    """A logger process; it ends when the pipes that it reads do."""

    def __init__(self, loop: Loop, reaper: Reaper, argv: list[str], pid: int = 0) -> None:
        self._loop = loop
        self._reaper = reaper
        self._argv = argv
        self._ending: Task | None = None
        self._gone = Flag(loop)
        self._is_ready = pid > 0
        self._watch(pid)

    async def start(self, out: int, err: int, environment: Mapping[str, str], directory: str, strict: bool) -> None:
        """Execute it in ``directory`` with ``out`` and ``err`` as descriptors 3 and 4, and wait until it is ready.

        It tells by a byte on descriptor 5, or by closing it unless ``strict``.
        """
        ready, notify = os.pipe()
        # dup2 onto 3 to 5 must not hit a descriptor that is still to be passed.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE_PASSED) for fd in (out, err, notify)]
        try:
            passed = {FIRST_PASSED + index: fd for index, fd in enumerate(high)}
            self._watch(spawn(self._argv, environment, directory, passed))
            for fd in (notify, *high):
                os.close(fd)
            notify, high = -1, []
            await self._loop.readable(ready, READY_TIMEOUT)
            if not os.read(ready, 1) and strict:
                raise Error(f"logger {self._argv[0]} ended before it was ready")
            self._is_ready = True
        except (FileNotFoundError, PermissionError) as error:
            raise FailedPrecondition(
                f"logger {self._argv[0]} cannot be executed: {error.strerror}; install it or correct the URI"
            ) from error
        except TimeoutError as error:
            raise DeadlineExceeded(f"logger {self._argv[0]} was not ready in {READY_TIMEOUT:.0f} s") from error
        finally:
            for fd in (ready, notify, *high):
                if fd >= 0:
                    os.close(fd)

    def stop(self) -> None:
        """Ask it to end, and see to it that it does; one that has not become ready has nothing to write any more."""
        if self.pid and self._ending is None:
            self._ending = self._loop.spawn(self._end((SIGTERM, SIGKILL) if self._is_ready else (SIGKILL,)))

    async def ended(self) -> None:
        """Return when it has ended that was asked to, at the latest when it has been killed."""
        if self._ending is not None:
            await self._ending.finished.wait()

    def _watch(self, pid: int) -> None:
        self.pid = pid
        if pid:
            self._reaper.watch(pid, self._on_exit)

    def _on_exit(self, _status: int, _at: int) -> None:
        # From now on the number may be another's process.
        self.pid = 0
        self._gone.set()

    async def _end(self, signals: Sequence[int]) -> None:
        # A signal is for one that goes on after the end of what it reads; at once it could cost the last lines.
        if self._is_ready:
            try:
                await self._gone.wait(END_TIMEOUT)
            except TimeoutError:
                pass
        for number in signals:
            if not self.pid:
                return
            os.kill(self.pid, number)
            try:
                await self._gone.wait(STOP_TIMEOUT)
            except TimeoutError:
                continue
