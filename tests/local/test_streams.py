"""The pipes of a process, and the threads that carry its bytes."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from windlass_local import fifos
from windlass_local.pump import Pump


def test_fifos_are_made_and_removed(tmp_path: Path) -> None:
    """A directory that only we may enter, a pipe per stream, none for the stderr of a terminal."""
    with fifos.make("c1", stdin=True, terminal=False, parent=str(tmp_path)) as streams:
        assert stat.S_IMODE(os.stat(streams.directory).st_mode) == 0o700
        assert sorted(os.listdir(streams.directory)) == ["c1-stderr", "c1-stdin", "c1-stdout"]
        assert stat.S_ISFIFO(os.stat(streams.stdout).st_mode)
    assert os.listdir(tmp_path) == []

    with fifos.make("c1", stdin=False, terminal=True, parent=str(tmp_path)) as streams:
        assert (streams.stdin, streams.stderr) == ("", "")
        assert list(streams.descriptors) == ["stdout"]


async def test_a_pump_waits_for_the_first_writer_and_ends_with_the_last(tmp_path: Path) -> None:
    """A FIFO that nobody has opened yet is not at its end."""
    read, write = os.pipe()
    streams = fifos.make("c1", stdin=False, terminal=True, parent=str(tmp_path))
    fifo = streams.take("stdout")
    pump = Pump(fifo, write, fifo)
    await asyncio.sleep(0.05)

    writer = os.open(streams.stdout, os.O_WRONLY)
    os.write(writer, b"hello")
    os.close(writer)
    await pump.drained()

    assert os.read(read, 100) == b"hello"
    os.close(read)
    os.close(write)
    streams.close()


async def test_a_pump_whose_reader_left_tells_and_drains(tmp_path: Path) -> None:
    """The process must not block on output that nobody will ever read."""
    read, write = os.pipe()
    os.close(read)
    told: list[str] = []
    streams = fifos.make("c1", stdin=False, terminal=True, parent=str(tmp_path))
    fifo = streams.take("stdout")
    pump = Pump(fifo, write, fifo, broken=lambda: told.append("broken"))

    writer = os.open(streams.stdout, os.O_WRONLY)
    for _ in range(4):
        await asyncio.to_thread(os.write, writer, b"x" * 60_000)
    os.close(writer)
    await pump.drained()

    assert told == ["broken"]
    os.close(write)
    streams.close()


async def test_a_pump_that_is_closed_while_it_copies_keeps_no_descriptor(tmp_path: Path) -> None:
    """Its thread is in a write that blocks when it is closed, and releases the rest when it leaves."""
    read, write = os.pipe()
    streams = fifos.make("c1", stdin=False, terminal=True, parent=str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    fifo = streams.take("stdout")
    pump = Pump(fifo, write, fifo)
    writer = os.open(streams.stdout, os.O_WRONLY)
    for _ in range(3):  # more than the destination takes
        await asyncio.to_thread(os.write, writer, b"x" * 40_000)
    os.close(writer)
    pump.close()
    os.close(read)  # what it writes fails now

    async with asyncio.timeout(20):
        while len(os.listdir("/proc/self/fd")) > before - 2:  # the FIFO, and the reader that is closed here
            await asyncio.sleep(0.01)
    os.close(write)
    streams.close()
