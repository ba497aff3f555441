"""Reads URLs from registries: of layers, token servers, redirects, uploads and next pages."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit

LIMIT = 16 << 10
"""Characters; signed URLs have some thousands."""
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
"""How a URL begins that is not relative (RFC 3986 section 4.2)."""
_PORTS = {"http": 80, "https": 443}


class BadUrl(ValueError):
    """A registry gave an unusable URL; the text says what kind it is."""


def parse(url: str) -> SplitResult:
    """Return the parts of a URL of http or https, without a user in it. Raises BadUrl.

    A URL that two parsers could read differently is malformed, so that credentials and
    bytes go to the host that was checked.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError if it is not a number
    except ValueError:
        raise BadUrl(f"a malformed URL {_shown(url)}") from None
    if parts.scheme not in _PORTS:
        raise BadUrl(f"a URL of scheme {parts.scheme[:20]!r}, which is neither http nor https")
    if "@" in parts.netloc:
        raise BadUrl("a URL with a user in it")
    if len(url) > LIMIT or not url.isprintable() or url != url.strip() or not _AUTHORITY.fullmatch(parts.netloc):
        raise BadUrl(f"a malformed URL {_shown(url)}")
    return parts


def join(base: str, target: str) -> str:
    """Return the URL that ``target`` is at ``base``. Raises BadUrl."""
    try:
        url = urldefrag(urljoin(base, target)).url
    except ValueError:
        raise BadUrl(f"a malformed URL {_shown(target)}") from None
    parse(target if _ABSOLUTE.match(target) else url)
    return url


def place(url: str) -> tuple[str, str, int]:
    """Return the parts that must be equal for credentials to be sent along."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)


def _shown(url: str) -> str:
    """Return the printable part of an unreadable URL: neither a user nor the signature of a query."""
    return repr(url.partition("?")[0].rpartition("@")[2][:80])
