"""Stays with a process until it ends: passes signals on, and copies between its terminal and ours."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import signal
import socket
import termios
import tty

from windlass_linux import calls as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 32 << 10
OUTPUT = 1
"""Where tcgetattr(3) has the flags of output."""
NOT_PASSED_ON = (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGURG, signal.SIGPIPE, signal.SIGWINCH)


def hold_signals() -> None:
    """Let signals wait until `stay` passes them on; the process that is made does not inherit that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def stay(pid: int, console: socket.socket | None = None) -> int:
    """Return the exit code of a child, 128 and the signal's number for one that was killed.

    ``console`` is where the master of its terminal comes from.
    """
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    for number in signal.valid_signals():
        if number not in NOT_PASSED_ON and int(number) < signal.SIGRTMIN:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, lambda number, _frame: _pass_on(pid, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if console is None:
        return _end(pid)
    master = _received(console)
    try:
        with _raw():
            signal.signal(signal.SIGWINCH, lambda _number, _frame: _resize(master))
            _resize(master)
            _copy(master)
            return _end(pid)
    finally:
        os.close(master)


def _pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _end(pid: int) -> int:
    while True:
        found, status = os.waitpid(-1, 0)
        if found == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _received(console: socket.socket) -> int:
    _, rights, _, _ = console.recvmsg(4096, socket.CMSG_SPACE(array.array("i").itemsize))
    descriptors = array.array("i")
    for _level, _kind, data in rights:
        descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    attributes = termios.tcgetattr(descriptors[0])
    attributes[OUTPUT] &= ~termios.ONLCR  # our own terminal does that, and a file or pipe wants lines as they are
    termios.tcsetattr(descriptors[0], termios.TCSANOW, attributes)
    return descriptors[0]


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Have our terminal, if standard input is one, pass everything on as it is typed."""
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        attributes = termios.tcgetattr(0)
        attributes[OUTPUT] |= termios.OPOST
        termios.tcsetattr(0, termios.TCSANOW, attributes)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _resize(master: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))


def _copy(master: int) -> None:
    """Copy until nobody has the terminal open any more."""
    poll = select.poll()
    poll.register(master, select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            try:
                data = os.read(fd, CHUNK)
            except OSError:
                data = b""  # EIO: the last slave is closed
            if not data and fd == master:
                return
            if not data:
                poll.unregister(0)
            _write(1 if fd == master else master, data)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
