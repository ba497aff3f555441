"""ttrpc for a server, without sockets: bytes in, calls out, and bytes to send; a call has one request and response."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from windlass_api.ttrpc.framing import (
    DATA,
    INVALID_ARGUMENT,
    REQUEST,
    RESOURCE_EXHAUSTED,
    RESPONSE,
    Frame,
    FrameDecoder,
    Malformed,
    Request,
    Response,
    decode_request,
    encode_response,
    pack_frame,
    refusal,
)

MOST_RUNNING = 256
"""Calls that one connection may have under way; a shim has one."""


class Called(NamedTuple):
    """A call, to be answered on its stream."""

    stream: int
    request: Request


class Connection:
    """The server's side of one connection."""

    __slots__ = ("_decoder", "_frames", "_last", "_running")

    def __init__(self) -> None:
        """Begin without calls."""
        self._decoder = FrameDecoder()
        self._frames: list[bytes] = []
        self._last = 0
        self._running: set[int] = set()

    def receive(self, data: bytes) -> Iterator[Called]:
        """Yield the calls that the peer's bytes complete; what is none is refused on its stream."""
        for frame in self._decoder.feed(data):
            if frame.type not in (REQUEST, DATA):
                continue  # wire/README.md: other types are ignored
            opened = self._open(frame)
            if isinstance(opened, Called):
                yield opened
            else:
                self._write(frame.stream, opened)

    def _open(self, frame: Frame) -> Called | Response:
        refused = refusal(frame, self._last)
        if refused is not None:
            return refused
        self._last = frame.stream
        if len(self._running) >= MOST_RUNNING:
            return Response(RESOURCE_EXHAUSTED, f"{MOST_RUNNING} calls are under way on this connection")
        try:
            request = decode_request(frame.data)
        except Malformed as error:
            return Response(INVALID_ARGUMENT, str(error))
        self._running.add(frame.stream)
        return Called(frame.stream, request)

    def respond(self, stream: int, response: Response) -> None:
        """Answer a call. Raises ValueError for a response that no frame can hold; the call is still open then."""
        self._write(stream, response)
        self._running.discard(stream)

    def _write(self, stream: int, response: Response) -> None:
        self._frames.append(pack_frame(stream, RESPONSE, 0, encode_response(response)))

    def take(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        return b"".join(self.take_each())

    def take_each(self) -> list[bytes]:
        """Return what is to be sent now, message by message, and forget it."""
        frames, self._frames = self._frames, []
        return frames
