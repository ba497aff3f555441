"""What a client names as stdio is opened as what it is, and copied until an end closes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from shim_runc.fake_runtime import Parts

from windlass.errors import Error, InvalidArgument
from windlass_shim_runc import copying, files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim runs on Linux only")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def output(path: str) -> int:
    return files.open_output(path, "stdout")


@pytest.mark.parametrize("open_it", [output, files.find_input, files.open_log])
def test_a_path_that_depends_on_the_shim_is_refused(open_it: Callable[[str], int]) -> None:
    """A shim works in no directory that a client knows."""
    with pytest.raises(InvalidArgument, match="'here/out' is not an absolute path"):
        open_it("here/out")


@pytest.mark.parametrize("open_it", [output, files.find_input])
def test_what_is_not_there_is_not_made(tmp_path: Path, open_it: Callable[[str], int]) -> None:
    """The client makes its FIFOs before the task."""
    with pytest.raises(Error, match="No such file or directory; the client makes it before the task"):
        open_it(str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_no_stream_is_refused_and_closed(tmp_path: Path) -> None:
    """A directory is no output, and a file no input."""
    file = tmp_path / "file"
    file.touch()
    before = descriptors()
    with pytest.raises(InvalidArgument, match="is neither a FIFO nor a regular file"):
        output(str(tmp_path))
    with pytest.raises(InvalidArgument, match=r"stdin .*/file is not a FIFO"):
        files.find_input(str(file))
    assert descriptors() == before


def test_output_is_added_to_what_a_file_has(tmp_path: Path) -> None:
    """A task that is started again loses nothing of its log."""
    file = tmp_path / "out"
    file.write_text("before\n")
    fd = output(str(file))
    os.write(fd, b"after\n")
    os.close(fd)
    assert file.read_text() == "before\nafter\n"


def test_an_output_fifo_waits_for_no_reader(tmp_path: Path) -> None:
    """What is written before the client reads is there when it does."""
    fifo = tmp_path / "out"
    os.mkfifo(fifo)
    fd = output(str(fifo))
    os.write(fd, b"early")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 100) == b"early"
    os.close(reader)
    os.close(fd)


def test_input_is_the_fifo_that_was_found(tmp_path: Path) -> None:
    """Whatever happens to its path; and it does not end with one of its writers."""
    fifo = tmp_path / "in"
    os.mkfifo(fifo)
    place = files.find_input(str(fifo))
    fifo.rename(tmp_path / "moved")
    reading, writing = files.open_input(place)
    client = os.open(tmp_path / "moved", os.O_WRONLY)
    os.write(client, b"typed")
    os.close(client)
    assert os.read(reading, 100) == b"typed"
    with pytest.raises(BlockingIOError):
        os.read(reading, 100)
    for fd in (place, reading, writing):
        os.close(fd)


def test_a_log_and_its_directories_are_made(tmp_path: Path) -> None:
    """Others may read it, only we write it."""
    file = tmp_path / "a/b/log"
    os.close(files.open_log(str(file)))
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_log_that_has_no_reader_is_an_error(tmp_path: Path) -> None:
    """A FIFO would hold up the whole shim."""
    os.mkfifo(tmp_path / "log")
    with pytest.raises(OSError, match="No such device"):
        files.open_log(str(tmp_path / "log"))


def test_a_copy_ends_with_what_it_is_copied_from(parted: Parts, tmp_path: Path) -> None:
    """Everything that was written before is in the file then."""
    source, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    target = files.open_log(str(tmp_path / "log"))

    async def write() -> None:
        for part in (b"one ", b"two ", b"three"):
            os.write(writing, part)
            await parted.loop.sleep(0)
        os.close(writing)

    parted.loop.spawn(write())
    parted.run(copying.move(parted.loop, source, target))
    assert (tmp_path / "log").read_bytes() == b"one two three"
    os.close(source)
    os.close(target)


def test_a_copy_into_a_full_pipe_goes_on_when_it_is_read(parted: Parts) -> None:
    """Nothing is lost, in whatever pieces it is read."""
    source, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    reading, target = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(target, bytes(65536))
    os.write(writing, b"last")
    os.close(writing)
    got = b""

    async def read() -> None:
        nonlocal got
        while not got.endswith(b"last"):
            await parted.loop.readable(reading)
            got += os.read(reading, 5000)

    async def both() -> None:
        reader = parted.loop.spawn(read())
        await copying.move(parted.loop, source, target)
        await reader.finished.wait()

    parted.run(both())
    assert got == bytes(65536) + b"last"
    for fd in (source, reading, target):
        os.close(fd)


def test_a_copy_into_what_cannot_be_written_ends(parted: Parts) -> None:
    """The process gets EPIPE, as it would without us, and the shim runs on."""
    source, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(writing, b"text")
    full = os.open("/dev/full", os.O_WRONLY)
    parted.run(copying.move(parted.loop, source, full))
    os.close(source)
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"more")
    os.close(writing)
    os.close(full)
