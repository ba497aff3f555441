"""One Unix socket with ttrpc in both directions: connection 1 for the plugin's service, 2 for the runtime's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol

PLUGIN_SERVICE = 1
RUNTIME_SERVICE = 2


class Service(Protocol):
    """What `Mux.serve` calls; the same as `windlass.contracts.services.TtrpcService`."""

    @property
    def name(self) -> str:
        """Return the full name, such as ``nri.pkg.api.v1alpha1.Runtime``."""
        ...

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        """Answer one call; a `windlass.errors.Error` travels to the caller."""
        ...


class Mux(asyncio.Protocol):
    """One peer. Made by `attach` or `connect`; only for use on the loop that it was made on.

    Memory is bounded: a peer has at most two incomplete messages here, and the calls that
    it has under way hold at most `MOST_HELD` bytes; more calls are refused. Nothing is read
    from a peer that does not read.
    """

    gone: asyncio.Future[None]
    """Done when the connection has ended, for whatever reason."""
    reason: str
    """Why it ended; empty while it is open."""

    def client(self, connection: int) -> Client:
        """Return the caller's end of ``connection``."""
        raise NotImplementedError

    def serve(self, connection: int, services: Sequence[Service]) -> None:
        """Answer calls that arrive on ``connection``; what came before is lost, as in NRI's own multiplexer.

        So serve in the same step of the loop in which `attach` returns.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the connection; calls of both directions end."""
        raise NotImplementedError


class Client:
    """The caller's end of one connection of a `Mux`."""

    async def call(self, service: str, method: str, payload: bytes, timeout: float | None) -> bytes:
        """Make a call and return the answer's payload.

        Raises the error that the peer answered with, DeadlineExceeded after ``timeout`` seconds,
        Unavailable when the connection has ended or ends, ResourceExhausted for a message over 4 MiB.
        """
        raise NotImplementedError


async def attach(peer: socket.socket, name: str) -> Mux:
    """Multiplex a connected socket, which is the mux's from here on; ``name`` is for errors."""
    raise NotImplementedError


async def connect(path: str) -> Mux:
    """Connect to a runtime's NRI socket. Raises Unavailable when no process listens."""
    raise NotImplementedError
