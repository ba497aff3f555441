"""Takes connections from a listening socket: so many at a time, and again when there are descriptors again.

asyncio's own way logs a traceback for each try when descriptors run out, and tries
again many times over: tens of thousands of them in a second.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Callable

MOST_CONNECTIONS = 16_384
"""Connections to one socket; never more than half of the descriptors that the process may have. Others are closed."""
AT_ONCE = 128
"""Connections that are taken before others have a turn."""
PAUSE = 1.0
"""Seconds without trying when there is no descriptor left."""
QUIET = 60.0
"""Seconds in which the same trouble is logged once."""
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

logger = logging.getLogger(__name__)


class Acceptor:
    """Gives the connections of one listening socket, which it owns, to protocols."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        count: Callable[[], int],
        most: int = MOST_CONNECTIONS,
    ) -> None:
        """Take no more than ``most``; ``count`` returns how many there are."""
        listener.setblocking(False)
        self._listener = listener
        self._protocol = protocol
        self._count = count
        self._most = min(most, max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[None]] = set()
        self._uncounted = 0
        self._again: asyncio.TimerHandle | None = None
        self._silent_until = 0.0
        self._resume()

    def close(self) -> None:
        """Take no further connections; Linux closes those that wait."""
        if self._again is not None:
            self._again.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()

    def _resume(self) -> None:
        self._again = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                peer, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._pause(error)
                return
            if self._count() + self._uncounted >= self._most:
                peer.close()
                self._warn("%s: %d connections are open, further ones are refused until some end", self._most)
            else:
                self._begin(peer)

    def _begin(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        self._uncounted += 1
        task = self._loop.create_task(self._connect(peer))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def _make(self) -> asyncio.BaseProtocol:
        self._loop.call_soon(self._counted)  # runs right before the protocol's connection_made
        return self._protocol()

    def _counted(self) -> None:
        self._uncounted -= 1

    async def _connect(self, peer: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, peer)
        except OSError as error:
            peer.close()
            logger.debug("%s: a connection ended before it began: %s", self._name, error)

    def _pause(self, error: OSError) -> None:
        self._warn("%s: no connection is taken: %s; raise LimitNOFILE, or end some clients", error.strerror)
        self._loop.remove_reader(self._listener.fileno())
        self._again = self._loop.call_later(PAUSE, self._resume)

    def _warn(self, message: str, what: object) -> None:
        if self._loop.time() >= self._silent_until:
            logger.warning(message, self._name, what)
        self._silent_until = self._loop.time() + QUIET

    @property
    def _name(self) -> str:
        address = self._listener.getsockname()
        return address if isinstance(address, str) else f"{address[0]}:{address[1]}"
