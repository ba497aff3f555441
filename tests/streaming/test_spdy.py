"""The core of SPDY/3.1: what a peer sends becomes events, and what is wrong, too large or too much ends it."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from windlass_streaming import spdy
from windlass_streaming.spdy import DICTIONARY, Connection, Data, Event, GoAway, ProtocolError, Reset, StreamOpened


class Peer:
    """Makes a client's frames."""

    def __init__(self) -> None:
        self.deflate = zlib.compressobj(zdict=DICTIONARY)

    def control(self, kind: int, payload: bytes, flags: int = 0) -> bytes:
        return struct.pack(">HHB", 0x8003, kind, flags) + len(payload).to_bytes(3, "big") + payload

    def block(self, headers: dict[str, str]) -> bytes:
        plain = struct.pack(">I", len(headers))
        for name, value in headers.items():
            plain += struct.pack(">I", len(name)) + name.encode() + struct.pack(">I", len(value)) + value.encode()
        return self.deflate.compress(plain) + self.deflate.flush(zlib.Z_SYNC_FLUSH)

    def open(self, stream: int, headers: dict[str, str], flags: int = 0) -> bytes:
        return self.control(spdy.SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self.block(headers), flags)

    def data(self, stream: int, data: bytes, flags: int = 0) -> bytes:
        return struct.pack(">IB", stream, flags) + len(data).to_bytes(3, "big") + data


def test_the_dictionary_is_that_of_the_draft() -> None:
    """zlib knows a dictionary by its Adler-32; this one is in every header block of SPDY/3."""
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


def conversation() -> tuple[bytes, list[Event]]:
    peer = Peer()
    sent = peer.open(1, {"streamType": "error"}, spdy.FIN) + peer.open(3, {"streamType": "stdin", "X": "y"})
    sent += peer.data(3, b"hello") + peer.control(spdy.PING, struct.pack(">I", 7))
    sent += peer.control(spdy.SETTINGS, bytes(4)) + peer.control(spdy.WINDOW_UPDATE, struct.pack(">II", 3, 9))
    sent += peer.data(3, b" world", spdy.FIN) + peer.control(spdy.RST_STREAM, struct.pack(">II", 1, 5))
    sent += peer.control(spdy.GOAWAY, bytes(8))
    events: list[Event] = [
        StreamOpened(1, {"streamtype": "error"}, True),
        StreamOpened(3, {"streamtype": "stdin", "x": "y"}, False),
        Data(3, b"hello", False),
        Data(3, b" world", True),
        Reset(1),
        GoAway(),
    ]
    return sent, events


def joined(events: list[Event]) -> list[Event]:
    """Parts of data put together."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, Data) and isinstance(last, Data) and not last.fin and event.stream == last.stream:
            found[-1] = Data(event.stream, last.data + event.data, event.fin)
        else:
            found.append(event)
    return found


def test_a_conversation_is_the_same_however_it_is_cut() -> None:
    sent, expected = conversation()
    assert Connection().receive(sent) == expected
    for seed in range(50):
        source, connection, events, position = random.Random(seed), Connection(), [], 0
        while position < len(sent):
            size = source.randint(1, 40)
            events += connection.receive(sent[position : position + size])
            position += size
        assert [each for each in joined(events) if each != Data(3, b"", False)] == joined(expected)
        assert connection.to_send() == Peer().control(spdy.PING, struct.pack(">I", 7))


def test_what_is_sent_can_be_read() -> None:
    ours = Connection()
    ours.receive(Peer().open(1, {}))
    frames = ours.accept(1) + ours.data(1, b"abc") + ours.data(1, b"", fin=True) + ours.data(1, b"late")
    assert frames.endswith(Peer().data(1, b"abc") + Peer().data(1, b"", spdy.FIN))
    kind, length = frames[3], int.from_bytes(frames[5:8], "big")
    assert kind == spdy.SYN_REPLY
    inflate = zlib.decompressobj(zdict=DICTIONARY)
    assert inflate.decompress(frames[12 : 8 + length]) == bytes(4)


def test_data_of_16_mib_passes_in_parts() -> None:
    """A frame is not collected: its bytes are handed on as they come."""
    connection = Connection()
    connection.receive(Peer().open(1, {}))
    head = struct.pack(">IB", 1, spdy.FIN) + (0xFFFFFF).to_bytes(3, "big")
    assert connection.receive(head + b"x") == [Data(1, b"x", False)]
    assert connection.receive(bytes(1 << 20)) == [Data(1, bytes(1 << 20), False)]
    (last,) = connection.receive(bytes(0xFFFFFF - 1 - (1 << 20)))
    assert isinstance(last, Data) and last.fin


def test_data_of_a_stream_that_is_not_open_is_dropped() -> None:
    connection, peer = Connection(), Peer()
    assert connection.receive(peer.data(5, b"x")) == []
    connection.receive(peer.open(1, {}))
    assert connection.reset(1)[3] == spdy.RST_STREAM
    assert connection.receive(peer.data(1, b"on its way")) == []
    assert connection.data(1, b"x") == b"" and connection.reset(1) == b""


def bomb() -> bytes:
    peer = Peer()
    return peer.open(1, {"a": "x" * (1 << 20)})


def bad_block() -> bytes:
    return Peer().control(spdy.SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + b"not zlib")


def cut_block() -> bytes:
    peer = Peer()
    plain = struct.pack(">II", 1, 99) + b"name"
    block = peer.deflate.compress(plain) + peer.deflate.flush(zlib.Z_SYNC_FLUSH)
    return peer.control(spdy.SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + block)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (bomb(), "header block is larger than 65536"),
        (bad_block(), "cannot be decompressed"),
        (cut_block(), "is cut off"),
        (struct.pack(">HHB", 0x8002, 1, 0) + (0).to_bytes(3, "big"), "version 2 of SPDY is not 3"),
        (struct.pack(">HHB", 0x8003, 1, 0) + (1 << 20).to_bytes(3, "big"), "larger than 32768"),
        (Peer().control(spdy.PING, b"x"), "of type 6 is too short"),
        (Peer().control(spdy.RST_STREAM, b""), "of type 3 is too short"),
        (Peer().open(2, {}), "stream 2 is opened after stream 0"),
    ],
    ids=["bomb", "no zlib", "cut block", "version", "large", "short ping", "short reset", "even"],
)
def test_what_is_wrong_ends_the_connection(sent: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        Connection().receive(sent)


def test_streams_are_opened_in_order_and_not_too_many() -> None:
    connection, peer = Connection(), Peer()
    for number in range(spdy.STREAMS_LIMIT):
        connection.receive(peer.open(2 * number + 1, {}))
    assert connection.receive(peer.open(2 * spdy.STREAMS_LIMIT + 1, {})) == []
    refused = connection.to_send()
    assert refused[3] == spdy.RST_STREAM and refused.endswith(struct.pack(">I", spdy.REFUSED_STREAM))
    with pytest.raises(ProtocolError):
        connection.receive(peer.open(1, {}))


def test_garbage_never_does_more_than_end_it() -> None:
    for seed in range(300):
        source = random.Random(seed)
        data = bytearray(conversation()[0])
        for _ in range(source.randint(1, 6)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            Connection().receive(bytes(data))
        except ProtocolError:
            pass
