"""A peer's settings (RFC 9113 section 6.5)."""

from __future__ import annotations

from collections.abc import Iterator

from windlass_server.http2 import frames
from windlass_server.http2.frames import ACK, ConnectionFailure, ErrorCode


def read(flags: int, payload: memoryview) -> Iterator[tuple[int, int]]:
    """Yield each setting and its value. Raises ConnectionFailure for values that are not allowed."""
    if len(payload) % frames.PARAMETER.size or (flags & ACK and payload):
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has 6 bytes for each")
    for key, value in frames.PARAMETER.iter_unpack(payload):
        _check(key, value)
        yield key, value


def _check(key: int, value: int) -> None:
    if key == frames.ENABLE_PUSH and value > 1:
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
    if key == frames.MAX_FRAME_SIZE and not frames.FRAME_SIZE <= value <= frames.LARGEST_FRAME_SIZE:
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
    if key == frames.INITIAL_WINDOW_SIZE and value > frames.LARGEST_WINDOW:
        raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
