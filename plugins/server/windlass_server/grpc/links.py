"""What a call needs of the connection that it came on."""

from __future__ import annotations

from typing import Protocol

from windlass_server.http2.streams import Stream


class Link(Protocol):
    """A client's connection."""

    peer: str
    """The client's address, as gRPC writes it."""

    @property
    def prompt(self) -> bool:
        """Whether a quick handler may run now, while the client's bytes are read."""
        ...

    @property
    def backlog(self) -> int:
        """Bytes of responses that wait for the client."""
        ...

    def send(self, stream: Stream, headers: bytes | None, data: bytes, trailers: bytes | None) -> None:
        """Send blocks and data, in this order; trailers end the stream. What has no room is queued."""
        ...

    async def drained(self, stream: Stream) -> None:
        """Wait until everything is in the transport's hands, or the stream is gone."""
        ...

    def credit(self, stream: Stream, size: int) -> None:
        """Let the client send ``size`` bytes more on the stream."""
        ...

    def hold(self, size: int) -> int:
        """Count bytes that are kept beyond their stream's window; return those of the whole connection."""
        ...

    def released(self, stream: Stream) -> None:
        """Count the end of a handler, whose stream may be gone already."""
        ...
