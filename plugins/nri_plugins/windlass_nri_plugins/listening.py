"""The socket that plugins of NRI connect to."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds after a connection could not be accepted, such as for want of descriptors."""


class Listener:
    """Listens in a directory that only its owner enters."""

    def __init__(self, path: Path) -> None:
        """Listen at ``path``, once `open` is called."""
        self.path = path
        self._socket: socket.socket | None = None
        self._inode = 0

    def open(self) -> bool:
        """Begin, in place of a daemon that has died; return whether that was possible, the reason is logged. Blocks."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._answers():
                raise OSError("another daemon listens there; set socket_path")
            self.path.unlink(missing_ok=True)
            made.bind(str(self.path))
            self.path.chmod(0o700)
            made.listen(16)
            self._inode = self.path.stat().st_ino
        except OSError as error:
            made.close()
            logger.warning("plugins of NRI cannot connect to %s: %s", self.path, error.strerror or error)
            return False
        self._socket = made
        return True

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.path))
            except OSError:
                return False
            return True

    async def connections(self) -> AsyncIterator[socket.socket]:
        """Yield connections."""
        loop = asyncio.get_running_loop()
        while self._socket is not None:
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except OSError as error:
                logger.warning("a plugin cannot connect to %s: %s", self.path, error.strerror)
                await asyncio.sleep(PAUSE)
            else:
                yield connection

    def close(self) -> None:
        """Listen no longer."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            with suppress(OSError):
                if os.stat(self.path).st_ino == self._inode:  # noqa: PTH116 - not that of another daemon
                    self.path.unlink()
