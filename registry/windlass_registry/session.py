"""One repository's requests: authorised, tried again, redirected by hand, and cut short when nobody wants them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from windlass.errors import Cancelled, Error, Unauthenticated
from windlass_registry import failures
from windlass_registry.failures import HostFailure
from windlass_registry.hosts import Host, same_registry
from windlass_registry.references import Reference
from windlass_registry.tokens import Authorizer
from windlass_registry.transport import Body, Transport, Unreachable, release

MOST_TRIES = 5
MOST_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT = 30.0
"""Seconds that a busy host may ask us to wait."""

Trace = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is asked of a host: a path below its base and the repository, or a URL that it gave itself."""

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
        self._open: set[urllib3.BaseHTTPResponse] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def abort(self) -> None:
        """End everything that is under way, from any thread; whoever waits gets Cancelled."""
        self._stopped.set()
        with self._lock:
            answers = list(self._open)
        for answer in answers:
            shut_down(answer)

    def check(self) -> None:
        """Raise Cancelled after `abort`."""
        if self._stopped.is_set():
            raise Cancelled(f"{self._reference}: the transfer was cancelled")

    @contextmanager
    def ask(self, host: Host, request: Request) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request, and give its answer as long as the context lasts. Raises HostFailure, Cancelled."""
        answer = self.open(host, request)
        try:
            yield answer
        finally:
            self.close(answer)

    def open(self, host: Host, request: Request) -> urllib3.BaseHTTPResponse:
        """Send a request and return its answer, whatever its status, for `close`. Raises HostFailure, Cancelled."""
        refused = 0
        for number in range(MOST_TRIES):
            last = number + 1 == MOST_TRIES
            self.check()
            answer, sent = self._try(host, request, last)
            if answer is None:
                self._stopped.wait(0.05 * (number + 1))
            elif answer.status == 401 and request.authorised and refused < 2:
                refused += 1
                challenge = answer.headers.getlist("WWW-Authenticate")
                self.close(answer)
                self._refused(host, challenge, sent)
            elif answer.status in BUSY and request.patient and not last:
                self.close(answer)
                self._stopped.wait(_wait(answer, number))
            else:
                return answer
        raise HostFailure(host, "refused every attempt to log in", Unauthenticated)

    def close(self, answer: urllib3.BaseHTTPResponse) -> None:
        """Let go of an answer."""
        with self._lock:
            self._open.discard(answer)
        release(answer)

    def _refused(self, host: Host, challenge: list[str], sent: str) -> None:
        try:
            self._authorizer.challenged(host, challenge, sent)
        except Error as error:
            raise HostFailure(host, str(error), type(error)) from None

    def _try(self, host: Host, request: Request, last: bool) -> tuple[urllib3.BaseHTTPResponse | None, str]:
        """Send a request once; no answer is given when the connection failed and another may not."""
        try:
            sent = self._authorizer.header(host, request.scopes) if request.authorised else ""
        except Error as error:
            raise HostFailure(host, str(error), type(error)) from None
        try:
            return self._follow(host, request, sent), sent
        except Unreachable as error:
            self.check()
            if error.plain and host.falls_back and host.authority not in self._clear:
                self._clear.add(host.authority)
                return None, sent
            if last or not request.patient:
                raise HostFailure(host, str(error)) from None
            return None, sent

    def _follow(self, host: Host, request: Request, sent: str) -> urllib3.BaseHTTPResponse:
        url = request.url or self._url(host, request)
        own = request.authorised and _place(url) == _place(self._base(host))
        method, body = request.method, request.body
        for _ in range(MOST_REDIRECTS + 1):
            headers = self._all_headers(host, request, sent) if own else self._bare_headers(request)
            answer = self._send(method, url, headers, host, body)
            target = answer.headers.get("Location", "")
            if answer.status not in REDIRECTS or not target or method not in ("GET", "HEAD"):
                return answer
            self.close(answer)
            url = _redirected(host, url, target)
            own = own and _place(url) == _place(self._base(host))
        raise HostFailure(host, f"redirects more than {MOST_REDIRECTS} times")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], host: Host, body: Body | None
    ) -> urllib3.BaseHTTPResponse:
        shown = failures.shown_url(url)
        try:
            answer = self._transport.send(method, url, headers, host.tls, host.dial_timeout, body)
        except Unreachable as error:
            self._tell(f"{method} {shown}: {error}")
            raise
        answer.url = url  # as asked: urllib3 keeps the path alone
        self._tell(f"{method} {shown}: {answer.status}")
        with self._lock:
            self._open.add(answer)
        if self._stopped.is_set():
            self.close(answer)
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


def shut_down(answer: urllib3.BaseHTTPResponse) -> None:
    """Make a read in another thread end now."""
    try:
        if isinstance(answer, urllib3.HTTPResponse):
            answer.shutdown()
    except (ValueError, RuntimeError, OSError, HTTPError):
        pass  # its connection has been given back already, or never was one of a socket


def _place(url: str) -> tuple[str, str, int]:
    """Return what has to be the same for credentials to be sent."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def _redirected(host: Host, url: str, target: str) -> str:
    """Return where a redirect leads. Raises HostFailure for what is not http."""
    try:
        joined = urljoin(url, target)
        parts = urlsplit(joined)
        _ = parts.port  # raises ValueError for what is no number
    except ValueError:
        raise HostFailure(host, "redirects to what is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise HostFailure(host, f"redirects to {failures.shown_url(joined)}, which is not followed")
    return joined


def _wait(answer: urllib3.BaseHTTPResponse, number: int) -> float:
    """Return the seconds until a busy host is asked again."""
    asked = answer.headers.get("Retry-After", "")
    if asked.isdecimal() and len(asked) < 6:
        return min(float(asked), LONGEST_WAIT)
    return 0.25 * float(1 << number) * random.uniform(0.8, 1.2)


def each_scope(reference: Reference, *actions: str, source: str = "") -> tuple[str, ...]:
    """Return the scopes for actions on a repository, and for reading another one that blobs are mounted from."""
    scopes: Iterable[str] = (f"repository:{reference.repository}:{','.join(actions)}",)
    return (*scopes, f"repository:{source}:pull") if source else tuple(scopes)
