"""RFC 9113 by its sections, on the core without sockets: what is refused, by which code, and what has to be taken.

The cases are those that conformance testers of HTTP/2 know; `test_http2` has the same core behind a socket.
"""

from __future__ import annotations

import ast
import struct
from pathlib import Path

import pytest
from server.http2_peer import FIELDS, HELLO, Peer, block

import windlass_server.http2
from windlass_server.http2 import frames, receiving, streams
from windlass_server.http2.events import Closed, Opened, Received, Refused, Reset
from windlass_server.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    pack,
)

OPEN = frames.headers(1, block())
WHOLE = frames.headers(1, block(), END_STREAM)
AGAIN = frames.headers(3, block(), END_STREAM)
E = ErrorCode


def asked(*extra: tuple[str, str], without: str = "", stream: int = 1, flags: int = END_STREAM) -> bytes:
    fields = [field for field in FIELDS if field[0] != without]
    return frames.headers(stream, block(*fields, *extra), flags)


CONNECTION_ERRORS = {
    "4.2 a DATA frame larger than allowed": (OPEN + pack(DATA, 0, 1, bytes(16385)), E.FRAME_SIZE_ERROR),
    "4.2 a HEADERS frame larger than allowed": (pack(HEADERS, END_HEADERS, 1, bytes(16385)), E.FRAME_SIZE_ERROR),
    "4.3 a block that does not parse": (pack(HEADERS, END_HEADERS, 1, b"\x80"), E.COMPRESSION_ERROR),
    "4.3 PRIORITY within a block": (pack(HEADERS, 0, 1) + pack(PRIORITY, 0, 1, bytes(5)), E.PROTOCOL_ERROR),
    "4.3 HEADERS of another stream within a block": (pack(HEADERS, 0, 1) + AGAIN, E.PROTOCOL_ERROR),
    "5.1 idle: DATA": (pack(DATA, END_STREAM, 1, b"x"), E.PROTOCOL_ERROR),
    "5.1 idle: RST_STREAM": (frames.rst_stream(1, 8), E.PROTOCOL_ERROR),
    "5.1 idle: WINDOW_UPDATE": (frames.window_update(1, 100), E.PROTOCOL_ERROR),
    "5.1 idle: CONTINUATION": (pack(CONTINUATION, END_HEADERS, 1, block()), E.PROTOCOL_ERROR),
    "5.1 half-closed: CONTINUATION": (WHOLE + pack(CONTINUATION, END_HEADERS, 1, block()), E.PROTOCOL_ERROR),
    "5.1.1 an even stream": (frames.headers(2, block()), E.PROTOCOL_ERROR),
    "5.1.1 a stream below the last": (frames.headers(5, block()) + OPEN, E.STREAM_CLOSED),
    "6.1 DATA on stream 0": (pack(DATA, 0, 0, b"x"), E.PROTOCOL_ERROR),
    "6.1 more padding than DATA": (OPEN + pack(DATA, PADDED, 1, b"\x05hi"), E.PROTOCOL_ERROR),
    "6.2 HEADERS on stream 0": (frames.headers(0, block()), E.PROTOCOL_ERROR),
    "6.2 more padding than HEADERS": (pack(HEADERS, END_HEADERS | PADDED, 1, b"\x05hi"), E.PROTOCOL_ERROR),
    "6.2 HEADERS without its priority": (pack(HEADERS, END_HEADERS | PRIORITIZED, 1, b"hi"), E.FRAME_SIZE_ERROR),
    "6.3 PRIORITY on stream 0": (pack(PRIORITY, 0, 0, bytes(5)), E.PROTOCOL_ERROR),
    "6.4 RST_STREAM on stream 0": (frames.rst_stream(0, 8), E.PROTOCOL_ERROR),
    "6.4 RST_STREAM of 3 bytes": (OPEN + pack(RST_STREAM, 0, 1, bytes(3)), E.FRAME_SIZE_ERROR),
    "6.5 an ACK with settings": (pack(SETTINGS, ACK, 0, bytes(6)), E.FRAME_SIZE_ERROR),
    "6.5 SETTINGS on a stream": (pack(SETTINGS, 0, 1), E.PROTOCOL_ERROR),
    "6.5 SETTINGS of 3 bytes": (pack(SETTINGS, 0, 0, bytes(3)), E.FRAME_SIZE_ERROR),
    "6.5.2 ENABLE_PUSH of 2": (frames.settings({2: 2}), E.PROTOCOL_ERROR),
    "6.5.2 INITIAL_WINDOW_SIZE of 2^31": (frames.settings({4: 1 << 31}), E.FLOW_CONTROL_ERROR),
    "6.5.2 MAX_FRAME_SIZE below 2^14": (frames.settings({5: 16383}), E.PROTOCOL_ERROR),
    "6.5.2 MAX_FRAME_SIZE of 2^24": (frames.settings({5: 1 << 24}), E.PROTOCOL_ERROR),
    "6.6 PUSH_PROMISE of a client": (OPEN + pack(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), E.PROTOCOL_ERROR),
    "6.7 PING on a stream": (pack(PING, 0, 1, bytes(8)), E.PROTOCOL_ERROR),
    "6.7 PING of 6 bytes": (pack(PING, 0, 0, bytes(6)), E.FRAME_SIZE_ERROR),
    "6.8 GOAWAY on a stream": (pack(GOAWAY, 0, 1, bytes(8)), E.PROTOCOL_ERROR),
    "6.9 WINDOW_UPDATE of 0": (frames.window_update(0, 0), E.PROTOCOL_ERROR),
    "6.9 WINDOW_UPDATE of 3 bytes": (pack(WINDOW_UPDATE, 0, 0, bytes(3)), E.FRAME_SIZE_ERROR),
    "6.9.1 a window above 2^31-1": (frames.window_update(0, (1 << 31) - 1), E.FLOW_CONTROL_ERROR),
    "6.9.2 a stream's window above 2^31-1 by SETTINGS": (
        OPEN + frames.window_update(1, (1 << 31) - 65536) + frames.settings({4: 65536}),
        E.FLOW_CONTROL_ERROR,
    ),
    "6.10 CONTINUATION on stream 0": (pack(HEADERS, 0, 1) + pack(CONTINUATION, 0, 0), E.PROTOCOL_ERROR),
    "6.10 CONTINUATION after END_HEADERS": (OPEN + pack(CONTINUATION, END_HEADERS, 1, block()), E.PROTOCOL_ERROR),
    "6.10 DATA within a block": (pack(HEADERS, 0, 1) + pack(DATA, 0, 1, b"x"), E.PROTOCOL_ERROR),
    "8.4 a client that pushes": (pack(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), E.PROTOCOL_ERROR),
}

STREAM_ERRORS = {
    "5.1 half-closed: DATA": (WHOLE + pack(DATA, 0, 1, b"x"), E.STREAM_CLOSED),
    "5.1 half-closed: HEADERS": (WHOLE + WHOLE, E.STREAM_CLOSED),
    "5.1 closed by the peer's reset: DATA": (OPEN + frames.rst_stream(1, 8) + pack(DATA, 0, 1, b"x"), E.STREAM_CLOSED),
    "5.1 closed by the peer's reset: HEADERS": (OPEN + frames.rst_stream(1, 8) + WHOLE, E.STREAM_CLOSED),
    "6.3 PRIORITY of 4 bytes": (pack(PRIORITY, 0, 1, bytes(4)), E.FRAME_SIZE_ERROR),
    "6.9 WINDOW_UPDATE of 0 on a stream": (OPEN + frames.window_update(1, 0), E.PROTOCOL_ERROR),
    "6.9.1 a stream's window above 2^31-1": (OPEN + frames.window_update(1, (1 << 31) - 1), E.FLOW_CONTROL_ERROR),
    "8.1 trailers that do not end the request": (OPEN + frames.headers(1, block(("x", "y"))), E.PROTOCOL_ERROR),
    "8.2 an upper-case name": (asked(("X-Test", "ok")), E.PROTOCOL_ERROR),
    "8.2.1 a line end in a value": (asked(("x", "a\r\nb")), E.PROTOCOL_ERROR),
    "8.2.2 connection": (asked(("connection", "keep-alive")), E.PROTOCOL_ERROR),
    "8.2.2 te other than trailers": (asked(("te", "gzip"), without="te"), E.PROTOCOL_ERROR),
    "8.3 an unknown pseudo-header": (asked((":test", "ok"), without="te"), E.PROTOCOL_ERROR),
    "8.3 a response's pseudo-header": (asked((":status", "200"), without="te"), E.PROTOCOL_ERROR),
    "8.3 a pseudo-header behind a header": (asked((":path", "/p"), without=":path"), E.PROTOCOL_ERROR),
    "8.3 a pseudo-header in trailers": (OPEN + frames.headers(1, block((":path", "/")), END_STREAM), E.PROTOCOL_ERROR),
    "8.3.1 no :method": (asked(without=":method"), E.PROTOCOL_ERROR),
    "8.3.1 no :scheme": (asked(without=":scheme"), E.PROTOCOL_ERROR),
    "8.3.1 no :path": (asked(without=":path"), E.PROTOCOL_ERROR),
    "8.3.1 an empty :path": (frames.headers(1, block(*FIELDS[:2], (":path", "")), END_STREAM), E.PROTOCOL_ERROR),
    "8.3.1 :method twice": (frames.headers(1, block(FIELDS[0], *FIELDS), END_STREAM), E.PROTOCOL_ERROR),
    "8.1.1 less data than content-length": (
        asked(("content-length", "5"), flags=0) + pack(DATA, END_STREAM, 1, b"four"),
        E.PROTOCOL_ERROR,
    ),
    "8.1.1 more data than content-length": (
        asked(("content-length", "5"), flags=0) + pack(DATA, 0, 1, b"four") * 2,
        E.PROTOCOL_ERROR,
    ),
    "8.1.1 no data in spite of content-length": (asked(("content-length", "5")), E.PROTOCOL_ERROR),
    "8.1.1 two content-lengths": (asked(("content-length", "5"), ("content-length", "6"), flags=0), E.PROTOCOL_ERROR),
    "8.1.1 a content-length that is no number": (asked(("content-length", "+5"), flags=0), E.PROTOCOL_ERROR),
}

TAKEN = {
    "4.1 a frame of an unknown type": pack(0x16, 0, 0, bytes(8)),
    "4.1 flags that are not defined": pack(PING, 0xFE, 0, bytes(8)),
    "4.1 the reserved bit of a stream": pack(PING, 0, 1 << 31, bytes(8)),
    "4.2 a DATA frame of 2^14 bytes": OPEN + pack(DATA, 0, 1, bytes(16384)),
    "5.1 closed: PRIORITY": OPEN + frames.rst_stream(1, 8) + pack(PRIORITY, 0, 1, bytes(5)),
    "5.1 half-closed: WINDOW_UPDATE, PRIORITY": WHOLE + frames.window_update(1, 1) + pack(PRIORITY, 0, 1, bytes(5)),
    "5.3.2 a stream that depends on itself, which RFC 9113 ignores": OPEN + pack(PRIORITY, 0, 1, b"\0\0\0\1\0"),
    "6.1 DATA with padding": OPEN + pack(DATA, PADDED, 1, b"\x02hi\0\0"),
    "6.2 HEADERS with padding and priority": pack(
        HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, b"\x01" + bytes(5) + block() + b"\0"
    ),
    "6.5.2 an unknown setting": frames.settings({0xFF: 1}),
    "6.5.2 INITIAL_WINDOW_SIZE twice": frames.settings({4: 100}) + frames.settings({4: 1}),
    "6.7 an ACK of a PING that was not sent": pack(PING, ACK, 0, bytes(8)),
    "6.8 GOAWAY of a client": pack(GOAWAY, 0, 0, bytes(8)),
    "6.10 a block in three frames": pack(HEADERS, 0, 1, block()[:3])
    + pack(CONTINUATION, 0, 1, block()[3:5])
    + pack(CONTINUATION, END_HEADERS, 1, block()[5:]),
    "8.1 trailers": OPEN + frames.headers(1, block(("x", "y")), END_STREAM),
    "8.1.1 as much data as content-length": asked(("content-length", "8"), flags=0)
    + pack(DATA, 0, 1, b"four")
    + pack(DATA, END_STREAM, 1, b"four"),
}


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_a_connection_error_ends_the_connection_with_its_code(name: str) -> None:
    """The last event says so, the last frame is GOAWAY, and no stream is left."""
    data, code = CONNECTION_ERRORS[name]
    peer = Peer()
    last = peer.send(data)[-1]
    assert isinstance(last, Closed) and last.code == code
    kind, _, _, payload = peer.read()[-1]
    assert (kind, struct.unpack(">II", payload[:8])[1]) == (GOAWAY, code)
    assert peer.core.closed and not peer.core.streams


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_a_stream_error_ends_the_stream_with_its_code(name: str) -> None:
    """The connection serves the next one."""
    data, code = STREAM_ERRORS[name]
    peer = Peer()
    assert isinstance(peer.send(data)[-1], Refused)
    assert (RST_STREAM, 0, 1, struct.pack(">I", code)) in peer.read()
    assert isinstance(peer.send(AGAIN)[0], Opened)


@pytest.mark.parametrize("name", TAKEN)
def test_what_has_to_be_taken_is_taken(name: str) -> None:
    """And the connection serves the next stream."""
    peer = Peer()
    assert not [event for event in peer.send(TAKEN[name]) if isinstance(event, (Refused, Closed))]
    assert isinstance(peer.send(AGAIN)[0], Opened)


@pytest.mark.parametrize("start", [b"INVALID\r\n", b"GET / HTTP/1.1\r\n\r\n", PREFACE + pack(PING, 0, 0, bytes(8))])
def test_3_4_a_peer_that_does_not_begin_as_http2_does(start: bytes) -> None:
    """The preface, and SETTINGS first."""
    peer = Peer(start)
    assert [event.code for event in peer.events if isinstance(event, Closed)] == [E.PROTOCOL_ERROR]


def test_bytes_may_come_one_by_one() -> None:
    """What they mean does not depend on how they were cut."""
    data = HELLO + OPEN + pack(DATA, END_STREAM, 1, b"hello") + AGAIN
    peer = Peer(b"")
    found = peer.send(*(bytes((octet,)) for octet in data))
    assert [type(event) for event in found] == [Opened, Received, Opened]
    assert peer.kinds()[0] == SETTINGS


def test_6_9_1_data_waits_for_windows_and_trailers_for_data() -> None:
    """A stream's window, the connection's, and one that SETTINGS made negative."""
    peer = Peer()
    peer.send(frames.settings({4: 10}), WHOLE)
    stream = peer.core.streams[1]
    peer.core.send(stream, b"\x88", bytes(100), b"\x88")
    assert [(kind, len(payload)) for kind, _, _, payload in peer.read()][-1] == (DATA, 10)
    peer.send(frames.settings({4: 5}), frames.window_update(1, 5))
    assert DATA not in peer.kinds()
    peer.send(frames.window_update(1, 95))
    sizes = [(kind, flags, len(payload)) for kind, flags, _, payload in peer.read()]
    assert sizes == [(DATA, 0, 90), (HEADERS, END_HEADERS | END_STREAM, 1)][: len(sizes)] and len(sizes) == 2
    assert peer.core.drained == [stream] and not stream.open


def test_6_9_1_more_data_than_a_window_costs_the_stream_or_the_connection() -> None:
    """Until the caller releases it, data counts."""
    peer = Peer()
    full = pack(DATA, 0, 1, bytes(16384)) * (streams.STREAM_WINDOW // 16384)
    assert all(isinstance(event, (Opened, Received)) for event in peer.send(OPEN, full))
    assert isinstance(peer.send(pack(DATA, 0, 1, b"x"))[-1], Refused)
    peer = Peer()
    peer.send(OPEN, full)
    peer.core.release(peer.core.streams[1], streams.STREAM_WINDOW)
    assert WINDOW_UPDATE in peer.kinds()
    assert isinstance(peer.send(pack(DATA, 0, 1, b"x"))[-1], Received)


def test_5_1_2_more_streams_than_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of which the caller still works on the handler count."""
    monkeypatch.setattr(receiving, "MOST_STREAMS", 2)
    peer = Peer()
    peer.send(OPEN, frames.rst_stream(1, 8))
    peer.core.lingering = 1
    assert isinstance(peer.send(AGAIN)[0], Opened)
    assert isinstance(peer.send(frames.headers(5, block()))[0], Refused)
    assert peer.read()[-1] == (RST_STREAM, 0, 5, struct.pack(">I", E.REFUSED_STREAM))


def test_5_1_frames_that_were_under_way_when_we_ended_a_stream_are_ignored() -> None:
    """The peer could not know; its reset changes that."""
    peer = Peer()
    peer.send(OPEN)
    peer.core.send(peer.core.streams[1], b"\x88", b"", b"\x88")
    assert peer.kinds()[-1] == RST_STREAM
    assert not peer.send(pack(DATA, 0, 1, b"x"), frames.window_update(1, 1), WHOLE, frames.rst_stream(1, 8))
    assert isinstance(peer.send(pack(DATA, 0, 1, b"x"))[-1], Refused)


def test_6_8_after_drain_open_streams_go_on_and_new_ones_are_refused() -> None:
    """The connection is finished with the last of them."""
    peer = Peer()
    peer.send(OPEN)
    peer.core.drain("the server stops")
    assert isinstance(peer.send(AGAIN)[0], Refused) and not peer.core.finished
    peer.send(pack(DATA, END_STREAM, 1, b"x"))
    peer.core.send(peer.core.streams[1], b"\x88", b"y", b"\x88")
    assert peer.core.finished


def test_a_reset_says_why() -> None:
    """With the peer's code, for the one stream."""
    peer = Peer()
    event = peer.send(OPEN, frames.rst_stream(1, E.CANCEL))[-1]
    assert isinstance(event, Reset) and event.code == E.CANCEL and not event.stream.open


def test_the_core_knows_no_sockets_no_loop_and_no_clock() -> None:
    """Bytes in, events out: what it imports says so."""
    for path in Path(windlass_server.http2.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"asyncio", "socket", "time", "threading", "windlass"} & {
                name.partition(".")[0] for name in names
            }
