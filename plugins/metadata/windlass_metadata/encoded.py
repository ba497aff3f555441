"""Records as bytes, next to their columns: the message that the API has for a record, as field 1 of another message.

Every response and stream of the API that carries such records has them in field 1, alone or repeated. The bytes of one
record are therefore a whole response of ``Get``, and those of several, one after the other, one of ``List``.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from google.protobuf.message import Message

FIELD = b"\x0a"
"""The tag of a message in field 1."""


def framed(message: Message, *maps: MutableMapping[str, str]) -> bytes:
    """Return a message as field 1 of another; from its ``maps`` go what columns do not keep (`columns.encode_map`)."""
    for each in maps:
        for key in [key for key, value in each.items() if not value]:
            del each[key]
    data = message.SerializeToString(deterministic=True)
    return FIELD + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
