"""What a peer's bytes mean."""

from __future__ import annotations

from typing import NamedTuple

from windlass_server.http2.frames import ErrorCode
from windlass_server.http2.requests import Request
from windlass_server.http2.streams import Stream


class Opened(NamedTuple):
    """A request. It is None when its headers were larger than we take; the stream is open all the same."""

    stream: Stream
    request: Request | None
    ended: bool


class Received(NamedTuple):
    """A part of a request's body, which is only valid until the next event; ``ended`` is the peer's half-close."""

    stream: Stream
    data: memoryview
    ended: bool


class Reset(NamedTuple):
    """The peer has ended a stream by an error; nothing can be sent on it any more."""

    stream: Stream
    code: int


class Refused(NamedTuple):
    """We have ended a stream by an error, because of what the peer sent on it; None if we know it no more."""

    stream: Stream | None
    why: str


class Closed(NamedTuple):
    """The connection cannot go on, and neither can any stream: send what there is to send, and close it."""

    code: ErrorCode
    why: str


Event = Opened | Received | Reset | Refused | Closed
