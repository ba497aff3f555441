"""What ttrpc frames and envelopes promise, without a socket."""

from __future__ import annotations

import pytest

from windlass_api.ttrpc import framing as ttrpc


def test_a_frame_survives_any_split() -> None:
    """Frames come out whole whether the bytes arrive one by one or all at once."""
    stream = ttrpc.pack_frame(1, ttrpc.REQUEST, 0, b"first") + ttrpc.pack_frame(3, ttrpc.REQUEST, 0, b"")
    whole = ttrpc.FrameDecoder().feed(stream)
    decoder = ttrpc.FrameDecoder()

    single = [frame for byte in stream for frame in decoder.feed(bytes([byte]))]

    assert [(frame.stream, frame.data) for frame in whole] == [(1, b"first"), (3, b"")]
    assert single == whole
    assert not decoder.pending


def test_the_header_is_ten_bytes_big_endian() -> None:
    """Length, stream, type, flags, in this order."""
    assert ttrpc.pack_frame(258, 2, 4, b"xyz") == bytes([0, 0, 0, 3, 0, 0, 1, 2, 2, 4]) + b"xyz"


@pytest.mark.parametrize("cut", [1, 9, 10, 12])
def test_a_truncated_frame_is_known_as_such(cut: int) -> None:
    """At end of file the decoder can tell that a frame was cut off."""
    decoder = ttrpc.FrameDecoder()

    assert decoder.feed(ttrpc.pack_frame(1, 1, 0, b"abc")[:cut]) == []
    assert decoder.pending


@pytest.mark.parametrize("piece", [1 << 16, 5 << 20])
def test_an_oversized_body_is_discarded_and_the_connection_lives_on(piece: int) -> None:
    """Its stream is named at once, nothing of it is kept, and the next frame is read."""
    size = ttrpc.MAX_DATA + 1
    stream = ttrpc.HEADER.pack(size, 5, 1, 0) + bytes(size) + ttrpc.pack_frame(7, 1, 0, b"ok")
    decoder = ttrpc.FrameDecoder()

    frames = []
    for start in range(0, len(stream), piece):
        frames += decoder.feed(stream[start : start + piece])
        assert len(decoder._buffer) <= ttrpc.HEADER.size + len(b"ok")

    assert [(frame.stream, frame.oversized) for frame in frames] == [(5, True), (7, False)]
    refused = ttrpc.refusal(frames[0], 3)
    assert refused is not None
    assert refused.code == ttrpc.RESOURCE_EXHAUSTED


def test_the_largest_body_passes_and_one_more_byte_is_not_sent() -> None:
    """4 MiB is allowed; a sender refuses more."""
    frame = ttrpc.pack_frame(1, 1, 0, bytes(ttrpc.MAX_DATA))
    assert not ttrpc.FrameDecoder().feed(frame)[0].oversized
    with pytest.raises(ValueError, match="exceeds the limit"):
        ttrpc.pack_frame(1, 1, 0, bytes(ttrpc.MAX_DATA + 1))


@pytest.mark.parametrize(("stream", "last", "type"), [(2, 0, 1), (0, 0, 1), (3, 3, 1), (1, 5, 1), (9, 5, 3)])
def test_even_reused_and_unknown_streams_are_refused(stream: int, last: int, type: int) -> None:
    """They get INVALID_ARGUMENT, and the message says which stream."""
    refused = ttrpc.refusal(ttrpc.Frame(stream, type, 0, b"", 0), last)
    assert refused is not None
    assert refused.code == ttrpc.INVALID_ARGUMENT
    assert f"stream {stream}" in refused.message


def test_a_new_odd_stream_is_served() -> None:
    """The ordinary case is not refused."""
    assert ttrpc.refusal(ttrpc.Frame(7, 1, 0, b"", 0), 5) is None


def test_a_request_comes_back_as_it_was() -> None:
    """Service, method, payload, timeout and repeated metadata survive."""
    request = ttrpc.Request("a.B", "C", b"\x00\xff", 5_000_000_000, {"key": ["one", "two"], "k2": [""]})
    assert ttrpc.decode_request(ttrpc.encode_request(request)) == request


def test_responses_come_back_as_they_were() -> None:
    """A payload, an error, and the empty success."""
    for response in (ttrpc.Response(payload=b"x"), ttrpc.Response(5, "no such thing"), ttrpc.Response()):
        assert ttrpc.decode_response(ttrpc.encode_response(response)) == response


def test_a_negative_number_takes_ten_bytes() -> None:
    """protobuf sign-extends int32 and int64 to 64 bits."""
    assert ttrpc.varint(-1) == b"\xff" * 9 + b"\x01"


def test_unknown_fields_are_skipped() -> None:
    """A newer peer may send more than we know."""
    extra = (
        ttrpc.string(90, "later") + ttrpc.tag(91, ttrpc.FIXED64) + bytes(8) + ttrpc.tag(92, ttrpc.FIXED32) + bytes(4)
    )
    assert ttrpc.decode_request(extra + ttrpc.encode_request(ttrpc.Request("a.B", "C"))).method == "C"


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xff" * 11,
        b"\x08\x01",
        b"\x0b",
        b"\x0a\x01\xff",
    ],
)
def test_malformed_envelopes_are_refused(data: bytes) -> None:
    """Truncated, endless, of the wrong type, or not UTF-8: one exception says so."""
    with pytest.raises(ttrpc.Malformed):
        ttrpc.decode_request(data)
