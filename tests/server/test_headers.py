"""HPACK: what the library writes is read alike, and what no encoder should write is refused."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass_server.http2.headers import Decoder, HeaderFailure, encode

MOST = 32 << 10
NAMES = st.sampled_from([":path", "te", "content-type", "user-agent", "x-a", "containerd-namespace"])
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200)
BLOCKS = st.lists(st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=12), max_size=8)


@given(BLOCKS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_blocks_of_the_library_are_read_as_they_were(blocks: list[list[tuple[str, str, bool]]], huffman: bool) -> None:
    """Over many blocks, so that entries come and go in the table."""
    encoder, decoder = hpack.Encoder(), Decoder(MOST)
    for block in blocks:
        fields = decoder.decode(encoder.encode(block, huffman=huffman))
        assert fields is not None
        assert [field[:2] for field in fields] == [field[:2] for field in block]


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_as_the_library_reads_them_or_refused(data: bytes) -> None:
    """Nothing else happens than the one error."""
    try:
        expected = hpack.Decoder().decode(data, raw=True)
    except hpack.HPACKError:
        expected = None
    try:
        fields = Decoder(1 << 20).decode(data)
    except HeaderFailure:
        assert expected is None
        return
    assert fields is not None
    if expected is not None:
        assert [field.size for field in fields] == [32 + len(name) + len(value) for name, value in expected]


@pytest.mark.parametrize("table", [0, 100, 4096])
def test_the_peer_may_shrink_its_table(table: int) -> None:
    """And grow it again to what was offered."""
    encoder, decoder = hpack.Encoder(), Decoder(MOST)
    for size in (4096, table, 4096):
        encoder.header_table_size = size
        for number in range(5):
            fields = decoder.decode(encoder.encode([("x-a", f"{number % 3}" * 30)]))
            assert fields and fields[0].value == f"{number % 3}" * 30


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\x80", "no entry 0"),
        (b"\xff\x00", "no entry 127"),
        (b"\x3f\xe2\x1f", "a table of 4097"),
        (b"\xff\xff\xff\xff\xff\xff\xff", "too large"),
        (b"\x40\x05ab", "longer than its block"),
        (b"\x40", "in the middle"),
        (b"\x82\x20", "within a block"),
        (b"\x40\x81\x00\x01a", "Huffman|huffman"),
    ],
)
def test_a_block_that_does_not_parse_is_refused(block: bytes, why: str) -> None:
    """Indexes, sizes, integers, lengths and padding out of range."""
    with pytest.raises(HeaderFailure, match=why):
        Decoder(MOST).decode(block)


def test_a_bomb_of_indexed_fields_costs_nothing_and_the_table_stays_right() -> None:
    """Many references to one large entry are counted, not kept; the next block is read as ever."""
    encoder, decoder = hpack.Encoder(), Decoder(MOST)
    large = ("x-a", "v" * 3000)
    assert decoder.decode(encoder.encode([large])) is not None
    assert decoder.decode(b"\xbe" * 15000) is None
    fields = decoder.decode(encoder.encode([large]))
    assert fields is not None and fields[0].value == large[1]


@pytest.mark.parametrize("name", [b"Upper", b"sp ace", b"", b"nul\x00"])
def test_forbidden_names_lose_their_name(name: bytes) -> None:
    """The request is malformed; the connection is not."""
    fields = Decoder(MOST).decode(b"\x00" + bytes((len(name),)) + name + b"\x01v")
    assert fields is not None and fields[0].name == ""


@given(NAMES, st.binary(max_size=400))
@settings(max_examples=50, deadline=None)
def test_our_fields_are_read_by_the_library(name: str, value: bytes) -> None:
    """Whether the name is in the static table or not."""
    assert hpack.Decoder().decode(encode(name, value), raw=True) == [(name.encode(), value)]
