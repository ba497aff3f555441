"""The framing of zstd, followed so that a stream cut short is noticed (RFC 8878, section 3).

The library's stream reader ends quietly where its input ends; whether that was
the end of a frame has to be known from the outside.
"""

from __future__ import annotations

import io

from windlass.errors import InvalidArgument

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE = 0x184D2A5
"""Magic number of skippable frames, without its lowest four bits."""

_ID_SIZES = (0, 1, 2, 4)
_CONTENT_SIZES = (0, 2, 4, 8)


def is_frame(magic: bytes) -> bool:
    """Return whether these four bytes begin a frame, skippable ones included."""
    return magic == MAGIC or (len(magic) == 4 and int.from_bytes(magic, "little") >> 4 == SKIPPABLE)


class WholeFrames:
    """A reader that raises InvalidArgument instead of ending inside a frame."""

    def __init__(self, raw: io.RawIOBase) -> None:
        """Pass on what ``raw`` holds."""
        self._raw = raw
        self._head = b""
        """A frame's or block's header as far as it has been seen."""
        self._skip = 0
        self._in_frame = False
        self._checksum = False
        self._last = False

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        data = self._raw.read(size) or b""
        if data:
            self._follow(data)
        elif self._in_frame or self._skip or self._head:
            raise InvalidArgument("it is truncated: it ends inside a zstd frame")
        return data

    def _follow(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
            else:
                step = self._wanted() - len(self._head)
                self._head += data[position : position + step]
                position += step
                if len(self._head) == self._wanted():
                    self._header()
            if not self._skip and self._last:
                self._in_frame = self._last = False

    def _wanted(self) -> int:
        """Return the length of the header that we are in, as far as its first bytes say."""
        if self._in_frame:
            return 3
        if len(self._head) < 5:
            return 5
        if not self._head.startswith(MAGIC):
            return 8
        flags = self._head[4]
        single = flags >> 5 & 1
        content = _CONTENT_SIZES[flags >> 6] or single
        return 5 + (1 - single) + _ID_SIZES[flags & 3] + content

    def _header(self) -> None:
        head, self._head = self._head, b""
        if self._in_frame:
            block = int.from_bytes(head, "little")
            # type 1 is RLE: one byte, whatever its length says
            self._skip = 1 if block >> 1 & 3 == 1 else block >> 3
            if block & 1:
                self._last = True
                self._skip += 4 * self._checksum
        elif head.startswith(MAGIC):
            self._in_frame = True
            self._checksum = bool(head[4] >> 2 & 1)
        elif is_frame(head[:4]):
            self._skip = int.from_bytes(head[4:8], "little")
        else:
            raise InvalidArgument("data after a zstd frame is not another frame")
