"""The keeper: whatever a worker leaves reaches the next one, and it ends when the last one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from polling import is_readable
from shim_runc.early_signal import STOPPED
from shim_runc.fake_worker import PIPES, STATE

from windlass_shim_runc.keeper import Handover, KeeperLine
from windlass_zygote.spawner import ForkingZygote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="subreapers and pidfds are Linux's")


def test_much_is_left_as_whole_as_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More descriptors and more bytes than a packet holds, twice; then the shim ends."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    log, zygote = tmp_path / "log", ForkingZygote()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        listener.listen()
        child = zygote.spawn("shim_runc.fake_worker:serve", [str(log)], [listener.fileno()])
        try:
            for lines in (1, 2, 3):
                deadline = time.monotonic() + 10
                while not log.exists() or log.read_bytes().count(b"\n") < lines:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                if lines < 3:
                    with socket.socket(socket.AF_UNIX) as client:
                        client.connect(str(tmp_path / "s.sock"))
            assert is_readable(child.pidfd, 5)
        finally:
            os.close(child.pidfd)
            zygote.close()
    assert log.read_bytes() == b"first\n" + b"next %d %d\n" % (PIPES, len(STATE) + 1) * 2


def test_what_is_not_open_is_not_packed() -> None:
    """So that a worker that would lose something does not leave."""
    handover = Handover()
    reading, writing = os.pipe()
    os.close(writing)
    assert handover.put(-1) == 0
    assert handover.put(reading, watched=True) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        handover.put(writing)
    assert (handover.descriptors, handover.watched, handover.take(1), handover.take(0)) == ([reading], [1], reading, -1)
    os.close(reading)


def test_more_than_the_keeper_takes_is_refused_before_anything_is_sent() -> None:
    """A worker with tens of thousands of execs goes on serving."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    handover = Handover()
    handover.pids = list(range(20000))
    with ours, theirs:
        ours.setblocking(False)
        with pytest.raises(OSError, match="more than a keeper takes"):
            KeeperLine(theirs, Handover()).hand_over(handover)
        with pytest.raises(BlockingIOError):
            ours.recv(1)


def test_a_signal_that_comes_while_a_worker_is_forked_reaches_it() -> None:
    """A worker may have answered its first call before the keeper knows its pid."""
    program = Path(__file__).with_name("early_signal.py")
    assert subprocess.run([sys.executable, program], timeout=20, check=False).returncode == STOPPED
