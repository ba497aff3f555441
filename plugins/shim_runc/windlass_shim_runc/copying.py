"""Copies from one descriptor to another: pipe to pipe is spliced, terminals and appended files are read and written."""

from __future__ import annotations

import os
import stat

from windlass_shim_runc.loop import Loop

SPLICE_CHUNK = 1 << 20
READ_CHUNK = 16 << 10


async def move(loop: Loop, source: int, target: int) -> None:
    """Copy until either end is closed; the task rests while there is nothing to copy."""
    pipes = all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in (source, target))
    try:
        await (_splice(loop, source, target) if pipes else _read_and_write(loop, source, target))
    except OSError:
        # EIO: the last process has closed the terminal. EPIPE: the process has closed its input.
        # ENOSPC on a log file ends its copy; the process gets EPIPE rather than blocking for ever.
        return


async def _splice(loop: Loop, source: int, target: int) -> None:
    while True:
        await loop.readable(source, rests=True)
        try:
            if not os.splice(source, target, SPLICE_CHUNK, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK):
                return
        except BlockingIOError:
            await loop.writable(target)


async def _read_and_write(loop: Loop, source: int, target: int) -> None:
    while True:
        await loop.readable(source, rests=True)
        try:
            data = memoryview(os.read(source, READ_CHUNK))
        except BlockingIOError:
            continue
        if not data:
            return
        while data:
            try:
                data = data[os.write(target, data) :]
            except BlockingIOError:
                await loop.writable(target)
