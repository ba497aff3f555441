"""References: which registry, which repository, which tag or digest (docs/containerd 6.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from windlass.contracts.values import DIGEST
from windlass.errors import InvalidArgument
from windlass_registry import urls

_HOST = re.compile(
    r"(?:\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*)"
    r"(?::[0-9]{1,5})?"
)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
LIMIT = 512
"""Characters of a reference: 255 of the name, 128 of the tag, and a digest."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in a registry; of tag and digest one may be empty, and with both the digest counts."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.locator}{':' if self.tag else ''}{self.tag}{'@' if self.digest else ''}{self.digest}"

    @property
    def locator(self) -> str:
        """Host and repository."""
        return f"{self.host}/{self.repository}"

    @property
    def hostname(self) -> str:
        """The host without its port, under which containerd and others note where blobs come from."""
        return self.host[1:].partition("]")[0] if self.host.startswith("[") else self.host.partition(":")[0]

    @property
    def object(self) -> str:
        """The tag or digest in requests: the digest if there is one."""
        return self.digest or self.tag

    @property
    def wanted(self) -> str:
        """The object as people read it."""
        return self.digest or f"tag {self.tag}"


def _can_be_asked(host: str) -> bool:
    """Return whether a host's port and IPv6 address, if it has them, are valid."""
    try:
        urls.parse(f"https://{host}/")
    except urls.BadUrl:
        return False
    return True


def parse(text: str) -> Reference:
    """Read ``host[:port]/path[:tag][@digest]``; nothing is added to it. Raises InvalidArgument."""
    shown = repr(text[:LIMIT])
    if "://" in text:
        raise InvalidArgument(f"reference {shown} is a URL; write it without the scheme, as example.org/team/app:1")
    if len(text) > LIMIT:
        raise InvalidArgument(f"reference {shown}… is longer than {LIMIT} characters")
    name, at, digest = text.partition("@")
    host, slash, path = name.partition("/")
    if not slash or not _HOST.fullmatch(host) or not _can_be_asked(host):
        raise InvalidArgument(f"reference {shown} does not begin with a registry, as docker.io/library/busybox:1 does")
    repository, colon, tag = path.partition(":")
    if len(host) + len(repository) > 254 or not _REPOSITORY.fullmatch(repository):
        raise InvalidArgument(
            f"reference {shown} has no valid repository: small letters, digits, dots, dashes, slashes"
        )
    if colon and not _TAG.fullmatch(tag):
        raise InvalidArgument(f"reference {shown} has no valid tag: letters, digits, dots, dashes, 128 at most")
    if at and not DIGEST.fullmatch(digest):
        raise InvalidArgument(f"reference {shown} has no valid digest after the @")
    if not tag and not digest:
        raise InvalidArgument(f"reference {shown} has neither tag nor digest; add :latest if that is meant")
    return Reference(host, repository, tag, digest)
