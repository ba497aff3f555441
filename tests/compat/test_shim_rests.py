"""A shim at rest: one small process, which is there again with all that it knew when anything happens."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from polling import is_readable
from shim_runc.harness import ALWAYS_RESTING, Client, Shim, shims

from windlass import errors
from windlass_conformance.boxes import BUSYBOX
from windlass_shim_runc import messages
from windlass_shim_runc.leftovers import clean
from windlass_shim_runc.messages import Message

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: apt install runc"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="a static busybox is missing: apt install busybox-static"),
]


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shim]:
    """A shim that rests whenever it can."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    with shims(tmp_path, ALWAYS_RESTING) as make:
        yield make()


@pytest.fixture
def cat(shim: Shim) -> Iterator[tuple[int, int]]:
    """A container that says what it is told, at rest; the ends of its input and output."""
    # Any: fields of the request
    names: dict[str, Any] = {name: shim.fifo(name) for name in ("stdin", "stdout")}
    out = os.open(names["stdout"], os.O_RDONLY | os.O_NONBLOCK)
    shim.create(["/bin/cat"], **names)
    shim.start()
    into = os.open(names["stdin"], os.O_WRONLY)
    shim.rest()
    yield into, out
    os.close(out)


def heard(fd: int) -> bytes:
    """Return what comes next."""
    assert is_readable(fd, 10)
    return os.read(fd, 4096)


def test_a_shim_without_container_does_not_rest(shim: Shim) -> None:
    """It is about to be used, or to end."""
    time.sleep(0.1)
    assert shim.workers()


def test_its_pid_and_its_container_stay_the_same(shim: Shim) -> None:
    """Whatever is asked is answered as before, by another process each time."""
    pid = shim.create(["/bin/sleep", "1000"])
    shim.rest()
    assert shim.status().status == 1
    shim.rest()
    assert shim.start() == pid
    shim.rest()
    answer = shim.call(messages.ConnectResponse, "Connect", messages.TaskRequest(id=shim.id))
    assert (answer.shim_pid, answer.task_pid) == (shim.child.pid, pid)
    assert shim.status().status == 2
    assert shim.status().bundle == str(shim.bundle)


def test_who_waited_before_is_answered_at_the_exit(shim: Shim) -> None:
    """On the connection of then, with the status and one exit event."""
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    clients = [Client(str(shim.socket_path)) for _ in range(3)]
    streams = [client.send("Wait", messages.ProcessRequest(id=shim.id)) for client in clients]
    shim.status()
    shim.rest()
    shim.kill(9)
    for client, stream in zip(clients, streams, strict=True):
        assert messages.decode(messages.WaitResponse, client.receive(stream).payload).exit_status == 137
        client.close()
    shim.sink.wait_for("/tasks/exit")
    shim.delete()
    shim.sink.wait_for("/tasks/delete")
    assert shim.sink.topics == ["create", "start", "exit", "delete"]


def test_a_container_that_ends_by_itself_is_noticed(shim: Shim) -> None:
    """Nobody need ask for it."""
    shim.create(["/bin/sleep", "0.5"])
    shim.start()
    shim.rest()
    shim.sink.wait_for("/tasks/exit")
    shim.rest()
    assert shim.wait() == 0


def test_an_orphan_that_nobody_waits_for_is_reaped_at_rest(shim: Shim) -> None:
    """Of a container with the host's pids, say: no zombie stays, and no worker is made for it."""
    shim.create(["/bin/sh", "-c", "(sleep 0.4 &); exec sleep 1000"])
    shim.start()
    shim.rest()
    time.sleep(0.6)
    assert not shim.workers()


def test_streams_go_on_in_both_directions(shim: Shim, cat: tuple[int, int]) -> None:
    """Data, pauses, and the end of the input, which CloseIO and the last writer make together."""
    into, out = cat
    for word in (b"one", b"two", b"three"):
        os.write(into, word)
        assert heard(out) == word
        shim.rest()
    shim.call(Message, "CloseIO", messages.CloseIORequest(id=shim.id, stdin=True))
    shim.rest()
    os.close(into)
    assert shim.wait() == 0
    shim.delete()
    assert heard(out) == b""


def test_a_terminal_goes_on(shim: Shim) -> None:
    """What is typed reaches it, and its size can be changed."""
    stdin, out = shim.fifo("in"), shim.fifo("out")
    reading = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    shim.create(["/bin/sh"], terminal=True, stdin=stdin, stdout=out)
    shim.start()
    with open(stdin, "wb", buffering=0) as file:
        assert heard(reading)
        shim.rest()
        shim.call(Message, "ResizePty", messages.ResizePtyRequest(id=shim.id, width=101, height=37))
        shim.rest()
        file.write(b"stty size; exit 5\n")
        assert shim.wait() == 5
    said = b""
    while b"37 101" not in said:
        said += heard(reading)
    os.close(reading)


def test_execs_are_remembered_in_every_state(shim: Shim) -> None:
    """Added, running, ended: each can be acted on, and an ID that is taken stays taken."""
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    for name in ("added", "runs", "ended"):
        shim.exec(name, ["/bin/sh", "-c", "exit 3"] if name == "ended" else ["/bin/sleep", "1000"])
        shim.rest()
    shim.start("runs")
    shim.start("ended")
    assert shim.wait("ended") == 3
    shim.rest()
    assert [shim.status(name).status for name in ("added", "runs", "ended")] == [1, 2, 3]
    with pytest.raises(errors.AlreadyExists):
        shim.exec("added", ["/bin/true"])
    assert shim.delete("ended").exit_status == 3
    shim.start("added")
    shim.rest()
    for name in ("added", "runs"):
        shim.kill(9, name)
        assert shim.wait(name) == 137
    assert shim.status().status == 2


def test_a_paused_container_stays_paused(shim: Shim) -> None:
    """And is resumed by another worker."""
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    shim.call(Message, "Pause", messages.TaskRequest(id=shim.id))
    shim.rest()
    assert shim.status().status == 4
    shim.call(Message, "Resume", messages.TaskRequest(id=shim.id))
    shim.rest()
    assert shim.status().status == 2


def test_a_client_in_the_middle_of_a_frame_is_not_cut_off(shim: Shim) -> None:
    """What it has sent so far is not lost."""
    shim.create(["/bin/sleep", "1000"])
    frame = bytearray()
    other = Client(str(shim.socket_path))
    real, other.socket = other.socket, type("Recorder", (), {"sendall": staticmethod(frame.extend)})()
    stream = other.send("State", messages.ProcessRequest(id=shim.id))
    other.socket = real
    real.sendall(frame[:15])
    time.sleep(0.2)
    real.sendall(frame[15:])
    assert other.receive(stream).code == 0
    other.close()


def test_stop_signals_leave_a_resting_shim_alone(shim: Shim) -> None:
    """A service manager that stops the daemon signals its whole group."""
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    shim.rest()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(shim.child.pid, number)
    assert shim.status().status == 2


def test_a_stop_signal_ends_one_without_container(shim: Shim) -> None:
    """Its worker's is its own end."""
    shim.call(messages.ConnectResponse, "Connect", messages.TaskRequest(id="x"))
    os.kill(shim.child.pid, signal.SIGTERM)
    assert is_readable(shim.child.pidfd, 5)


@pytest.mark.parametrize("victim", ["keeper", "worker"])
def test_neither_survives_the_other(shim: Shim, victim: str) -> None:
    """A shim that has lost its mind or its hands is dead as a whole, and the daemon sees it."""
    shim.create(["/bin/yes"], stdout=shim.fifo("out"))
    shim.start()
    time.sleep(0.2)
    (worker,) = shim.workers()  # which waits for a reader now
    os.kill(worker if victim == "worker" else shim.child.pid, 9)
    assert is_readable(shim.child.pidfd, 5)
    pidfd = None
    try:
        pidfd = os.pidfd_open(worker)
        assert is_readable(pidfd, 5)
    except ProcessLookupError:
        pass
    finally:
        if pidfd is not None:
            os.close(pidfd)
    assert clean((str(shim.bundle), shim.namespace, shim.id), ()) == 0


def test_many_at_once_wake_one_worker(shim: Shim) -> None:
    """All are answered."""
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    shim.rest()
    answers: list[int] = []

    def ask() -> None:
        client = Client(str(shim.socket_path))
        for _ in range(20):
            request = messages.ProcessRequest(id=shim.id)
            answers.append(client.call(messages.StateResponse, "State", request).status)
        client.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [2] * 160


def test_one_that_is_called_often_stays_awake(tmp_path: Path) -> None:
    """Who asks, or says, something every few seconds does not pay for a fork each time."""
    with shims(tmp_path) as make:
        shim = make()
        shim.create(["/bin/sleep", "1000"])
        shim.start()
        shim.rest()
        shim.status()
        (worker,) = shim.workers()
        time.sleep(1.5)
        assert shim.workers() == [worker]
