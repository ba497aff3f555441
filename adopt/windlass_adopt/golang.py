"""Values as containerd's Go code writes them into its databases."""

from __future__ import annotations

import struct

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from windlass.contracts.values import Payload
from windlass_adopt.bolt import Bucket

TIME = struct.Struct(">Bqi")
"""Version, seconds since the year 1, nanoseconds; an offset from UTC follows (time.Time.MarshalBinary)."""
FROM_YEAR_1 = 62_135_596_800
SECOND = 1_000_000_000
LONGEST_VARINT = 10
LARGEST_UNSIGNED, LARGEST_SIGNED = (1 << 64) - 1, (1 << 63) - 1


def moment(bucket: Bucket, key: str) -> int:
    """Return a time as nanoseconds since 1970, 0 for none. Raises DataLoss."""
    data = bucket.get(key)
    if not data:
        return 0
    if len(data) not in (15, 16) or data[0] not in (1, 2):
        raise bucket.wrong(f"{key} is not a time")
    seconds: int
    nanoseconds: int
    _, seconds, nanoseconds = TIME.unpack_from(data)
    since = (seconds - FROM_YEAR_1) * SECOND + nanoseconds
    if since > LARGEST_SIGNED:
        raise bucket.wrong(f"{key} is a time after the year 2262")
    return max(0, since)


def unsigned(bucket: Bucket, key: str) -> int:
    """Return a number written by binary.PutUvarint, 0 for none. Raises DataLoss."""
    data = bucket.get(key)
    if not data:
        return 0
    value = 0
    for place, byte in enumerate(data[:LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80 and value <= LARGEST_UNSIGNED:
            return value
    raise bucket.wrong(f"{key} is not a number")


def signed(bucket: Bucket, key: str) -> int:
    """Return a number written by binary.PutVarint, 0 for none. Raises DataLoss."""
    value = unsigned(bucket, key)
    return value >> 1 ^ -(value & 1)


def strings(bucket: Bucket, key: str) -> dict[str, str]:
    """Return labels or annotations."""
    inner = bucket.find(key)
    if inner is None:
        return {}
    return {inner.decoded(name): inner.decoded(value) for name, value in inner.values.items()}


def payload(bucket: Bucket, key: str) -> Payload | None:
    """Return a message of any type, None for none. Raises DataLoss."""
    data = bucket.get(key)
    return None if data is None else _payload(bucket, key, data)


def payloads(bucket: Bucket, key: str) -> dict[str, Payload]:
    """Return messages of any type, by name. Raises DataLoss."""
    inner = bucket.find(key)
    if inner is None:
        return {}
    return {inner.decoded(name): _payload(inner, key, value) for name, value in inner.values.items()}


def _payload(bucket: Bucket, key: str, data: bytes) -> Payload:
    try:
        message = AnyMessage.FromString(data)
    except DecodeError:
        raise bucket.wrong(f"{key} is not a message of protobuf") from None
    return Payload(message.type_url, message.value)
