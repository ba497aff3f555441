"""The streams of a container's main process: into its log, and to clients that are attached."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial

from windlass.contracts.tasks import IO
from windlass.errors import Unknown
from windlass_cri.containers.logs import Lines, LogFile
from windlass_cri.containers.peeking import peek, take
from windlass_local.fifos import Fifos
from windlass_local.waiting import settled
from windlass_streaming.channel import Channel

logger = logging.getLogger(__name__)

CHUNK = 64 << 10
PATIENCE = 10.0
"""Seconds that an attached client may keep others waiting before it is detached."""


def _read(fd: int) -> bytes:
    return os.read(fd, CHUNK)


async def chunks(
    fd: int, look: asyncio.Event | None = None, read: Callable[[int], bytes] = _read
) -> AsyncIterator[bytes]:
    """Yield what comes through a FIFO, until its last writer has closed it; before the first there is no end.

    ``look`` is set when there will be no first writer any more: then a FIFO without one is at its end.
    """
    loop = asyncio.get_running_loop()
    ready = look or asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        while True:
            await ready.wait()
            try:
                data = read(fd)
            except BlockingIOError:
                ready.clear()
                continue
            if not data:
                return
            yield data
    finally:
        loop.remove_reader(fd)


async def write_all(fd: int, data: bytes) -> None:
    """Write to a FIFO as fast as its reader reads. Raises OSError."""
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            ready = asyncio.Event()
            loop.add_writer(fd, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_writer(fd)


class Attached:
    """A client that sees what the process writes."""

    def __init__(self) -> None:
        """See nothing yet."""
        self.stdout = Channel()
        self.stderr = Channel()

    def end(self) -> None:
        """Nothing more comes."""
        self.stdout.end()
        self.stderr.end()


class ProcessIO:
    """Reads a process's streams until they end. Owns the FIFOs' descriptors and the log."""

    def __init__(self, fifos: Fifos, log: LogFile | None, limit: int) -> None:
        """Read ``fifos`` into ``log``, with lines split after ``limit`` bytes."""
        self._fifos = fifos
        self._log = log
        self._limit = limit
        self._attached: set[Attached] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()
        self._looks = {stream: asyncio.Event() for stream in ("stdout", "stderr") if stream in fifos.descriptors}
        self.stdin = fifos.descriptors.get("stdin", -1)
        """Where to write for the process, -1 for nowhere."""

    def start(self) -> None:
        """Begin to read."""
        for stream, look in self._looks.items():
            self._tasks.append(asyncio.create_task(self._pump(stream, look)))

    async def _pump(self, stream: str, look: asyncio.Event) -> None:
        lines = Lines(stream, self._limit)
        try:
            fd = self._fifos.descriptors[stream]
            async for data in chunks(fd, look, peek):
                # A daemon that stops meanwhile finishes this: else its successor would find the bytes, too.
                await settled(self._write(lines.feed(data), partial(take, fd, len(data))))
                for client in list(self._attached):
                    await self._send(client, stream, data)
        finally:
            await self._write(lines.end())

    async def _write(self, entries: bytes, done: Callable[[], None] = lambda: None) -> None:
        """Append to the log, and then call ``done`` at once: a daemon may be killed at any moment."""
        if self._log is None or not entries:
            done()
            return
        async with self._turn:  # both streams, whole lines; and reopening
            await asyncio.to_thread(self._append, self._log, entries, done)

    @staticmethod
    def _append(log: LogFile, entries: bytes, done: Callable[[], None]) -> None:
        log.append(entries)
        done()

    async def _send(self, client: Attached, stream: str, data: bytes) -> None:
        channel = client.stderr if stream == "stderr" else client.stdout
        try:
            async with asyncio.timeout(PATIENCE):
                await channel.put(data)
        except TimeoutError:
            self.detach(client)

    def attach(self) -> Attached:
        """Let a client see what comes from now on."""
        client = Attached()
        if all(task.done() for task in self._tasks):
            client.end()
        else:
            self._attached.add(client)
        return client

    def detach(self, client: Attached) -> None:
        """Let a client see no more."""
        client.end()
        self._attached.discard(client)

    def close_stdin(self) -> None:
        """Write no more to the process."""
        if self.stdin >= 0:
            os.close(self._fifos.descriptors.pop("stdin"))
            self.stdin = -1

    async def reopen_log(self) -> None:
        """Go on in a new log file. Raises Unknown; then the old one is used."""
        if self._log is None:
            return
        try:
            async with self._turn:
                await asyncio.to_thread(self._log.reopen)
        except OSError as error:
            raise Unknown(f"the log of the container cannot be reopened: {error}") from error

    def process_has_ended(self) -> None:
        """Expect no further writer.

        Linux tells of the last writer's end only those who had the FIFO open; a daemon that was away would wait for
        ever.
        """
        for look in self._looks.values():
            look.set()

    async def drained(self, patience: float | None = None) -> bool:
        """Return when both streams have ended and all of it is in the log; False if they do not within ``patience``."""
        if not self._tasks:
            return True
        _, pending = await asyncio.wait(self._tasks, timeout=patience)
        return not pending

    @property
    def io(self) -> IO:
        """What the task's creation names."""
        return self._fifos.io

    async def let_go(self) -> None:
        """Read no more, and leave the FIFOs for the next daemon."""
        self._fifos.directory = ""
        await self.close()

    async def close(self) -> None:
        """Read no more, and release everything."""
        for task in self._tasks:
            task.cancel()
        await self.drained()
        for client in list(self._attached):
            self.detach(client)
        with suppress(OSError):
            self._fifos.close()
        if self._log is not None:
            self._log.close()
