"""Errors of hosts, and their messages: one line with registry, repository, object and stage."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError

from windlass import __version__
from windlass.errors import (
    Error,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from windlass_registry.hosts import Host
from windlass_registry.references import Reference

USER_AGENT = f"windlass/{__version__}"
ERROR_LIMIT = 8 << 10
"""Bytes of an error's body that are looked at."""
MOST_TOLD = 500
"""Characters of what one host did."""
_RANK: tuple[type[Error], ...] = (
    Unavailable,
    NotFound,
    ResourceExhausted,
    FailedPrecondition,
    PermissionDenied,
    Unauthenticated,
)
"""If several hosts fail, the kind that is last in this list becomes the kind of the whole error."""


class HostFailure(Exception):
    """One host did not answer a request as it should."""

    def __init__(self, host: Host, reason: str, kind: type[Error] = Unavailable) -> None:
        """Take the reason, which may be a stranger's words, and the kind of the error."""
        super().__init__(one_line(reason, MOST_TOLD))
        self.host = host
        self.kind = kind


def of_answer(host: Host, answer: urllib3.BaseHTTPResponse) -> HostFailure:
    """Return the failure for an answer of 400 or above; its body may have the reason."""
    kinds: dict[int, type[Error]] = {401: Unauthenticated, 403: PermissionDenied, 404: NotFound, 410: NotFound}
    reason = _reason(answer)
    text = (
        f"{answer.status} {answer.reason or ''}".strip() + _elsewhere(host, answer) + (f": {reason}" if reason else "")
    )
    kind = kinds.get(answer.status, Unavailable if answer.status >= 500 or answer.status == 429 else FailedPrecondition)
    return HostFailure(host, text, kind)


def _elsewhere(host: Host, answer: urllib3.BaseHTTPResponse) -> str:
    """Return where an answer comes from, if not from the host itself."""
    authority = urlsplit(answer.url or "").netloc
    return f" from {authority}, where it redirects to" if authority not in ("", host.authority) else ""


def _reason(answer: urllib3.BaseHTTPResponse) -> str:
    if is_encoded(answer):  # a few bytes can be unpacked to a gigabyte
        encoding = one_line(answer.headers["Content-Encoding"], 40)
        return f"its reason is not read, since it has Content-Encoding {encoding!r}, which was not asked for"
    try:
        data = answer.read(ERROR_LIMIT, decode_content=False)
        errors = json.loads(data)["errors"]
        texts = [f"{error.get('code', '')} {error.get('message', '')}".strip() for error in errors[:3]]
    except (HTTPError, OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return ""
    return one_line("; ".join(texts))


def is_encoded(answer: urllib3.BaseHTTPResponse) -> bool:
    """Return whether a body is compressed for transport, which our requests never ask for."""
    return answer.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


def length_of(answer: urllib3.BaseHTTPResponse) -> int | None:
    """Return how many bytes an answer announces, None for no number, or one that no body can have."""
    length = answer.headers.get("Content-Length", "")
    # int() raises ValueError for texts of more than 4300 digits
    return int(length) if length.isdecimal() and len(length) < 20 else None


def one_line(text: str, limit: int = 300) -> str:
    """Return a stranger's words on one line, cut short, with nothing that a terminal would obey."""
    text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())[:limit]


def combine(reference: Reference, wanted: str, stage: str, failures: Sequence[HostFailure]) -> Error:
    """Return the error of a whole stage: what each host said, of the kind that matters most."""
    answers = "; ".join(f"{failure.host.authority}: {failure}" for failure in failures)
    kind = max((failure.kind for failure in failures), key=_rank, default=NotFound)
    return kind(f"{stage} {reference.locator} {wanted}: {answers or 'no host may be asked for that'}")


def _rank(kind: type[Error]) -> int:
    return _RANK.index(kind) if kind in _RANK else len(_RANK)


def shown_url(url: str) -> str:
    """Return a URL for logs: no user, and only the harmless parts of the query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    shown = urlencode([(key, value if key == "ns" else "…") for key, value in parse_qsl(parts.query)], safe="…:/")
    return one_line(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, shown, "")))


def shown_proxy(proxy: str) -> str:
    """Return a proxy's address without user and password, however it is written."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", proxy)
    return one_line((scheme[0] if scheme else "") + proxy[scheme.end() if scheme else 0 :].rpartition("@")[2])


def with_query(url: str, query: Sequence[tuple[str, str]]) -> str:
    """Return a URL with parameters added to those that it has."""
    if not query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query, safe=':/')}"
