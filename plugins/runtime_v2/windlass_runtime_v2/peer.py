"""What the daemon needs of a connection to a shim, by ttrpc or gRPC."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Peer(Protocol):
    """A connection to a shim."""

    gone: asyncio.Future[None]
    """Done when the connection has ended, for whatever reason."""

    async def call(self, service: str, method: str, payload: bytes, namespace: str, timeout: float | None) -> bytes:
        """Make a unary call and return the answer's payload.

        Raises the error that the peer answered with, DeadlineExceeded after
        ``timeout`` seconds, Unavailable when the connection has ended or ends.
        """
        ...

    def close(self) -> None:
        """End the connection; pending calls fail with Unavailable."""
        ...
