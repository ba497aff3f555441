"""HTTP/1.1 up to the upgrade: one request is read, and answered or upgraded (RFC 9110, section 7.8)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import h11

from windlass_streaming.wire import SocketWire

REQUEST_LIMIT = 32 << 10
TIMEOUT = 30.0
"""Seconds in which a request has to come."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request, its headers in order with names in lower case."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """Return the values of a header, those of a list one by one."""
        values = [value for key, value in self.headers if key == name]
        return [part.strip() for value in values for part in value.split(",") if part.strip()]

    def wants(self, upgrade: str) -> bool:
        """Return whether the client wants to go on with another protocol."""
        words = {word.lower() for word in self.all("connection")}
        return "upgrade" in words and upgrade in {word.lower() for word in self.all("upgrade")}


class Exchange:
    """The one request of a connection, and what is answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin."""
        self._reader = reader
        self._writer = writer
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_LIMIT)

    async def request(self) -> Request | None:
        """Read the request; None when none comes. Raises `h11.RemoteProtocolError` for what is not HTTP."""
        async with asyncio.timeout(TIMEOUT):
            while (event := self._connection.next_event()) is h11.NEED_DATA:
                self._connection.receive_data(await self._reader.read(REQUEST_LIMIT))
        if not isinstance(event, h11.Request):
            return None
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers)
        return Request(event.method.decode("latin-1"), event.target.decode("latin-1").partition("?")[0], headers)

    async def answer(self, status: int, reason: str, text: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer with a text, and close."""
        body = text.encode()
        fields = [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close"), *headers]
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Length: {len(body)}\r\n" + _lines(fields)
        self._writer.write(head.encode("latin-1") + body)
        await self._writer.drain()

    async def upgrade(self, headers: Sequence[tuple[str, str]]) -> SocketWire:
        """Switch protocols, and return the connection."""
        # What h11 holds back is the new protocol's, once the request has been read whole.
        while self._connection.next_event() not in (h11.PAUSED, h11.NEED_DATA):
            pass
        head = "HTTP/1.1 101 Switching Protocols\r\n" + _lines([("Connection", "Upgrade"), *headers])
        self._writer.write(head.encode("latin-1"))
        await self._writer.drain()
        return SocketWire(self._reader, self._writer, self._connection.trailing_data[0])


def _lines(headers: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
