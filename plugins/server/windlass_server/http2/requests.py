"""Requests: what header fields RFC 9113 sections 8.2 and 8.3 allow in one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from windlass_server.http2.headers import Field

_PSEUDO = {":method", ":scheme", ":path", ":authority"}
_REQUIRED = {":method", ":scheme", ":path"}
_CONNECTION = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
_SUSPECT = {"", ":status", "te", "content-length", *_PSEUDO, *_CONNECTION}
"""Names that may be wrong behind the pseudo-headers; most fields cost one look-up here."""


class Malformed(Exception):
    """A request that RFC 9113 section 8.1.1 calls malformed: its stream is reset."""


class Request(NamedTuple):
    """A request's headers."""

    method: str
    path: str
    fields: list[Field]
    """Without the pseudo-headers."""
    length: int | None
    """What ``content-length`` says."""


def parse(fields: list[Field]) -> Request:
    """Return what the fields say. Raises Malformed."""
    pseudo: dict[str, str] = {}
    for name, value, _ in fields:
        if name not in _PSEUDO:
            break
        if name in pseudo:
            raise Malformed(f"{name} comes twice")
        pseudo[name] = value
    if not pseudo.keys() >= _REQUIRED or not pseudo[":path"]:
        raise Malformed("a request without its pseudo-headers")
    others = fields[len(pseudo) :]
    length: int | None = None
    for field in others:
        if field[0] in _SUSPECT:
            length = _check(field, length)
    return Request(pseudo[":method"], pseudo[":path"], others, length)


def _check(field: Field, length: int | None) -> int | None:
    if field.name == "content-length":
        return _length(field.value, length)
    if field.name != "te" or field.value != "trailers":
        raise Malformed(f"a header that HTTP/2 does not allow here: {field.name or 'its name or value is malformed'}")
    return length


def _length(value: str, known: int | None) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 18 or known not in (None, int(value)):
        raise Malformed("content-length is not one number")
    return int(value)


def check_trailers(fields: Iterable[Field]) -> None:
    """Raise Malformed for what no trailers may have."""
    if any(not field.name or field.name[0] == ":" for field in fields):
        raise Malformed("trailers with a field that is not allowed there")
