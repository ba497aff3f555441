"""Runs the logger of a ``binary://`` URI, which reads a process's output itself."""

# ruff: noqa: ASYNC221
# posix_spawn is a vfork and takes a millisecond.
from __future__ import annotations

import fcntl
import os

from windlass.errors import DeadlineExceeded, Error, FailedPrecondition, InvalidArgument
from windlass_shim_runc.loop import Loop
from windlass_shim_runc.reaper import Reaper
from windlass_shim_runc.signals import IGNORED, SIGKILL, SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

READY_TIMEOUT = 10.0
STOP_TIMEOUT = 12.0

FIRST_PASSED = 3
ABOVE_PASSED = 10


def command(rest: str) -> list[str]:
    """Return a logger's arguments from what follows ``binary://``: the path, then each key and its first value."""
    path, _, query = rest.partition("?")
    if not path.startswith("/"):
        raise InvalidArgument(f"logger {path[:200]!r} is not an absolute path; write binary:///path")
    argv = [unquote(path)]
    seen = set()
    for pair in filter(None, query.split("&")):
        key, _, value = pair.partition("=")
        if key not in seen:
            seen.add(key)
            argv += [word for word in (unquote(key), unquote(value)) if word]
    if any("\0" in word for word in argv):
        raise InvalidArgument(f"logger {path[:200]!r} has a zero byte in its arguments")
    return argv


def unquote(text: str) -> str:
    """Undo percent-encoding; urllib is too big for a shim."""
    head, *parts = text.replace("+", " ").encode().split(b"%")
    out = bytearray(head)
    for part in parts:
        try:
            out += bytes.fromhex(part[:2].decode()) + part[2:]
        except ValueError:
            out += b"%" + part
    return out.decode(errors="replace")


class Logger:
    """A logger process; it ends when the pipes that it reads do."""

    def __init__(self, loop: Loop, reaper: Reaper, argv: list[str], pid: int = 0) -> None:
        self._loop = loop
        self._reaper = reaper
        self._argv = argv
        self.pid = pid

    async def start(self, out: int, err: int, environment: Mapping[str, str], strict: bool) -> None:
        """Execute it with ``out`` and ``err`` as descriptors 3 and 4, and wait until it is ready.

        It tells by a byte on descriptor 5, or by closing it unless ``strict``.
        """
        ready, notify = os.pipe()
        # dup2 onto 3 to 5 must not hit a descriptor that is still to be passed.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE_PASSED) for fd in (out, err, notify)]
        try:
            null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)]
            passed = [(os.POSIX_SPAWN_DUP2, fd, FIRST_PASSED + index) for index, fd in enumerate(high)]
            self.pid = os.posix_spawn(
                self._argv[0],
                self._argv,
                dict(environment),
                file_actions=[*null, *passed],
                setpgroup=0,
                setsigmask=(),
                setsigdef=IGNORED,
            )
            for fd in (notify, *high):
                os.close(fd)
            notify, high = -1, []
            await self._loop.readable(ready, READY_TIMEOUT)
            if not os.read(ready, 1) and strict:
                raise Error(f"logger {self._argv[0]} ended before it was ready")
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
        """Ask it to end, and see to it that it does; nobody waits for that."""
        if self.pid:
            pid, self.pid = self.pid, 0
            self._loop.spawn(self._end(pid))

    async def _end(self, pid: int) -> None:
        # Its own end of file comes first; the signal is for one that does not heed it.
        for signal_number in (SIGTERM, SIGKILL):
            try:
                os.kill(pid, signal_number)
            except ProcessLookupError:
                return
            try:
                await self._reaper.wait(pid, STOP_TIMEOUT)
            except TimeoutError:
                continue
            return
