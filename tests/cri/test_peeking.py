"""What is in a FIFO stays there until it is in the log."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass_cri.containers.logs import LogFile
from windlass_cri.containers.peeking import peek, take
from windlass_cri.containers.processio import ProcessIO
from windlass_local.fifos import Fifos


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    yield ends
    for end in ends:
        os.close(end)


def test_a_look_takes_nothing(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with pytest.raises(BlockingIOError):
        peek(reader)
    for part in (b"a" * 5000, b"b" * 50_000):
        os.write(writer, part)
    seen = peek(reader)
    assert seen == peek(reader) == b"a" * 5000 + b"b" * 50_000
    take(reader, 4000)
    assert peek(reader) == seen[4000:]
    take(reader, len(seen) - 4000)
    with pytest.raises(BlockingIOError):
        peek(reader)


class Stuck(LogFile):
    """A log whose disk does not answer for a while."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked, self.may_go_on = threading.Event(), threading.Event()

    def write(self, data: bytes) -> None:
        self.asked.set()
        self.may_go_on.wait(20)
        super().write(data)


async def test_until_it_is_in_the_log_output_stays_in_its_fifo(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(writer, b"one\ntwo\n")
    log = Stuck(tmp_path / "log")
    io = ProcessIO(Fifos(descriptors={"stdout": os.open(path, os.O_RDONLY | os.O_NONBLOCK)}), log, 100)
    io.start()
    assert await asyncio.to_thread(log.asked.wait, 20)
    assert peek(writer) == b"one\ntwo\n"  # a daemon that is killed now leaves it for the next
    log.may_go_on.set()
    await io.close()
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert [line.rsplit(b" ", 1)[1] for line in lines] == [b"one", b"two"]
    with pytest.raises(BlockingIOError):
        peek(writer)
    os.close(writer)
