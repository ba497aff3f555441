"""A small mutation engine: the same seed gives the same inputs, on any machine."""

from __future__ import annotations

import random
from collections.abc import Sequence

LONGEST = 16 << 10
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x30, 0x39, 0x22, 0x5C, 0x2F, 0x2E)
WORDS = (
    b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"99999999999999999999", b"-1",
    b"1e999", b"NaN", b"null", b"[]", b"{}", b"[[[[[[[[", b'{"":', b"\\ud800", b"\xed\xa0\x80", b"\xc3\x28", b"../",
    b"/", b"\x00", b"\n", b"\r\n", b"\x1e", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59",
)  # fmt: skip


class Mutator:
    """Makes inputs from seeds."""

    def __init__(self, seeds: Sequence[bytes], seed: int) -> None:
        self._random = random.Random(seed)
        self._seeds = list(seeds) or [b""]

    def next(self) -> bytes:
        """Return one seed, changed in one to eight places."""
        data = bytearray(self._random.choice(self._seeds))
        for _ in range(1 << self._random.randrange(4)):
            self._random.choice(CHANGES)(self, data)
        return bytes(data[:LONGEST])

    def _span(self, data: bytearray) -> slice:
        start = self._random.randrange(len(data) + 1)
        return slice(start, start + self._random.choice((1, 2, 4, 8, 64, 512)))

    def _flip(self, data: bytearray) -> None:
        if data:
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)

    def _set(self, data: bytearray) -> None:
        if data:
            data[self._random.randrange(len(data))] = self._random.choice(INTERESTING)

    def _delete(self, data: bytearray) -> None:
        del data[self._span(data)]

    def _repeat(self, data: bytearray) -> None:
        span = self._span(data)
        data[span.start : span.start] = data[span] * self._random.choice((1, 2, 30))
        del data[LONGEST:]

    def _insert(self, data: bytearray) -> None:
        start = self._span(data).start
        data[start:start] = self._random.choice(WORDS)

    def _replace(self, data: bytearray) -> None:
        word = self._random.choice(WORDS)
        start = self._span(data).start
        data[start : start + len(word)] = word

    def _splice(self, data: bytearray) -> None:
        other = self._random.choice(self._seeds)
        span = self._span(data)
        start = self._random.randrange(len(other) + 1)
        data[span] = other[start : start + self._random.choice((4, 16, 512, 4096))]

    def _digits(self, data: bytearray) -> None:
        digits = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
        if digits:
            at = self._random.choice(digits)
            data[at : at + 1] = b"%d" % (
                self._random.choice((0, 1, 9, 1 << 31, 1 << 63, 1 << 64)) + self._random.randrange(-1, 2)
            )


CHANGES = (
    Mutator._flip, Mutator._set, Mutator._delete, Mutator._repeat, Mutator._insert, Mutator._replace, Mutator._splice,
    Mutator._digits,
)  # fmt: skip
