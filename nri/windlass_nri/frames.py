"""NRI's multiplexing without sockets: bytes in, payloads of numbered connections out, and back.

A frame is the connection's number and the payload's length, both of 32 bits and big-endian, and the payload.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER = struct.Struct(">II")
MAX_PAYLOAD = 10 + (4 << 20)
"""A ttrpc message of the greatest size with its header; a frame that announces more ends the connection."""


class Payload(NamedTuple):
    """What has arrived for a connection."""

    connection: int
    data: bytes


class FrameError(ValueError):
    """The peer does not speak NRI; nothing that follows can be understood."""


class Decoder:
    """Cuts the trunk's bytes into payloads, however they were split on the way."""

    def feed(self, data: bytes) -> list[Payload]:
        """Return the payloads that ``data`` completes; raises FrameError for a header that nobody may send."""
        raise NotImplementedError


def pack(connection: int, data: bytes) -> bytes:
    """Return ``data`` as frames of ``connection``."""
    raise NotImplementedError
