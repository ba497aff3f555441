"""Times of the wire: what no clock shows is refused before anything keeps it."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from windlass.errors import InvalidArgument
from windlass_remote.messages import from_timestamp, to_timestamp


@pytest.mark.parametrize("seconds", [-9223372036, -1, 1, 9223372035])
def test_a_time_comes_back_as_it_was(seconds: int) -> None:
    """As far as nanoseconds in 64 bits reach."""
    message = Timestamp(seconds=seconds, nanos=999_999_999)
    assert to_timestamp(from_timestamp(message)) == message


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(-(2**63), -1), (2**63 - 1, 2**31 - 1), (9223372037, 0), (0, -1), (0, 10**9)],
)
def test_a_time_that_no_clock_shows_is_refused(seconds: int, nanos: int) -> None:
    """An event that carried it could not be sent to its subscribers, an image not be stored."""
    with pytest.raises(InvalidArgument):
        from_timestamp(Timestamp(seconds=seconds, nanos=nanos))


def test_the_year_one_is_no_time() -> None:
    """Programs in Go send it for a time that they do not know."""
    assert from_timestamp(Timestamp(seconds=-62135596800)) == 0
