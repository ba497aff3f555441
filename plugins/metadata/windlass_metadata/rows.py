"""How maps and payloads are kept in columns."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping

from windlass.contracts.values import Payload
from windlass.filters.fieldpaths import kept_labels


def now() -> int:
    """Nanoseconds since the epoch, UTC."""
    return time.time_ns()


def encode_map(values: Mapping[str, str]) -> str:
    """Return labels or annotations as JSON, without those whose value is empty (docs/containerd 3.1)."""
    return json.dumps(kept_labels(values), separators=(",", ":"))


def decode_map(text: str) -> dict[str, str]:
    """Return what `encode_map` was given."""
    if text == "{}":
        return {}
    values: dict[str, str] = json.loads(text)
    return values


def payload_columns(payload: Payload | None) -> tuple[str | None, bytes | None]:
    """Return the two columns of an optional payload."""
    return (None, None) if payload is None else (payload.type_url, payload.value)


def payload_of(type_url: str | None, value: bytes | None) -> Payload | None:
    """Return what `payload_columns` was given."""
    return None if type_url is None else Payload(type_url, value or b"")


def encode_payloads(payloads: Mapping[str, Payload]) -> str:
    """Return extensions as JSON."""
    return json.dumps({k: [p.type_url, base64.b64encode(p.value).decode()] for k, p in payloads.items()})


def decode_payloads(text: str) -> dict[str, Payload]:
    """Return what `encode_payloads` was given."""
    return {k: Payload(type_url, base64.b64decode(value)) for k, (type_url, value) in json.loads(text).items()}
