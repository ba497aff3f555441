"""The keeper's steps one by one: children that end, a worker that leaves or dies, and the calls that end a rest."""

from __future__ import annotations

import marshal
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from polling import is_readable

from windlass_shim_runc import keeper
from windlass_shim_runc.keeper import REAP, Handover, KeeperLine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SOCK_SEQPACKET with descriptors is Linux's")


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A keeper's end, and a worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def woken() -> Iterator[tuple[int, int]]:
    """The pipe that a signal writes into."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def ended_child(status: int = 0) -> int:
    """Return a child that has ended and is not reaped."""
    pid = os.fork()
    if not pid:
        os._exit(status)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def no_children_left() -> bool:
    """Tell whether every child is reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


@pytest.fixture(autouse=True)
def alone() -> None:
    """Earlier tests may have left children, which a keeper would take for its own."""
    if not no_children_left():
        pytest.skip("this process has other children; scripts/test runs these in a process of their own")


def test_a_child_is_reaped_when_the_worker_has_recorded_its_end(
    line: tuple[socket.socket, socket.socket], woken: tuple[int, int]
) -> None:
    """Until then it is a zombie, so that its number is no other process's; the next one comes after it."""
    ours, theirs = line
    first = ended_child(3)
    found: list[Handover | None] = []
    thread = threading.Thread(target=lambda: found.append(keeper.supervise(ours, woken[0], 1)))
    thread.start()
    worker = KeeperLine(theirs, Handover())
    pid, status, at = worker.ended_child()
    assert (pid, status) == (first, 3)
    assert abs(time.time_ns() - at) < 60e9
    second = ended_child(4)
    os.write(woken[1], b"x")
    assert not is_readable(theirs.fileno(), 0.05), "one at a time"
    assert os.waitid(os.P_PID, first, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    worker.reap()
    assert worker.ended_child()[:2] == (second, 4)
    worker.reap()
    worker.hand_over(Handover())
    thread.join(10)
    assert no_children_left()
    assert found[0] is not None and len(found[0].descriptors) == 1
    keeper.close(found[0].descriptors)


def test_what_is_handed_over_comes_out_as_it_went_in(
    line: tuple[socket.socket, socket.socket], woken: tuple[int, int]
) -> None:
    """Descriptors by their numbers, which are watched, children, and the state as a file."""
    ours, theirs = line
    handover = Handover()
    reading, writing = os.pipe()
    assert (handover.put(reading, watched=True), handover.put(writing)) == (1, 2)
    handover.pids, handover.state = [7, 8], b"state" * 100
    KeeperLine(theirs, Handover()).hand_over(handover)
    kept = keeper.supervise(ours, woken[0], 1)
    assert kept is not None
    assert (kept.watched, kept.pids) == ([1], [7, 8])
    os.write(kept.take(2), b"x")
    assert os.read(reading, 1) == b"x"
    assert keeper.contents(kept.descriptors[-1]) == b"state" * 100
    keeper.close([*kept.descriptors, reading, writing])


def test_a_worker_that_ends_leaves_nothing(line: tuple[socket.socket, socket.socket], woken: tuple[int, int]) -> None:
    """Nor does one that has not read what was reported to it."""
    ours, theirs = line
    os.waitpid(ended_child(), 0)
    ours.send(b"unread")
    theirs.close()
    assert keeper.supervise(ours, woken[0], 1) is None


def test_the_worker_itself_is_not_reported(line: tuple[socket.socket, socket.socket]) -> None:
    """Its end is seen on its line."""
    ours, _ = line
    worker = ended_child()
    assert keeper.report_child(ours, worker) == 0
    os.waitpid(worker, 0)
    assert keeper.report_child(ours, 0) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_is_killed_has_the_shells_status(number: int) -> None:
    pid = os.fork()
    if not pid:
        while True:
            signal.pause()
    os.kill(pid, number)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert keeper.first_zombie() == (pid, 128 + number)
    os.waitpid(pid, 0)


def test_a_rest_ends_with_a_connection_a_descriptor_or_an_awaited_child(woken: tuple[int, int]) -> None:
    """Each at once, and also when it came before the rest."""
    listener, client = socket.socketpair()
    watched, feeding = os.pipe()
    kept = Handover()
    kept.descriptors, kept.watched, kept.pids = [watched], [1], []
    with listener, client:
        client.send(b"x")
        keeper.rest(kept, listener.fileno(), woken[0])
        listener.recv(1)
        os.write(feeding, b"x")
        keeper.rest(kept, listener.fileno(), woken[0])
        os.read(watched, 1)
        kept.pids = [ended_child()]
        keeper.rest(kept, listener.fileno(), woken[0])
        os.waitpid(kept.pids[0], 0)
    os.close(watched)
    os.close(feeding)


def test_a_child_that_is_not_awaited_is_reaped_and_ends_no_rest() -> None:
    ended_child()
    assert not keeper.awaited_child_ended([1])
    assert no_children_left()


def test_an_awaited_child_stays_for_the_worker() -> None:
    """After those that are not awaited."""
    ended_child()
    awaited = ended_child()
    assert keeper.awaited_child_ended([awaited])
    assert os.waitpid(awaited, 0)[0] == awaited


def test_a_worker_gets_the_state_of_the_one_before() -> None:
    """And its descriptors, without the keeper's own."""
    state = os.memfd_create("state")
    os.write(state, b"all that was known")
    kept_reading, kept_writing = os.pipe()
    not_ours = os.pipe()
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:

        def work(line: KeeperLine) -> None:
            handover = line.handover
            open_still = [fd for fd in not_ours if is_open(fd)]
            answer = (handover.state, len(handover.descriptors), line.quiet, open_still, is_open(state))
            os.write(handover.take(2), marshal.dumps(answer))

        handover = Handover()
        handover.descriptors = [kept_reading, kept_writing, state]
        keeper.run_worker(work, theirs, handover, 7.0, not_ours)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert marshal.loads(os.read(kept_reading, 1000)) == (b"all that was known", 2, 7.0, [], False)
    for fd in (state, kept_reading, kept_writing, *not_ours):
        os.close(fd)
    mine.close()
    theirs.close()


def is_open(fd: int) -> bool:
    """Tell whether a descriptor is open."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_worker_with_a_defect_ends_with_1(capfd: pytest.CaptureFixture[str]) -> None:
    """And the shim with it; the traceback is in the log."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:

        def work(line: KeeperLine) -> None:
            raise ZeroDivisionError

        keeper.run_worker(work, theirs, Handover(), 1.0, ())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err
    mine.close()
    theirs.close()


@pytest.mark.parametrize("act", [KeeperLine.ended_child, KeeperLine.reap])
def test_a_worker_without_its_keeper_ends(act: Callable[[KeeperLine], object]) -> None:
    """Whether it waits for reports or answers one."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mine.close()
    pid = os.fork()
    if not pid:
        act(KeeperLine(theirs, Handover()))
        os._exit(7)
    theirs.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_packets_are_told_apart() -> None:
    """By their first byte."""
    assert len({REAP, keeper.FIRST, keeper.MORE}) == 3
    assert all(len(each) == 1 for each in (REAP, keeper.FIRST, keeper.MORE))


def test_a_pipe_that_is_empty_is_drained() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    keeper.drain(reading)
    os.write(writing, b"xyz")
    keeper.drain(reading)
    assert not is_readable(reading, 0)
    os.close(reading)
    os.close(writing)


def test_a_worker_ends_with_its_keeper_whatever_it_does() -> None:
    """It would go on making a container for which the clean-up has been already."""
    reading, writing = os.pipe()
    killed = os.fork()
    if not killed:
        it = os.getpid()
        worker = os.fork()
        if not worker:
            keeper.end_with(it)
            os.write(writing, b"%d" % os.getpid())
            while True:
                pass  # it looks at nothing
        signal.pause()
    worker = os.pidfd_open(int(os.read(reading, 20)))
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    try:
        assert is_readable(worker, 5)
    finally:
        if not is_readable(worker, 0):
            signal.pidfd_send_signal(worker, signal.SIGKILL)
        for fd in (reading, writing, worker):
            os.close(fd)


def test_a_worker_whose_keeper_has_ended_already_ends() -> None:
    pid = os.fork()
    if not pid:
        keeper.end_with(1 << 22)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
