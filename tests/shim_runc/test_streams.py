"""The standard streams of a process, without a process: what is opened, copied, left and closed."""

from __future__ import annotations

import os
import pty
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from polling import is_readable
from shim_runc.fake_runtime import Parts

from windlass import errors
from windlass_shim_runc import console, logger, messages, records
from windlass_shim_runc.keeper import Handover
from windlass_shim_runc.streams import Streams

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="splice and pseudo-terminals are Linux's")

NOBODY = (-1, -1)


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Each test closes what it opens."""
    before = os.listdir("/proc/self/fd")
    yield
    # The shim's parts are there still.
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 3


def streams(parts: Parts, stdin: str = "", stdout: str = "", stderr: str = "", terminal: bool = False) -> Streams:
    """Return streams that nothing has been opened of."""
    return Streams(parts.loop, parts.reaper, (stdin, stdout, stderr, terminal))


def fifo(path: Path) -> str:
    """Make a FIFO."""
    os.mkfifo(path)
    return str(path)


def test_outputs_reach_their_fifos(parted: Parts, tmp_path: Path) -> None:
    """Each its own, to the last byte; the end of the process is the end of the copy."""
    out, err = fifo(tmp_path / "out"), fifo(tmp_path / "err")
    readers = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in (out, err)]
    made = streams(parted, stdout=out, stderr=err)

    async def live() -> None:
        child = dict(await made.prepare(str(tmp_path), NOBODY, {}))
        assert sorted(child) == [1, 2]
        os.write(child[1], b"said")
        os.write(child[2], b"complained")
        await made.begin()
        await made.drain(5)
        made.close()

    parted.run(live())
    assert [os.read(fd, 100) for fd in readers] == [b"said", b"complained"]
    for fd in readers:
        os.close(fd)


def test_output_that_is_not_read_is_an_end_with_a_deadline(parted: Parts, tmp_path: Path) -> None:
    """A full FIFO does not keep a container from being deleted."""
    made = streams(parted, stdout=fifo(tmp_path / "out"))

    async def live() -> None:
        child = await made.prepare(str(tmp_path), NOBODY, {})
        holding = os.dup(child[1])
        await made.begin()
        with pytest.raises(TimeoutError):
            await made.drain(0.05)
        made.close()
        os.close(holding)

    parted.run(live())


def test_both_outputs_may_go_to_one_file(parted: Parts, tmp_path: Path) -> None:
    """It is appended to, and made with the directories above it."""
    log = tmp_path / "logs" / "box.log"
    made = streams(parted, stdout=f"file://{log}", stderr=f"file://{log}")

    async def live() -> None:
        child = await made.prepare(str(tmp_path), NOBODY, {})
        os.write(child[1], b"one ")
        await made.begin()
        await made.drain(5)
        made.close()

    parted.run(live())
    parted.run(live())
    assert log.read_bytes() == b"one one "


def test_input_has_no_reader_before_the_start(parted: Parts, tmp_path: Path) -> None:
    """And ends when all writers are gone and CloseIO has come, in whichever order."""
    path = fifo(tmp_path / "in")
    made = streams(parted, stdin=path)

    async def live() -> None:
        child = await made.prepare(str(tmp_path), NOBODY, {})
        process = os.dup(child[0])
        await made.begin()
        with pytest.raises(OSError, match="No such device"):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        made.close_stdin()
        writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        made.begin_input()
        os.write(writer, b"word")
        await parted.loop.readable(process, 5)
        assert os.read(process, 10) == b"word"
        os.close(writer)
        await parted.loop.readable(process, 5)
        assert os.read(process, 10) == b""
        os.close(process)
        made.close()

    parted.run(live())


def test_input_goes_on_while_a_writer_comes_and_goes(parted: Parts, tmp_path: Path) -> None:
    """Until CloseIO another client may attach."""
    path = fifo(tmp_path / "in")
    made = streams(parted, stdin=path)

    async def live() -> None:
        child = await made.prepare(str(tmp_path), NOBODY, {})
        process = os.dup(child[0])
        await made.begin()
        made.begin_input()
        for word in (b"one", b"two"):
            writer = os.open(path, os.O_WRONLY)
            os.write(writer, word)
            os.close(writer)
            await parted.loop.readable(process, 5)
            assert os.read(process, 10) == word
        assert not is_readable(process, 0.05)
        made.close()
        assert os.read(process, 10) == b""
        os.close(process)

    parted.run(live())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("relative", "", ""), "stdin 'relative' is not an absolute path"),
        (("/dev/null", "", ""), "stdin /dev/null is not a FIFO"),
        (("", "/no/such", ""), "cannot open stdout /no/such: No such file or directory"),
        (("", "", "/dev/null"), "stderr /dev/null is neither a FIFO nor a regular file"),
        (("", "file:relative", ""), "log file 'relative' is not an absolute path; write file:///path"),
        (("", "binary:relative", ""), "logger 'relative' is not an absolute path; write binary:///path"),
        (("", "binary:///no/such", ""), "logger /no/such cannot be executed"),
    ],
)
def test_what_cannot_be_opened_is_refused_by_name(
    parted: Parts, tmp_path: Path, names: tuple[str, str, str], words: str
) -> None:
    """With nothing left open."""
    made = streams(parted, *names)

    async def live() -> None:
        with pytest.raises(errors.Error, match=words):
            await made.prepare(str(tmp_path), NOBODY, {})
        await made.ended()

    parted.run(live())
    assert made._open == set()


def send_master(path: str, master: int) -> None:
    """Do what an OCI runtime does with a terminal."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        socket.send_fds(sock, [b"/dev/ptmx"], [master])


def test_a_terminal_is_copied_both_ways_and_has_the_size_asked_for(parted: Parts, tmp_path: Path) -> None:
    """Also a size that was asked for before there was a terminal."""
    stdin, out = fifo(tmp_path / "in"), fifo(tmp_path / "out")
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    made = streams(parted, stdin=stdin, stdout=out, terminal=True)
    master, process = pty.openpty()

    async def live() -> None:
        made.resize(101, 37)
        assert dict(await made.prepare(str(tmp_path), NOBODY, {})) == {}
        assert made.console is not None
        send_master(made.console.path, master)
        await made.begin()
        assert os.get_terminal_size(process) == (101, 37)
        made.begin_input()
        made.resize(80, 25)
        assert os.get_terminal_size(process) == (80, 25)
        os.write(process, b"prompt")
        await parted.loop.readable(reader, 5)
        assert os.read(reader, 100) == b"prompt"
        writer = os.open(stdin, os.O_WRONLY)
        os.write(writer, b"typed\n")
        await parted.loop.readable(process, 5)
        assert os.read(process, 100) == b"typed\n"
        os.close(writer)
        made.close()

    parted.run(live())
    assert not list(tmp_path.glob("console-*"))
    for fd in (reader, master, process):
        os.close(fd)


def test_a_runtime_that_sends_no_terminal_is_an_error(
    parted: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "TIMEOUT", 0.05)
    made = streams(parted, terminal=True)

    async def live() -> None:
        await made.prepare(str(tmp_path), NOBODY, {})
        with pytest.raises(errors.DeadlineExceeded, match="the OCI runtime sent no terminal in 0 s"):
            await made.begin()
        made.close()

    parted.run(live())


LOGGER = """#!/bin/sh
echo "$CONTAINER_ID $CONTAINER_NAMESPACE $*" >$0.log
exec 5>&-
cat <&3 >>$0.log
sleep 0.2
cat <&4 >>$0.log
"""


def script(path: Path, text: str) -> str:
    """Write a program."""
    path.write_text(text)
    path.chmod(0o755)
    return f"binary://{path}?key=value"


def test_a_logger_gets_arguments_environment_and_both_outputs(parted: Parts, tmp_path: Path) -> None:
    """It reads by itself, to the end, also when it is slow."""
    made = streams(parted, stdout=script(tmp_path / "logger", LOGGER))

    async def live() -> None:
        environment = {"CONTAINER_ID": "box", "CONTAINER_NAMESPACE": "ns", "PATH": os.environ["PATH"]}
        child = await made.prepare(str(tmp_path), NOBODY, environment)
        os.write(child[1], b"said\n")
        os.write(child[2], b"complained\n")
        await made.begin()
        made.close()
        await made.ended()

    parted.run(live())
    assert (tmp_path / "logger.log").read_text() == "box ns key value\nsaid\ncomplained\n"


@pytest.mark.parametrize(("scheme", "is_fine"), [("binary", True), ("binary-v2", False)])
def test_a_logger_that_ends_at_once_is_an_error_of_the_strict_scheme(
    parted: Parts, tmp_path: Path, scheme: str, is_fine: bool
) -> None:
    """The older one cannot tell it from one that is ready."""
    made = streams(parted, stdout=script(tmp_path / "logger", "#!/bin/sh\nexit 1\n").replace("binary", scheme, 1))

    async def live() -> None:
        if is_fine:
            await made.prepare(str(tmp_path), NOBODY, {})
        else:
            with pytest.raises(errors.Error, match="ended before it was ready"):
                await made.prepare(str(tmp_path), NOBODY, {})
        made.close()
        await made.ended()

    parted.run(live())


def test_a_logger_that_goes_on_is_killed(parted: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not outlive its container."""
    monkeypatch.setattr(logger, "STOP_TIMEOUT", 0.1)
    monkeypatch.setattr(logger, "END_TIMEOUT", 0.1)
    stubborn = "#!/bin/sh\ntrap '' TERM\nexec 5>&-\nwhile :; do sleep 0.05; done\n"
    made = streams(parted, stdout=script(tmp_path / "logger", stubborn))

    async def live() -> None:
        await made.prepare(str(tmp_path), NOBODY, {"PATH": os.environ["PATH"]})
        assert made._logger is not None
        pid = made._logger.pid
        made.close()
        await made.ended()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    parted.run(live())


def test_streams_at_rest_are_recorded_and_taken_over(parted: Parts, tmp_path: Path) -> None:
    """What is written before and after reaches the same reader; an input that has not begun is begun by the next."""
    stdin, out = fifo(tmp_path / "in"), fifo(tmp_path / "out")
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    made, later = streams(parted, stdin=stdin, stdout=out), streams(parted, stdin=stdin, stdout=out)

    async def live() -> None:
        child = await made.prepare(str(tmp_path), NOBODY, {})
        writing, process = os.dup(child[1]), os.dup(child[0])
        await made.begin()
        handover = Handover()
        record = made.to_record(handover)
        handover.descriptors = [os.dup(fd) for fd in handover.descriptors]
        made.close()
        later.take_over(handover, messages.decode(records.StreamsRecord, record.encode()))
        os.write(writing, b"after")
        await parted.loop.readable(reader, 5)
        assert os.read(reader, 100) == b"after"
        later.begin_input()
        feeding = os.open(stdin, os.O_WRONLY)
        os.write(feeding, b"word")
        await parted.loop.readable(process, 5)
        assert os.read(process, 100) == b"word"
        os.close(feeding)
        os.close(writing)
        await later.drain(5)
        later.close()
        os.close(process)

    parted.run(live())
    os.close(reader)


def test_a_gigabyte_is_not_needed_to_fill_a_pipe(parted: Parts, tmp_path: Path) -> None:
    """What does not fit waits, in order, until it is read."""
    out = fifo(tmp_path / "out")
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    made = streams(parted, stdout=out)
    data = b"".join(b"%07d\n" % at for at in range(1 << 16))
    found = bytearray()

    def read() -> None:
        while len(found) < len(data):
            found.extend(os.read(reader, 1 << 16))

    async def live() -> None:
        child = await made.prepare(str(tmp_path), NOBODY, {})
        writing = os.dup(child[1])
        await made.begin()
        threads = [threading.Thread(target=read), threading.Thread(target=write, args=[writing, data])]
        for thread in threads:
            thread.start()
        await made.drain(20)
        for thread in threads:
            thread.join()
        made.close()

    parted.run(live(), 30)
    assert bytes(found) == data
    os.close(reader)


def write(fd: int, data: bytes) -> None:
    """Write all, then close."""
    while data:
        data = data[os.write(fd, data) :]
    os.close(fd)
