"""The process that a shim is known by: small, since it only keeps children and descriptors, and a worker serves.

A Python process that serves gets a copy of its own of every page that it uses, a
megabyte and a half. So each time there is something to do, the keeper forks a
worker that does it; when all has been at rest for a while, the worker leaves
what it knows and has open with the keeper, and ends. The worker's copies of
pages end with it; the keeper's own stay as few as they were.

The keeper is the subreaper. A child that has ended stays a zombie until the
worker has recorded its end: until then its pid cannot become another process's.
"""

from __future__ import annotations

import _socket
import marshal
import os
import select
import sys
import time

from windlass_linux import calls as linux
from windlass_shim_runc.log import log
from windlass_shim_runc.signals import (
    SIG_IGN,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGTERM,
    handle,
    hold_stop_signals,
    release_stop_signals,
    wake_by,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    Work = Callable[["KeeperLine"], None]
    """What a worker does with its line to the keeper: serve; returns when it has handed over, or at the shim's end."""

REAP, FIRST, MORE = b"r", b"f", b"m"
"""How a worker's packets begin: it has recorded a child's end; descriptors, from the first on; further ones.

After the last ones comes what the keeper has to know.
"""
PACKET = 64 << 10
CHUNK = 1 << 20
MAX_RIGHTS = 200
"""Below the 253 of SCM_MAX_FD."""

FORK_PAUSE = 0.2

QUIET = 1.0
"""Seconds without any event after which a worker leaves."""

LONG_QUIET, SHORT_REST = 30.0, 60.0
"""The same for one that was called after so short a rest: what calls so often should not pay for a fork each time."""

SIGNALLED = 128
CLD_EXITED = 1
INT_SIZE = 4


class Handover:
    """What a worker leaves for the next one: descriptors, and a state that names them by number.

    What can be read on those of ``watched``, and the end of a child of ``pids``, calls the next worker.
    """

    __slots__ = ("descriptors", "pids", "state", "watched")

    def __init__(self) -> None:
        self.descriptors: list[int] = []
        self.watched: list[int] = []
        self.pids: list[int] = []
        self.state = b""
        """An encoded `windlass_shim_runc.records.ShimRecord`; the keeper has it as the last of ``descriptors``."""

    def put(self, fd: int, watched: bool = False) -> int:
        """Add a descriptor and return its number; 0 for -1, which is none.

        Raises OSError for one that is not open.
        """
        if fd < 0:
            return 0
        os.fstat(fd)
        self.descriptors.append(fd)
        number = len(self.descriptors)
        if watched:
            self.watched.append(number)
        return number

    def take(self, number: int) -> int:
        """Return the descriptor of a number, -1 for 0."""
        return self.descriptors[number - 1] if number else -1


class KeeperLine:
    """A worker's line to its keeper."""

    __slots__ = ("_socket", "handover", "quiet")

    def __init__(self, socket: _socket.socket, handover: Handover, quiet: float = QUIET) -> None:
        self._socket = socket
        self.handover = handover
        """What the worker before left; its state is empty for the first."""
        self.quiet = quiet
        """Seconds without any event after which to hand over."""

    def fileno(self) -> int:
        """Return the descriptor that can be read when a child has ended, or the keeper has."""
        return self._socket.fileno()

    def ended_child(self) -> tuple[int, int, int]:
        """Return pid, exit status and time (ns) of a child that has ended; without a keeper the worker ends."""
        try:
            data = self._socket.recv(PACKET)
        except ConnectionResetError:
            data = b""
        if not data:
            os._exit(1)
        pid, status, at = marshal.loads(data)  # noqa: S302 -- from our own parent
        return pid, status, at

    def reap(self) -> None:
        """Make the keeper reap the child that `ended_child` has returned, and report the next."""
        try:
            self._socket.send(REAP)
        except BrokenPipeError:
            os._exit(1)

    def hand_over(self, handover: Handover) -> None:
        """Leave everything with the keeper; then the worker has to end. Raises OSError: then it has to go on."""
        # In a file, since it may be longer than a packet.
        state = os.memfd_create("shim")
        try:
            data = handover.state
            while data:
                data = data[os.write(state, data) :]
            self._send([*handover.descriptors, state], marshal.dumps((handover.watched, handover.pids)))
        finally:
            os.close(state)

    def _send(self, descriptors: list[int], end: bytes) -> None:
        if len(end) >= PACKET:
            raise OSError(f"{len(end)} bytes of descriptors and pids are more than a keeper takes")
        kind = FIRST
        while descriptors:
            some, descriptors = descriptors[:MAX_RIGHTS], descriptors[MAX_RIGHTS:]
            packed = b"".join(fd.to_bytes(INT_SIZE, sys.byteorder) for fd in some)
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)]
            self._socket.sendmsg([kind, b"" if descriptors else end], rights)
            kind = MORE


def keep(listener: int, work: Work) -> int:
    """Fork workers until one says that the shim has ended, and return the exit status."""
    woken, wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    worker = 0

    def pass_on(number: int, _frame: object) -> None:
        # A worker that has no container ends, and the shim with it. One that has been reaped gets nothing.
        if worker:
            os.kill(worker, number)

    wake_by(wakeup)
    handle(SIGCHLD, ignore)
    handle(SIGHUP, SIG_IGN)
    handle(SIGTERM, pass_on)
    handle(SIGINT, pass_on)
    handover = Handover()
    quiet = QUIET
    while True:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        # Neither a worker whose pid is not known here yet, nor one without handlers misses a signal.
        hold_stop_signals()
        keeper = os.getpid()
        worker = fork()
        if not worker:
            end_with(keeper)
            ours.close()
            run_worker(work, theirs, handover, quiet, (woken, wakeup))
        release_stop_signals()
        theirs.close()
        close(handover.descriptors)
        left = supervise(ours, woken, worker)
        ours.close()
        pid, worker = worker, 0
        _, status = os.waitpid(pid, 0)
        if left is None:
            return os.waitstatus_to_exitcode(status)
        handover = left
        began = time.monotonic()
        rest(handover, listener, woken)
        quiet = LONG_QUIET if time.monotonic() - began < SHORT_REST else QUIET


def end_with(keeper: int) -> None:
    """Be killed when the keeper is: what cleans up after it must not meet a worker that still makes something."""
    # Not linux.prctl: its conversions touch 100 KB.
    linux.libc().prctl(linux.PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != keeper:
        os._exit(1)


def run_worker(
    work: Work, theirs: _socket.socket, handover: Handover, quiet: float, not_ours: Sequence[int]
) -> NoReturn:
    """Run a worker."""
    status = 1
    try:
        wake_by(-1)
        close(not_ours)
        if handover.descriptors:
            state = handover.descriptors.pop()
            handover.state = contents(state)
            os.close(state)
        work(KeeperLine(theirs, handover, quiet))
        status = 0
    finally:
        # The frames above are the keeper's, and must never be run by a worker.
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
        os._exit(status)


def supervise(line: _socket.socket, woken: int, worker: int) -> Handover | None:
    """Report children that end to the worker; return what it leaves, None when it has ended with the shim."""
    handover = Handover()
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(line.fileno(), select.POLLIN)
    reported = report_child(line, worker)
    while True:
        for fd, _ in poll.poll():
            if fd == woken:
                drain(fd)
                # One at a time: until the worker says REAP, the zombie keeps its pid from becoming another's.
                reported = reported or report_child(line, worker)
                continue
            data, more = receive(line)
            if data == REAP:
                os.waitpid(reported, 0)
                reported = report_child(line, worker)
                continue
            if data[:1] == FIRST:
                # It may have begun to hand over before, in vain.
                close(handover.descriptors)
                handover.descriptors = []
            handover.descriptors += more
            if not data:
                return None
            if len(data) > 1:
                handover.watched, handover.pids = marshal.loads(data[1:])  # noqa: S302 -- from our own child
                return handover


def report_child(line: _socket.socket, worker: int) -> int:
    """Report a child that has ended and is not reaped yet; return its pid, 0 without one."""
    pid, status = first_zombie()
    if not pid or pid == worker:
        return 0
    try:
        line.send(marshal.dumps((pid, status, time.time_ns())))
    except OSError:
        # The worker has just ended: the next one gets the report.
        return 0
    return pid


def rest(handover: Handover, listener: int, woken: int) -> None:
    """Return when a worker is needed."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(woken, select.POLLIN)
    for number in handover.watched:
        poll.register(handover.take(number), select.POLLIN)
    while not awaited_child_ended(handover.pids):
        for fd, _ in poll.poll():
            if fd != woken:
                return
            drain(fd)


def awaited_child_ended(pids: list[int]) -> bool:
    """Reap children that are not among ``pids``; return whether one of those has ended."""
    while True:
        pid, _ = first_zombie()
        if pid in pids:
            return True
        if not pid:
            return False
        os.waitpid(pid, 0)


def fork() -> int:
    """Fork, as soon as the machine allows it: a shim that gave up would lose its containers."""
    while True:
        try:
            return os.fork()
        except OSError as error:
            log(f"no worker can be forked yet: {error.strerror}")
            time.sleep(FORK_PAUSE)


def ignore(_number: int, _frame: object) -> None:
    """Handle a signal whose wake-up is enough."""


def close(descriptors: Sequence[int]) -> None:
    """Close them all."""
    for fd in descriptors:
        os.close(fd)


def first_zombie() -> tuple[int, int]:
    """Return pid and exit status (0 to 255) of a child that has ended, which stays to be reaped; zeros without one."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0, 0
    if ended is None:
        return 0, 0
    return ended.si_pid, ended.si_status if ended.si_code == CLD_EXITED else SIGNALLED + ended.si_status


def receive(line: _socket.socket) -> tuple[bytes, list[int]]:
    """Return a packet and its descriptors; no bytes when the other side has ended."""
    space = _socket.CMSG_SPACE(MAX_RIGHTS * INT_SIZE)
    try:
        data, ancillary, _, _ = line.recvmsg(PACKET, space, _socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # It has ended without reading the last report. That is said first, once; what it sent comes after.
        data, ancillary, _, _ = line.recvmsg(PACKET, space, _socket.MSG_CMSG_CLOEXEC)
    return data, [
        int.from_bytes(rights[at : at + INT_SIZE], sys.byteorder)
        for _, _, rights in ancillary
        for at in range(0, len(rights), INT_SIZE)
    ]


def drain(fd: int) -> None:
    """Empty a pipe that does not block."""
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        return


def contents(fd: int) -> bytes:
    """Return all of a file."""
    parts, at = [], 0
    while part := os.pread(fd, CHUNK, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
