"""One blob from its hosts: continued where a connection broke, from the next host if needed, and never too long."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType

import urllib3
from urllib3.exceptions import HTTPError

from windlass.contracts.values import Descriptor
from windlass.errors import DataLoss, Error, FailedPrecondition, Unavailable
from windlass_registry import failures
from windlass_registry.failures import HostFailure
from windlass_registry.hosts import Host
from windlass_registry.session import Request, Session
from windlass_registry.transport import explain

MOST_BREAKS = 3
"""Breaks of a connection in a row, none of which brought a byte."""
SLOW_SPAN = 30.0
SLOWEST = 16 << 10
"""Bytes that a host must send in `SLOW_SPAN` seconds; after fewer, the next host is asked."""

Ways = Callable[[], Iterator[tuple[Host, Request]]]
"""Yields the hosts and the request for each, in order."""


class NoRanges(Exception):
    """A host sends a whole blob although it was asked for a part."""


class Blob:
    """The bytes of a blob from an offset on; a context manager, for one thread. Its length is right or it fails.

    With ``verify`` (and from 0) the last read also checks the digest; without it the
    caller must check it, as a content store's writer does at its commit.
    """

    def __init__(
        self,
        session: Session,
        ways: Ways,
        desc: Descriptor,
        fail: Callable[[list[HostFailure]], Error],
        offset: int,
        verify: bool,
        end: int | None = None,
    ) -> None:
        """Send no request before the first `read`; ``end`` is the end of a part of the blob."""
        self._session = session
        self._ways = ways()
        self._way: tuple[Host, Request] | None = None
        self._desc = desc
        self._end = desc.size if end is None else end
        self._fail = fail
        self._failures: list[HostFailure] = []
        self._answer: urllib3.BaseHTTPResponse | None = None
        self._breaks = 0
        self._since = (0.0, 0)
        self._hash = hashlib.new(desc.digest.partition(":")[0]) if verify and offset == 0 else None
        self.began = self.position = offset
        """Where the first byte belonged, and where the next does."""

    @property
    def host(self) -> Host | None:
        """The host that the bytes come from now."""
        return self._way[0] if self._way is not None else None

    def __enter__(self) -> Blob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connection."""
        if self._answer is not None:
            self._session.close(self._answer)
            self._answer = None

    def read(self, amount: int) -> bytes:
        """Return up to ``amount`` bytes, none at the end.

        Raises NotFound, Unavailable, Unauthenticated, PermissionDenied, FailedPrecondition (length or
        digest), Cancelled.
        """
        left = self._end - self.position
        while left > 0:
            answer = self._answer or self._reach()
            try:
                data = read_some(answer, min(amount, left))
            except (HTTPError, OSError) as error:
                self._broken(explain(error))
                continue
            if data:
                self._took(data)
                return data
            self._broken(f"ended after {self.position} of {self._end} bytes")
        self._finish()
        return b""

    def _took(self, data: bytes) -> None:
        self.position += len(data)
        self._session.meter.bring(len(data))
        self._breaks = 0
        if self._hash is not None:
            self._hash.update(data)
        now = time.monotonic()
        start, position = self._since
        if now - start > SLOW_SPAN:
            if start and self.position - position < SLOWEST:
                self._next(f"brought {self.position - position} bytes in {now - start:.0f} s")
            self._since = (now, self.position)

    def _finish(self) -> None:
        answer, self._answer = self._answer, None
        if answer is None:
            return
        try:
            more = b"" if getattr(answer, "length_remaining", None) == 0 else answer.read(1, decode_content=True)
        except (HTTPError, OSError):
            more = b""
        self._session.close(answer)
        self._session.meter.finish()
        if more:
            raise self._wrong(f"the body is longer than {self._end} bytes")
        if self._hash is not None:
            found = f"{self._hash.name}:{self._hash.hexdigest()}"
            if found != self._desc.digest:
                raise self._wrong(f"the bytes have digest {found}")

    def _wrong(self, reason: str) -> Error:
        assert self._way is not None  # a host has sent the bytes
        return self._fail([*self._failures, HostFailure(self._way[0], reason, FailedPrecondition)])

    def _broken(self, reason: str) -> None:
        """After a broken connection, try the same host a few times, then the next."""
        self.close()
        self._session.check()
        self._breaks += 1
        if self._breaks > MOST_BREAKS:
            self._next(reason)

    def _next(self, reason: str, kind: type[Error] = Unavailable) -> None:
        self.close()
        if self._way is not None:
            self._failures.append(HostFailure(self._way[0], reason, kind))
        self._way, self._breaks = None, 0

    def _reach(self) -> urllib3.BaseHTTPResponse:
        """Return an answer whose next byte is the one at `position`."""
        while True:
            if self._way is None:
                self._way = next(self._ways, None)
                if self._way is None:
                    raise self._fail(self._failures)
            host, request = self._way
            try:
                self._answer = self._opened(host, request)
            except HostFailure as failure:
                self._next(str(failure), failure.kind)
                continue
            self._since = (time.monotonic(), self.position)
            return self._answer

    def _opened(self, host: Host, request: Request) -> urllib3.BaseHTTPResponse:
        if self.position or self._end < self._desc.size:
            last = self._end - 1 if self._end < self._desc.size else ""
            request = replace(request, headers=(*request.headers, ("Range", f"bytes={self.position}-{last}")))
        answer = self._session.open(host, request)
        try:
            self._check(host, answer)
        except BaseException:
            self._session.close(answer)
            raise
        return answer

    def _check(self, host: Host, answer: urllib3.BaseHTTPResponse) -> None:
        if answer.status not in (200, 206):
            raise failures.of_answer(host, answer)
        if answer.status == 200 and self._end < self._desc.size:
            raise NoRanges
        skip = self._skipped(host, answer)
        length = failures.length_of(answer)
        expected = self._end - self.position + skip
        if length is not None and not failures.is_encoded(answer) and length != expected:
            raise HostFailure(host, f"sends {length} bytes instead of {expected}", FailedPrecondition)
        while skip > 0:
            try:
                data = answer.read(min(skip, 1 << 20), decode_content=True)
            except (HTTPError, OSError) as error:
                raise HostFailure(host, explain(error)) from None
            if not data:
                raise HostFailure(host, "ended before the byte to go on at", DataLoss)
            self._session.meter.bring(len(data))
            skip -= len(data)

    def _skipped(self, host: Host, answer: urllib3.BaseHTTPResponse) -> int:
        """Return how many bytes precede the one we want; a host that knows no ranges sends all of them."""
        if answer.status == 200:
            return self.position
        place = answer.headers.get("Content-Range", "")
        if not place.startswith(f"bytes {self.position}-"):
            raise HostFailure(host, f"sends another range than the one asked for: {place[:60]!r}", FailedPrecondition)
        return 0


def read_some(answer: urllib3.BaseHTTPResponse, amount: int) -> bytes:
    """Return what has come, ``amount`` bytes at most: of a connection that breaks nothing is lost."""
    if isinstance(answer, urllib3.HTTPResponse):
        return answer.read1(amount, decode_content=True)
    return answer.read(amount, decode_content=True)
