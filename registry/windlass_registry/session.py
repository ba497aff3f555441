"""One repository's requests: authorised, repeated, redirected by our rules, and ended when they are not wanted."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import urllib3

from windlass import tracing
from windlass.errors import Cancelled, Error, FailedPrecondition, Unauthenticated
from windlass_registry import failures, urls
from windlass_registry.failures import HostFailure
from windlass_registry.hosts import Host, same_registry
from windlass_registry.meter import Meter
from windlass_registry.references import Reference
from windlass_registry.tokens import Authorizer
from windlass_registry.transport import Body, Transport, Unreachable

MOST_TRIES = 5
MOST_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
SAME_METHOD = frozenset({307, 308})
"""Redirects that are followed with any method and its body (RFC 9110 section 15.4); the others with GET and HEAD."""
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT = 30.0
"""Seconds that a busy host may ask us to wait."""

Trace = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """A request to a host: a path below its base and the repository, or a URL from an answer of its own."""

    method: str
    path: str = ""
    url: str = ""
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    scopes: tuple[str, ...] = ()
    body: Body | None = None
    authorised: bool = True
    patient: bool = True
    """Whether a busy host is asked again; there may be others."""


@dataclass(frozen=True)
class _Reply:
    """An answer, whether it came from the host's own place, and the Authorization that the host was sent."""

    answer: urllib3.BaseHTTPResponse
    own: bool
    sent: str


class Session:
    """Requests of one reference to its hosts; any number of threads may send."""

    def __init__(
        self,
        transport: Transport,
        authorizer: Authorizer,
        reference: Reference,
        headers: Mapping[str, str],
        trace: Trace | None,
    ) -> None:
        """Add ``headers`` to every request to the registry's own hosts."""
        self._transport = transport
        self._authorizer = authorizer
        self._reference = reference
        self._headers = dict(headers)
        self._trace = trace
        self._clear: set[str] = set()
        self._stopped = threading.Event()
        self._watch = authorizer.watch
        self.meter = Meter()
        """How it gets on."""

    def abort(self) -> None:
        """End everything that is under way, from any thread; calls that wait raise Cancelled."""
        self._stopped.set()
        self._watch.abort()

    def check(self) -> None:
        """Raise Cancelled after `abort`."""
        if self._stopped.is_set():
            raise Cancelled(f"{self._reference}: the transfer was cancelled")

    @contextmanager
    def ask(self, host: Host, request: Request) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request and provide its answer for the length of the context. Raises HostFailure, Cancelled."""
        answer = self.open(host, request)
        try:
            yield answer
        finally:
            self.close(answer)

    def open(self, host: Host, request: Request) -> urllib3.BaseHTTPResponse:
        """Send a request and return its answer, whatever its status, for `close`. Raises HostFailure, Cancelled."""
        self.meter.begin()
        try:
            return self._open_patiently(host, request)
        except BaseException:
            self.meter.end()
            raise

    def _open_patiently(self, host: Host, request: Request) -> urllib3.BaseHTTPResponse:
        refused = 0
        for number in range(MOST_TRIES):
            last = number + 1 == MOST_TRIES
            self.check()
            reply = self._try(host, request, last)
            if reply is None:
                self._stopped.wait(0.05 * (number + 1))
            elif reply.answer.status == 401 and reply.own and refused < 2:
                refused += 1
                challenge = reply.answer.headers.getlist("WWW-Authenticate")
                self._watch.let_go(reply.answer)
                self._refused(host, challenge, reply.sent)
            elif reply.answer.status in BUSY and request.patient and not last:
                self._watch.let_go(reply.answer)
                self._stopped.wait(_wait(reply.answer, number))
            else:
                return reply.answer
        raise HostFailure(host, "refused every attempt to log in", Unauthenticated)

    def close(self, answer: urllib3.BaseHTTPResponse) -> None:
        """Give up an answer of `open`."""
        self.meter.end()
        self._watch.let_go(answer)

    def _refused(self, host: Host, challenge: list[str], sent: str) -> None:
        try:
            self._authorizer.challenged(host, challenge, sent)
        except Error as error:
            raise HostFailure(host, str(error), type(error)) from None

    def _try(self, host: Host, request: Request, last: bool) -> _Reply | None:
        """Send a request once; no answer is given when the connection failed and another may not."""
        url = _checked(host, request.url) if request.url else self._url(host, request)
        own = request.authorised and urls.place(url) == urls.place(self._base(host))
        try:
            sent = self._authorizer.header(host, request.scopes) if own else ""
        except Error as error:
            raise HostFailure(host, str(error), type(error)) from None
        try:
            return self._follow(host, request, url, own, sent)
        except Unreachable as error:
            self.check()
            if error.plain and host.falls_back and host.authority not in self._clear:
                self._clear.add(host.authority)
                return None
            if last or not request.patient:
                raise HostFailure(host, str(error)) from None
            return None

    def _follow(self, host: Host, request: Request, url: str, own: bool, sent: str) -> _Reply:
        """Send a request and follow redirects; headers that are for the registry alone go to no other place."""
        for _ in range(MOST_REDIRECTS + 1):
            headers = self._all_headers(host, request, sent) if own else self._bare_headers(request)
            answer = self._send(request.method, url, headers, host, request.body)
            target = answer.headers.get("Location", "")
            if not target or not _is_followed(request.method, answer.status):
                return _Reply(answer, own, sent)
            self._watch.let_go(answer)
            url = _redirected(host, url, target)
            own = own and urls.place(url) == urls.place(self._base(host))
        raise HostFailure(host, f"redirects more than {MOST_REDIRECTS} times")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], host: Host, body: Body | None
    ) -> urllib3.BaseHTTPResponse:
        shown = failures.shown_url(url)
        facts = {"http.request.method": method, "url.full": shown, "server.address": host.authority}
        with tracing.span(f"HTTP {method}", tracing.CLIENT, **facts) as span:
            if span is not None and tracing.recorder is not None:
                headers = {**headers, **span.headers()}
            try:
                answer = self._transport.send(method, url, headers, host.tls, host.dial_timeout, self._watch, body)
            except Unreachable as error:
                self._tell(f"{method} {shown}: {error}")
                raise
            if span is not None:
                span.note(**{"http.response.status_code": answer.status})
        answer.url = url  # as asked: urllib3 keeps the path alone
        self._tell(f"{method} {shown}: {answer.status}")
        if self._stopped.is_set():
            self._watch.let_go(answer)
            self.check()
        return answer

    def _tell(self, line: str) -> None:
        if self._trace is not None:
            self._trace(line)

    def _base(self, host: Host) -> str:
        scheme = "https" if host.falls_back and host.authority not in self._clear else host.scheme
        return f"{scheme}://{host.authority}{host.path}"

    def _url(self, host: Host, request: Request) -> str:
        query = list(request.query)
        if not same_registry(host.authority, self._reference.host):
            query.append(("ns", self._reference.host))
        url = f"{self._base(host)}/{self._reference.repository}/{request.path}"
        return failures.with_query(url, query)

    def _all_headers(self, host: Host, request: Request, sent: str) -> dict[str, str]:
        headers = {**self._bare_headers(request), **self._headers}
        for name, value in host.headers:
            headers[name] = f"{headers[name]}, {value}" if name in headers and name in dict(host.headers) else value
        if sent:
            headers["Authorization"] = sent
        return headers

    def _bare_headers(self, request: Request) -> dict[str, str]:
        return {"User-Agent": failures.USER_AGENT, "Accept-Encoding": "identity", **dict(request.headers)}


def _is_followed(method: str, status: int) -> bool:
    return status in (REDIRECTS if method in ("GET", "HEAD") else SAME_METHOD)


def _checked(host: Host, url: str) -> str:
    try:
        urls.parse(url)
    except urls.BadUrl as error:
        raise HostFailure(host, f"it is at {error}", FailedPrecondition) from None
    return url


def _redirected(host: Host, url: str, target: str) -> str:
    """Return where a redirect leads. Raises HostFailure if that is not http."""
    try:
        return urls.join(url, target)
    except urls.BadUrl as error:
        raise HostFailure(host, f"redirects to {error}; that is not followed") from None


def _wait(answer: urllib3.BaseHTTPResponse, number: int) -> float:
    """Return the seconds until a busy host is asked again."""
    asked = seconds_asked(answer.headers.get("Retry-After", ""), time.time())
    return 0.25 * float(1 << number) * random.uniform(0.8, 1.2) if asked is None else min(asked, LONGEST_WAIT)


def seconds_asked(retry_after: str, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for, which is a number or a date (RFC 9110 section 10.2.3)."""
    if retry_after.isdecimal() and len(retry_after) < 10:
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def each_scope(reference: Reference, *actions: str, source: str = "") -> tuple[str, ...]:
    """Return the scopes for actions on a repository, and for reading another one that blobs are mounted from."""
    scopes: Iterable[str] = (f"repository:{reference.repository}:{','.join(actions)}",)
    return (*scopes, f"repository:{source}:pull") if source else tuple(scopes)
