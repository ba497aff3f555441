"""gRPC's headers: what a request's say, and the bytes of a response's (gRPC's PROTOCOL-HTTP2)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from windlass.contracts.rpc import Metadata
from windlass.errors import Code
from windlass_server.http2.headers import encode
from windlass_server.http2.requests import Request

CONTENT_TYPE = "application/grpc"
LONGEST_MESSAGE = 8 << 10
"""Bytes of a status message; clients refuse headers of 16 KiB and more."""
ACCEPTED = "identity,deflate,gzip"

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_TRANSPORT = {"te", "content-type", "content-length", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"}
"""Headers that are gRPC's own and not the call's metadata."""
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class Refused(Exception):
    """A call that is answered with a status before, or instead of, its handler."""

    def __init__(self, code: int, message: str, status: int = 200, headers: bytes = b"") -> None:
        """Answer with ``code``; ``status`` is HTTP's, ``headers`` are encoded fields to add."""
        super().__init__(message)
        self.code = code
        self.status = status
        self.headers = headers


@dataclass(slots=True)
class Head:
    """What a request's headers say."""

    path: str
    metadata: Metadata
    timeout: float | None
    encoding: str


def parse(request: Request) -> Head:
    """Return what a request's headers say. Raises Refused."""
    transport: dict[str, str] = {}
    metadata: list[tuple[str, str | bytes]] = []
    for name, value, _ in request.fields:
        if name in _TRANSPORT:
            transport[name] = value
        elif name.endswith("-bin"):
            metadata += [(name, _binary(part)) for part in value.split(",")]
        else:
            metadata.append((name, value))
    _check(request.method, transport.get("content-type", ""))
    timeout = transport.get("grpc-timeout")
    return Head(
        request.path,
        tuple(metadata),
        None if timeout is None else _seconds(timeout),
        transport.get("grpc-encoding", "identity"),
    )


def _check(method: str, kind: str) -> None:
    if method != "POST":
        raise Refused(Code.INTERNAL, f"method {method} is not POST", status=405)
    if not (kind.startswith(CONTENT_TYPE) and kind[len(CONTENT_TYPE) :][:1] in ("", "+", ";")):
        raise Refused(Code.INVALID_ARGUMENT, f'invalid gRPC request content-type "{kind}"', status=415)


def _seconds(timeout: str) -> float:
    match = _TIMEOUT.fullmatch(timeout)
    if match is None:
        raise Refused(Code.INTERNAL, f"malformed grpc-timeout {timeout[:32]!r}")
    return int(match[1]) * _UNITS[match[2]]


def _binary(value: str) -> bytes:
    value = value.strip()
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(Code.INTERNAL, "metadata that ends in -bin is not base64") from None


def encode_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Return a handler's metadata as fields. Raises ValueError for what headers cannot hold."""
    return b"".join(_encode_entry(name, value) for name, value in metadata)


def _encode_entry(name: str, value: str | bytes) -> bytes:
    if not re.fullmatch(r"[0-9a-z_.-]+", name) or name.startswith("grpc-"):
        raise ValueError(f"metadata key {name!r} is not allowed")
    if name.endswith("-bin"):
        data = value if isinstance(value, bytes) else value.encode()
        return encode(name, base64.b64encode(data).rstrip(b"="))
    text = value if isinstance(value, bytes) else value.encode()
    if not re.fullmatch(rb"[\x20-\x7e]*", text):
        raise ValueError(f"metadata value of {name} is not printable ASCII; name it {name}-bin")
    return encode(name, text)


def encode_message(message: str) -> bytes:
    """Return a status message percent-encoded, cut if need be."""
    encoded = quote(message, safe=_PRINTABLE, errors="replace").encode("ascii")
    if len(encoded) > LONGEST_MESSAGE:
        encoded = re.sub(rb"%.?\Z", b"", encoded[:LONGEST_MESSAGE])
    return encoded


def _status_field(status: int) -> bytes:
    return b"\x88" if status == 200 else encode(":status", str(status).encode())


INITIAL = _status_field(200) + encode("content-type", CONTENT_TYPE.encode())
"""The headers of every response."""
_STATUS = tuple(encode("grpc-status", str(code).encode()) for code in range(17))
OK = _STATUS[Code.OK]
GZIPPED = encode("grpc-encoding", b"gzip")
ACCEPT = encode("grpc-accept-encoding", ACCEPTED.encode())


def initial(status: int = 200) -> bytes:
    """Return a response's headers."""
    return INITIAL if status == 200 else _status_field(status) + encode("content-type", CONTENT_TYPE.encode())


def trailers(code: int, message: str = "") -> bytes:
    """Return a response's trailers."""
    status = _STATUS[code]
    return status + encode("grpc-message", encode_message(message)) if message else status
