"""Reads the URIs by which clients name stdio, as far as a shim needs RFC 3986; urllib is too big for one."""

from __future__ import annotations

import os

from windlass.errors import InvalidArgument

FIFO_SCHEMES = ("", "fifo")
FILE_SCHEME = "file"
LOGGER_SCHEMES = ("binary", "binary-v2")

DIGITS = b"0123456789abcdefABCDEF"

HERE = ("", "localhost")
"""Hosts that a path may be on."""


def split(value: str) -> tuple[str, str, str]:
    """Return scheme, path and query of a URI; a plain path has no scheme, and is what it is.

    The path is decoded. Raises InvalidArgument.
    """
    scheme, colon, rest = value.partition(":")
    if not colon or not is_scheme(scheme):
        return "", value, ""
    scheme = scheme.lower()
    if scheme not in (*FIFO_SCHEMES, FILE_SCHEME, *LOGGER_SCHEMES):
        raise InvalidArgument(f"stdio scheme {scheme[:40]}:// is not known; use a FIFO, file:// or binary://")
    rest, _, query = rest.partition("#")[0].partition("?")
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in HERE:
            raise InvalidArgument(
                f"stdio {value[:200]!r} is on host {host[:76]}; write {scheme}:///path with three slashes"
            )
        rest = slash + path
    return scheme, unquoted(rest, value), query


def is_scheme(text: str) -> bool:
    """Return whether a text can be a scheme (RFC 3986, 3.1); a path cannot."""
    return text[:1].isalpha() and text.isascii() and all(each.isalnum() or each in "+-." for each in text)


def logger_command(path: str, query: str) -> list[str]:
    """Return a logger's arguments: its path, then each key of the query and its first value, which may be empty."""
    argv, seen = [path], set()
    for pair in filter(None, query.split("&")):
        key, _, value = (unquoted(part, pair) for part in pair.replace("+", " ").partition("="))
        if key not in seen:
            seen.add(key)
            argv += [key, value]
    return argv


def unquoted(text: str, whole: str) -> str:
    """Undo percent-encoding; raises InvalidArgument for what is not encoded so, or cannot be an argument."""
    head, *parts = os.fsencode(text).split(b"%")
    out = bytearray(head)
    for part in parts:
        digits = part[:2]
        if len(digits) < 2 or digits.strip(DIGITS):
            raise InvalidArgument(f"{whole[:200]!r} has a % without two hexadecimal digits; write %25 for it")
        out.append(int(digits, 16))
        out += part[2:]
    if b"\0" in out:
        raise InvalidArgument(f"{whole[:200]!r} has a zero byte")
    return os.fsdecode(bytes(out))
