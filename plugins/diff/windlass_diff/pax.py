r"""Extended headers of the pax format: ``"<length> <key>=<value>\n"``, repeated (POSIX pax, "pax Header Block")."""

from __future__ import annotations

from windlass.errors import InvalidArgument

LONGEST_LENGTH = 8
"""Digits of a record's length: a header of more than 1 MiB is refused before it is read."""

Records = list[tuple[bytes, bytes]]


def parse(data: bytes) -> Records:
    """Return the records in their order, which sparse maps of version 0.0 rely on."""
    records: Records = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + LONGEST_LENGTH)
        digits = data[position:space] if space > 0 else b""
        if not digits.isdigit():
            raise InvalidArgument("pax header has a record without a length")
        end = position + int(digits)
        equals = data.find(b"=", space + 1, end)
        if end > len(data) or equals < 0 or data[end - 1] != 0x0A:
            raise InvalidArgument("pax header has a record whose length does not fit its text")
        records.append((data[space + 1 : equals], data[equals + 1 : end - 1]))
        position = end
    return records


def record(key: bytes, value: bytes) -> bytes:
    """Return one record; its length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def number(key: bytes, value: bytes) -> int:
    """Return a non-negative decimal number."""
    if not value.isdigit() or len(value) > 20:
        raise InvalidArgument(f"pax record {key.decode()} is not a number: {value[:40]!r}")
    return int(value)


def nanoseconds(key: bytes, value: bytes) -> int:
    """Return a time in seconds with an optional fraction, exactly; digits beyond nanoseconds are dropped."""
    whole, _, fraction = value.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole[1:] if negative else whole
    if not digits.isdigit() or len(digits) > 20 or (fraction and not fraction.isdigit()):
        raise InvalidArgument(f"pax record {key.decode()} is not a time: {value[:40]!r}")
    total = int(digits) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -total if negative else total
