"""Threads that carry bytes between FIFOs and other descriptors, such as our own standard streams.

Threads, because our standard streams are shared with the program that started us: non-blocking ones would break the
shell, and the event loop cannot wait for a regular file.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import Callable

CHUNK = 1 << 16
IDLE = 5.0
"""How long an output may stay silent after the process's end before it is given up."""


class Pump:
    """Copies from ``source`` to ``destination`` until the end of input or `stop`; owns the one that is a FIFO.

    ``finished`` is called in the thread at the end of input, ``broken`` when the destination has no reader any more.
    ``intercept`` gets what was read and returns what is to be written.
    """

    def __init__(
        self,
        source: int,
        destination: int,
        fifo: int,
        *,
        finished: Callable[[], None] = lambda: None,
        broken: Callable[[], None] = lambda: None,
        intercept: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._source = source
        self._destination = destination
        self._fifo = fifo
        self._finished = finished
        self._broken = broken
        self._intercept = intercept
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._waiting_since = 0.0
        self._lock = threading.Lock()
        self._closed = self._left = False
        self._thread = threading.Thread(target=self._run, name="windlass-pump", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Make the thread leave as soon as it waits for something."""
        with self._lock:
            if self._waker >= 0:
                os.write(self._waker, b"x")

    async def drained(self) -> None:
        """Wait until everything is copied; an input that stays silent and open is given up after a while."""
        while self._thread.is_alive():
            since = self._waiting_since
            if since and time.monotonic() - since > IDLE:
                self.stop()
            await asyncio.to_thread(self._thread.join, 0.2)
        self.close()

    def close(self) -> None:
        """Stop the thread; what wakes it is released now, or when it has left."""
        self.stop()
        with self._lock:
            self._closed = True
            if self._left:
                self._release()

    def _release(self) -> None:
        """Close what wakes the thread; the last of `close` and the thread's end does it."""
        if self._waker >= 0:
            os.close(self._wake)
            os.close(self._waker)
            self._wake = self._waker = -1

    def _run(self) -> None:
        try:
            while data := self._read():
                try:
                    self._write(self._intercept(data) if self._intercept else data)
                except OSError:
                    self._broken()
                    self._discard()
                    return
            self._finished()
        except OSError:
            pass  # our own input cannot be read: a terminal that hung up
        finally:
            os.close(self._fifo)
            with self._lock:
                self._left = True
                if self._closed:
                    self._release()

    def _discard(self) -> None:
        # The shim holds both ends of an output's FIFO, so that a process whose output stays there blocks for ever.
        if self._source == self._fifo:
            while self._read():
                pass

    def _wait(self, descriptor: int, events: int) -> bool:
        poll = select.poll()
        poll.register(descriptor, events)
        poll.register(self._wake, select.POLLIN)
        return all(ready != self._wake for ready, _ in poll.poll())

    def _read(self) -> bytes:
        # A FIFO that no writer has opened yet reads as ended; poll(2) waits for the first writer.
        while True:
            self._waiting_since = time.monotonic()
            if not self._wait(self._source, select.POLLIN):
                return b""
            self._waiting_since = 0.0
            try:
                return os.read(self._source, CHUNK)
            except BlockingIOError:
                pass  # another process, which shares our standard input, was quicker

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._destination, rest) :]
            except BlockingIOError:
                if not self._wait(self._destination, select.POLLOUT):
                    return
