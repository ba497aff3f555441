"""How the fields of records are kept in columns."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping

from windlass.contracts.values import Descriptor, Payload
from windlass.filters.fieldpaths import kept_labels
from windlass.records import dataclass

Value = str | int | bytes | None
"""What a column holds."""

_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode  # `decode` looks for white space first, which we do not write


@dataclass(frozen=True, slots=True)
class Codec:
    """Keeps a record's ``field`` in ``columns``; a field without a codec is a column of its own name."""

    field: str
    columns: tuple[str, ...]
    encode: Callable[..., tuple[Value, ...]]
    """Takes the field."""
    decode: Callable[..., object]
    """Takes the columns."""


def strings(field: str) -> Codec:
    """Labels or annotations."""
    return Codec(field, (field,), lambda values: (encode_map(values),), decode_map)


def payload(field: str) -> Codec:
    """An optional payload."""
    return Codec(field, (f"{field}_type", field), _payload_columns, _payload)


def payloads(field: str) -> Codec:
    """Payloads by name."""
    return Codec(field, (field,), lambda values: (_encode_payloads(values),), _decode_payloads)


def descriptor(field: str) -> Codec:
    """A descriptor, without its platform."""
    return Codec(field, ("media_type", "digest", "size", "annotations"), _descriptor_columns, _descriptor)


def number(field: str, type: Callable[[int], object]) -> Codec:
    """A bool, or a member of an enumeration of numbers."""
    return Codec(field, (field,), lambda value: (int(value),), type)


def now() -> int:
    """Nanoseconds since the epoch, UTC."""
    return time.time_ns()


def encode_map(values: Mapping[str, str]) -> str:
    """Return labels or annotations as JSON, without those whose value is empty (docs/containerd 3.1)."""
    return _encode(kept_labels(values))


def decode_map(text: str) -> dict[str, str]:
    """Return what `encode_map` was given."""
    if text == "{}":
        return {}
    values: dict[str, str] = _decode(text)[0]
    return values


def _payload_columns(value: Payload | None) -> tuple[str | None, bytes | None]:
    return (None, None) if value is None else (value.type_url, value.value)


def _payload(type_url: str | None, value: bytes | None) -> Payload | None:
    return None if type_url is None else Payload(type_url, value or b"")


def _encode_payloads(values: Mapping[str, Payload]) -> str:
    return _encode({name: [each.type_url, base64.b64encode(each.value).decode()] for name, each in values.items()})


def _decode_payloads(text: str) -> dict[str, Payload]:
    if text == "{}":
        return {}
    return {name: Payload(type_url, base64.b64decode(value)) for name, (type_url, value) in _decode(text)[0].items()}


def _descriptor_columns(target: Descriptor) -> tuple[Value, ...]:
    return target.media_type, target.digest, target.size, encode_map(target.annotations)


def _descriptor(media_type: str, digest: str, size: int, annotations: str) -> Descriptor:
    return Descriptor(media_type, digest, size, decode_map(annotations))
