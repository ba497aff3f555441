"""The HTTP/2 core and the library h2: what one makes of a peer's bytes, the other does too.

Where they differ on purpose, `DIFFERENCES` says how. h2 judges a connection, we also judge its
streams: what RFC 9113 calls a stream error ends one stream here, and often the connection there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from server.http2_peer import FIELDS, HELLO, Peer, block

from windlass_server.http2 import frames
from windlass_server.http2.events import Closed, Opened, Received, Refused, Reset
from windlass_server.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    PRIORITIZED,
    PRIORITY,
    SETTINGS,
    pack,
)

Meaning = tuple[object, ...]


class Stream:
    """A stream as the generated peer sees it."""

    def __init__(self, id: int) -> None:
        self.id = id
        self.may_send = True


@st.composite
def valid_bytes(draw: DrawFn) -> bytes:
    """Return what a peer that keeps every rule may send after its hello."""
    parts: list[bytes] = []
    streams: list[Stream] = []
    for _ in range(draw(st.integers(0, 14))):
        talking = [stream for stream in streams if stream.may_send]
        action = draw(
            st.sampled_from(["open", "open", "quiet", *["data", "trailers", "reset", "grant"] * bool(talking)])
        )
        if action == "open":
            streams.append(Stream(2 * len(streams) + 1))
            parts.append(draw(request(streams[-1])))
        elif action == "quiet":
            parts.append(draw(st.sampled_from(QUIET)))
        else:
            parts.append(draw(step(action, draw(st.sampled_from(talking)))))
    return b"".join(parts)


QUIET = [
    pack(PING, 0, 0, b"12345678"),
    pack(PING, ACK, 0, b"12345678"),
    pack(PRIORITY, 0, 77, bytes((0, 0, 0, 0, 5))),
    pack(99, 3, 0, b"what is this"),
    frames.settings({4: 70_000, 3: 7}),
    frames.settings({5: 20_000}),
    pack(SETTINGS, ACK, 0),
    frames.window_update(0, 1000),
]
NAMES = st.sampled_from(["x-a", "user-agent", "x-b-bin", "content-type"])
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


@st.composite
def request(draw: DrawFn, stream: Stream) -> bytes:
    """Return a request: its block whole or in parts, with or without padding, priority and an end."""
    fields = [*FIELDS, *draw(st.lists(st.tuples(NAMES, VALUES), max_size=5))]
    ended = draw(st.booleans())
    stream.may_send = not ended
    flags = END_STREAM if ended else 0
    data = block(*fields)
    cut = draw(st.integers(1, len(data)))  # hyperframe takes no padding behind an empty part
    head, rest = data[:cut], data[cut:]
    if draw(st.booleans()):
        head, flags = bytes((0, 0, 0, 0, 9)) + head, flags | PRIORITIZED
    if draw(st.booleans()):
        head, flags = b"\3" + head + bytes(3), flags | PADDED
    return pack(HEADERS, flags, stream.id, head) + pack(CONTINUATION, END_HEADERS, stream.id, rest)


@st.composite
def step(draw: DrawFn, action: str, stream: Stream) -> bytes:
    """Return something on a stream that the peer has not ended."""
    if action == "grant":
        return frames.window_update(stream.id, draw(st.integers(1, 1000)))
    if action == "data":
        data = draw(st.binary(max_size=300))
        ended = draw(st.booleans())
        stream.may_send = not ended
        flags = END_STREAM if ended else 0
        return pack(DATA, flags | PADDED, stream.id, b"\2" + data + bytes(2)) if data else pack(DATA, flags, stream.id)
    stream.may_send = False
    if action == "reset":
        return frames.rst_stream(stream.id, draw(st.integers(0, 13)))
    return frames.headers(stream.id, block(("x-end", "1")), END_STREAM)


def of_h2(events: Iterable[Event]) -> list[Meaning]:
    """Return what h2 makes of it, in the common words."""
    found: list[Meaning] = []
    for event in events:
        if isinstance(event, RequestReceived):
            fields = [(_text(name), _text(value)) for name, value in event.headers]
            pseudo = dict(fields[:4])
            found.append(("open", event.stream_id, pseudo[":method"], pseudo[":path"], fields[4:]))
        elif isinstance(event, DataReceived) and event.data:
            found.append(("data", event.stream_id, bytes(event.data)))
        elif isinstance(event, StreamEnded):
            found.append(("end", event.stream_id))
        elif isinstance(event, StreamReset):
            found.append(("reset" if event.remote_reset else "refused", event.stream_id, int(event.error_code)))
    return found


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def of_ours(peer: Peer, data: bytes) -> list[Meaning]:
    """Return what the core makes of it, in the common words; data is only valid until the next event."""
    found: list[Meaning] = []
    for event in peer.core.receive(memoryview(peer.core.pending + data), peer.now):
        if isinstance(event, Opened) and event.request is not None:
            request = event.request
            fields = [(field.name, field.value) for field in request.fields]
            found.append(("open", event.stream.id, request.method, request.path, fields))
            found += [("end", event.stream.id)] * event.ended
        elif isinstance(event, Received):
            found += [("data", event.stream.id, bytes(event.data))] * bool(event.data)
            found += [("end", event.stream.id)] * event.ended
        elif isinstance(event, Reset):
            found.append(("reset", event.stream.id, event.code))
        elif isinstance(event, (Refused, Closed)):
            found.append(("refused", event.why))
    return found


def both() -> tuple[Peer, H2Connection]:
    """Return both, after the peer's hello."""
    theirs = H2Connection(H2Configuration(client_side=False))
    theirs.initiate_connection()
    theirs.receive_data(HELLO)
    return Peer(), theirs


@given(valid_bytes(), st.lists(st.integers(1, 400), max_size=8))
@settings(max_examples=200, deadline=None)
def test_valid_bytes_mean_the_same_to_both(data: bytes, cuts: list[int]) -> None:
    """The same requests, data, ends and resets in the same order, however the bytes were cut."""
    peer, theirs = both()
    ours: list[Meaning] = []
    his: list[Meaning] = []
    for size in [*cuts, len(data)]:
        part, data = data[:size], data[size:]
        ours += of_ours(peer, part)
        his += of_h2(theirs.receive_data(part))
    assert ours == his


WRONG = {
    "DATA on an idle stream": pack(DATA, 0, 201, b"x"),
    "DATA on stream 0": pack(DATA, 0, 0, b"x"),
    "HEADERS on an even stream": frames.headers(202, block()),
    "HEADERS on stream 0": frames.headers(0, block()),
    "a block that does not parse": pack(HEADERS, END_HEADERS, 201, b"\x80"),
    "an interrupted block": pack(HEADERS, 0, 201, b"\x83") + pack(PING, 0, 0, bytes(8)),
    "CONTINUATION of nothing": pack(CONTINUATION, END_HEADERS, 201, b"\x83"),
    "CONTINUATIONs without end": pack(HEADERS, 0, 201) + pack(CONTINUATION, 0, 201) * 100,
    "more padding than payload": frames.headers(201, block()) + pack(DATA, PADDED, 201, b"\5x"),
    "SETTINGS on a stream": pack(SETTINGS, 0, 1),
    "SETTINGS of 5 bytes": pack(SETTINGS, 0, 0, bytes(5)),
    "an ACK with settings": pack(SETTINGS, ACK, 0, bytes(6)),
    "ENABLE_PUSH of 2": frames.settings({2: 2}),
    "too large a window": frames.settings({4: 1 << 31}),
    "too small a frame size": frames.settings({5: 100}),
    "a PING of 7 bytes": pack(PING, 0, 0, bytes(7)),
    "a PING on a stream": pack(PING, 0, 1, bytes(8)),
    "a window update of 0": frames.window_update(0, 0),
    "a window beyond 2^31": frames.window_update(0, (1 << 31) - 1),
    "a window update on an idle stream": frames.window_update(201, 1),
    "a reset on an idle stream": frames.rst_stream(201, 8),
    "a reset of stream 0": frames.rst_stream(0, 8),
    "a frame over 16 KiB": pack(DATA, 0, 201, bytes(16385)),
    "a push": pack(5, END_HEADERS, 201, struct.pack(">I", 2) + block()),
    "DATA after the end": frames.headers(201, block(), END_STREAM) + pack(DATA, 0, 201, b"x"),
    "an upper-case name": frames.headers(201, block(*FIELDS, ("X", "y"))),
    "connection: close": frames.headers(201, block(*FIELDS, ("connection", "close"))),
    "no :path": frames.headers(201, block(*FIELDS[:2])),
    "two :path": frames.headers(201, block(FIELDS[2], *FIELDS)),
    "a late pseudo-header": frames.headers(201, block(*FIELDS[:3], ("x", "y"), FIELDS[3])),
    "an unknown pseudo-header": frames.headers(201, block((":x", "y"), *FIELDS)),
    "trailers without end": frames.headers(201, block()) + frames.headers(201, block(("x", "y"))),
    "a pseudo-header in trailers": frames.headers(201, block()) + frames.headers(201, block(FIELDS[2]), END_STREAM),
    "less data than content-length": frames.headers(201, block(*FIELDS, ("content-length", "2")))
    + pack(DATA, END_STREAM, 201, b"x"),
    "more data than content-length": frames.headers(201, block(*FIELDS, ("content-length", "2")))
    + pack(DATA, END_STREAM, 201, b"xyz"),
    "a stream that depends on itself": frames.headers(201, block()) + pack(PRIORITY, 0, 201, b"\0\0\0\xc9\0"),
    "GOAWAY on a stream": pack(7, 0, 1, bytes(8)),
}

DIFFERENCES = {
    "a stream that depends on itself": "priorities are ignored (RFC 9113 section 5.3.2); h2 keeps RFC 7540's rule",
    "a reset on an idle stream": "it ends the connection (section 5.1); h2 ignores it once another stream was open",
}
"""What only one of the two refuses, and why we do as we do."""


@pytest.mark.parametrize("name", WRONG)
@given(before=valid_bytes())
@settings(max_examples=5, deadline=None)
def test_what_h2_refuses_is_refused(name: str, before: bytes) -> None:
    """At whatever moment it comes; by which code, `test_http2_core` says."""
    peer, theirs = both()
    assert of_ours(peer, before) == of_h2(theirs.receive_data(before))
    ours = any(kind == "refused" for kind, *_ in of_ours(peer, WRONG[name]))
    try:
        his = any(kind == "refused" for kind, *_ in of_h2(theirs.receive_data(WRONG[name])))
    except (ProtocolError, ValueError):
        his = True
    assert ours == his or name in DIFFERENCES
    assert ours or his
