"""A process's streams are read to their end, also by a daemon that came after the end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from windlass_cri.containers.logs import LogFile
from windlass_cri.containers.processio import ProcessIO
from windlass_local import fifos


def opened(tmp_path: Path) -> tuple[ProcessIO, fifos.Fifos, Path]:
    log = tmp_path / "log"
    made = fifos.make("c1", stdin=False, terminal=True, parent=str(tmp_path / "io"))
    return ProcessIO(made, LogFile(log), 16384), made, log


async def test_without_a_writer_the_end_is_seen_once_the_process_has_ended(tmp_path: Path) -> None:
    """Linux tells of the last writer's end only those who were there: a daemon that was not would wait for ever."""
    io, _, _ = opened(tmp_path)
    io.start()
    assert not await io.drained(0.05)
    io.process_has_ended()
    assert await io.drained(10)
    await io.close()


async def test_what_a_writer_still_has_is_not_lost(tmp_path: Path) -> None:
    """The process has ended, and its shim is still copying."""
    io, made, log = opened(tmp_path)
    io.start()
    writer = os.open(made.stdout, os.O_WRONLY)
    try:
        io.process_has_ended()
        assert not await io.drained(0.05)
        os.write(writer, b"last words\n")
        await asyncio.sleep(0.05)
    finally:
        os.close(writer)
    assert await io.drained(10)
    await io.close()
    assert log.read_text().endswith(" stdout F last words\n")
