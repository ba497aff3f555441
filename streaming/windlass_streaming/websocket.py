"""WebSocket (RFC 6455) on a connection: messages in, messages out."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from windlass_streaming.wire import Wire

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
NORMAL, PROTOCOL_ERROR, INTERNAL_ERROR = 1000, 1002, 1011


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message; ``first`` and ``last`` say where in it."""

    data: bytes
    first: bool
    last: bool


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID, usedforsecurity=False).digest()).decode()


class WebSocket:
    """The server's end, after the handshake."""

    def __init__(self, wire: Wire) -> None:
        """Go on with a connection."""
        self._wire = wire
        self._connection = Connection(ConnectionType.SERVER)

    async def parts(self) -> AsyncIterator[Part]:
        """Yield messages in parts as they come, until the client closes. Raises ConnectionError for what is none."""
        first = True
        while self._connection.state is ConnectionState.OPEN and (data := await self._wire.read()):
            try:
                self._connection.receive_data(data)
                for event in self._connection.events():
                    if isinstance(event, BytesMessage | TextMessage):
                        text = event.data
                        part = text.encode() if isinstance(text, str) else bytes(text)
                        yield Part(part, first, event.message_finished)
                        first = event.message_finished
                    elif isinstance(event, Ping | CloseConnection):
                        await self._wire.write(self._connection.send(event.response()))
            except RemoteProtocolError as error:
                await self.close(PROTOCOL_ERROR)
                raise ConnectionError(f"the client's WebSocket frames are wrong: {error}") from None

    async def send(self, data: bytes | str) -> None:
        """Send one message, binary or text. Raises ConnectionError when the connection is closed."""
        message = TextMessage(data=data) if isinstance(data, str) else BytesMessage(data=data)
        try:
            await self._wire.write(self._connection.send(message))
        except LocalProtocolError:
            raise ConnectionResetError("the client has closed the WebSocket") from None

    async def close(self, code: int = NORMAL) -> None:
        """Say goodbye, if that has not been said."""
        try:
            await self._wire.write(self._connection.send(CloseConnection(code=code)))
        except (LocalProtocolError, ConnectionError):
            pass  # it is closed


class WebSocketWire:
    """A byte stream in the messages of a WebSocket, for SPDY that is tunnelled."""

    def __init__(self, websocket: WebSocket) -> None:
        """Use a WebSocket."""
        self._websocket = websocket
        self._parts = websocket.parts()

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        async for part in self._parts:
            if part.data:
                return part.data
        return b""

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        if data:
            await self._websocket.send(data)

    async def close(self) -> None:
        """Close the WebSocket."""
        await self._websocket.close()
