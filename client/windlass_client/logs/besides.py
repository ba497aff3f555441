"""Runs a container's log program from the client, where the shim cannot do it.

containerd's shim gives a process that has a logger and no terminal no standard input, so such a process gets FIFOs. The
program reads them, in a session of its own, and goes on when the client has left.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from windlass.errors import Unavailable
from windlass_client import datadir
from windlass_client.logs.keeping import PROGRAM
from windlass_client.logs.program import BUNDLE, OUTPUTS, READY

NAMES = ("stdout", "stderr")
PLACE = "io"
ABOVE = 10
PATIENCE = 10


def write_pid(directory: Path, pid: int) -> None:
    """Tell the program which process it is about."""
    datadir.write(directory / PLACE / "init.pid", str(pid))


@contextmanager
def started(directory: Path) -> Iterator[tuple[str, str]]:
    """Start the program of a container's directory and give the FIFOs that it reads. Raises Unavailable."""
    (directory / PLACE / "init.pid").unlink(missing_ok=True)
    datadir.directory(directory / PLACE)
    paths = [directory / PLACE / name for name in NAMES]
    with ExitStack() as stack:
        fds = [_high(stack, _opened(path)) for path in paths]
        reading, notify = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, reading)
        notify = _high(None, notify)
        fds.append(notify)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in zip(fds, (*OUTPUTS, READY), strict=True)]
        nothing = _high(stack, os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        actions += [(os.POSIX_SPAWN_DUP2, nothing, number) for number in (0, 1, 2)]
        argv = [sys.executable, "-IS", str(directory / PROGRAM)]
        environment = {**os.environ, BUNDLE: str(directory / PLACE)}
        try:
            pid = os.posix_spawn(sys.executable, argv, environment, file_actions=actions, setsid=True)
        finally:
            os.close(notify)
        ready = select.poll()
        ready.register(reading, select.POLLIN)
        if not ready.poll(PATIENCE * 1000):
            raise Unavailable(
                f"the program that keeps the log of container {directory.name} was not ready in {PATIENCE} s"
            )
        try:
            yield str(paths[0]), str(paths[1])
        except BaseException:
            os.kill(pid, signal.SIGTERM)
            raise


def _opened(path: Path) -> int:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _high(stack: ExitStack | None, fd: int) -> int:
    """Move a descriptor above those that the program gets, so that none is overwritten before it is copied."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE)
    os.close(fd)
    if stack:
        stack.callback(os.close, high)
    return high
