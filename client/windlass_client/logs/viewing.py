"""Watches a container's output through the socket of its log's program, and writes it to our own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from windlass.errors import FailedPrecondition, NotFound
from windlass_client.logs.viewers import NAME, OWNER

LONGEST = 64 << 10


class View:
    """A connection that a thread reads from, so that a slow terminal holds up no loop."""

    def __init__(self, directory: Path) -> None:
        """Connect; output that comes from now on is shown. Raises FailedPrecondition if nothing runs there."""
        self._socket = _connect(directory)
        self._broken: Callable[[], None] = lambda: None
        self._muted = False
        self._thread = threading.Thread(target=self._run, name="windlass-view", daemon=True)

    def start(self, broken: Callable[[], None] = lambda: None) -> None:
        """Begin to write; ``broken`` is called in the thread when our output cannot be written."""
        self._broken = broken
        self._thread.start()

    def own(self) -> None:
        """Promise to remove the container when it has ended; the program does it if we go away before."""
        self._socket.send(OWNER)

    async def drained(self) -> None:
        """Return when all that was written until now has been shown."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        await self.ended()

    async def ended(self) -> None:
        """Return when the output has ended and was shown."""
        while self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 0.2)

    def close(self) -> None:
        """Stop showing."""
        self._muted = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if not self._thread.is_alive():
            self._socket.close()

    def _run(self) -> None:
        with self._socket:
            while message := self._receive():
                try:
                    _write(message[0], memoryview(message)[1:])
                except OSError:
                    self._broken()
                    return

    def _receive(self) -> bytes:
        try:
            return b"" if self._muted else self._socket.recv(LONGEST)
        except OSError:
            return b""


def _write(fd: int, data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            # a terminal that another process has set to non-blocking
            threading.Event().wait(0.005)


def _connect(directory: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # The path may be longer than a socket's name can be; the descriptor's is not.
        where = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        try:
            peer.connect(f"/proc/self/fd/{where}/{NAME}")
        finally:
            os.close(where)
    except OSError as error:
        peer.close()
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            raise FailedPrecondition(
                f"container {directory.name} has no output to attach to: it does not run, or another client started it"
            ) from None
        raise NotFound(f"output of container {directory.name} cannot be read: {error.strerror}") from None
    return peer
