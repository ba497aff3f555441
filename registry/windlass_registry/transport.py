"""Connections to hosts: kept open, with TLS of their own, through the environment's proxies; no request is repeated."""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.client import BadStatusLine, HTTPException
from typing import IO

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from windlass_registry.hosts import Tls
from windlass_registry.pools import Pools

RESPONSE_TIMEOUT = 30.0
"""Seconds that a peer may be silent."""
DRAINED = 16 << 10
"""Bytes of an unwanted body that are still read, because a new connection costs more."""
DRAIN_TIME = 1.0
"""Seconds in which they have to come."""
_PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""What OpenSSL says of a peer that answers in clear."""

Body = Callable[[], IO[bytes] | io.RawIOBase | bytes]
"""Returns the body of a request, each time from its beginning."""


# skip_verify in a hosts.toml is the operator's decision, so no warning is due.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


class Unreachable(Exception):
    """A host did not answer; ``plain`` says that it may speak http instead of https."""

    def __init__(self, reason: str, plain: bool = False) -> None:
        """Take the reason."""
        super().__init__(reason)
        self.plain = plain


class Watch:
    """The connections that a session waits for; `abort` in another thread ends the waits, and no new one begins."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._connections: set[HTTPConnection] = set()
        self._answers: set[urllib3.BaseHTTPResponse] = set()
        self._aborted = False
        self._lock = threading.Lock()

    def begin(self, connection: HTTPConnection) -> None:
        """Note that a connection is about to be used. Raises ConnectionAbortedError."""
        self.check()
        with self._lock:
            self._connections.add(connection)

    def check(self) -> None:
        """Raise ConnectionAbortedError after `abort`."""
        if self._aborted:
            raise ConnectionAbortedError("the transfer was cancelled")

    def end(self) -> None:
        """Note that the answer to this thread's request has come, or never will."""
        own = getattr(_waiting, "connection", None)
        with self._lock:
            self._connections.discard(own)

    def keep(self, answer: urllib3.BaseHTTPResponse) -> None:
        """Note that an answer is about to be read."""
        with self._lock:
            self._answers.add(answer)
        if self._aborted:
            _shut_down(answer)

    def let_go(self, answer: urllib3.BaseHTTPResponse) -> None:
        """Give up an answer; its connection is used again, or closed."""
        try:
            _release(answer)
        finally:
            with self._lock:
                self._answers.discard(answer)

    def abort(self) -> None:
        """Shut all connections down."""
        self._aborted = True
        with self._lock:
            connections, answers = list(self._connections), list(self._answers)
        for connection in connections:
            try:
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)
            except (OSError, ValueError):
                pass  # it has ended by itself
        for answer in answers:
            _shut_down(answer)


_waiting = threading.local()
"""Of each thread: the watch of its session, and the connection that it waits for."""


class _Watched:
    """A connection that reports its use to its watch."""

    def connect(self) -> None:
        self._begin()
        super().connect()  # type: ignore[misc] # of the connection that this is mixed into
        # Where TLS is agreed upon it has no socket that could be shut down.
        _waiting.watch.check()

    def request(self, *arguments: object, **named: object) -> None:
        self._begin()
        super().request(*arguments, **named)  # type: ignore[misc] # as above

    def _begin(self) -> None:
        _waiting.connection = self
        _waiting.watch.begin(self)


class _HTTPConnection(_Watched, HTTPConnection):
    pass


class _HTTPSConnection(_Watched, HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class Transport:
    """Sends requests over connections that are kept open."""

    def __init__(self) -> None:
        """Make no connection yet."""
        self._pools = Pools({"http": _HTTPPool, "https": _HTTPSPool})

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        tls: Tls,
        dial: float,
        watch: Watch,
        body: Body | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Send one request and return its answer, for ``watch`` to `Watch.let_go`. Raises Unreachable.

        ``watch`` can end the wait, and the reading.
        """
        timeout = urllib3.Timeout(connect=dial, read=RESPONSE_TIMEOUT)
        with self._pools.use(url, tls) as pool:
            _waiting.watch = watch
            try:
                answer = pool.urlopen(
                    method,
                    url,
                    body=None if body is None else body(),
                    headers=dict(headers),
                    timeout=timeout,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
            except (HTTPError, HTTPException, OSError, UnicodeError) as error:
                raise Unreachable(explain(error, dial), _is_plain(error)) from None
            finally:
                watch.end()
            watch.keep(answer)
            return answer

    def close(self) -> None:
        """Close idle connections; those of answers that are being read stay open."""
        self._pools.close()


def _release(answer: urllib3.BaseHTTPResponse) -> None:
    """Give an answer's connection back to its pool, or close it if too much of its body was not read."""
    left = getattr(answer, "length_remaining", None)
    if left is not None and left <= DRAINED and _is_drained(answer):
        answer.release_conn()
    else:
        answer.close()


def _is_drained(answer: urllib3.BaseHTTPResponse) -> bool:
    """Read the rest of a body; return whether it arrived in time."""
    if not isinstance(answer, urllib3.HTTPResponse):
        return False
    end = time.monotonic() + DRAIN_TIME
    try:
        while answer.read1(DRAINED, decode_content=False):
            if time.monotonic() > end:
                return False
    except (HTTPError, HTTPException, OSError, RuntimeError):
        return False  # RuntimeError: what has come so far was unpacked
    return True


def _shut_down(answer: urllib3.BaseHTTPResponse) -> None:
    """Make a read in another thread end now."""
    try:
        if isinstance(answer, urllib3.HTTPResponse):
            answer.shutdown()
    except (ValueError, RuntimeError, OSError, HTTPError):
        pass  # its connection has been given back already, or never was one of a socket


def _is_plain(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, SSLError) and any(word in text for word in _PLAIN)


def explain(error: BaseException, dial: float = 0.0) -> str:
    """Return why a connection failed, in one line, without URLs."""
    if isinstance(error, NewConnectionError):  # which urllib3 derives from the next
        return _cause(error)
    if isinstance(error, ConnectTimeoutError):
        return f"no connection within {dial:g} s"
    if isinstance(error, ReadTimeoutError):
        return f"no answer within {RESPONSE_TIMEOUT:g} s"
    if isinstance(error, ProxyError):
        return f"the proxy failed: {_cause(error)}"
    if isinstance(error, SSLError):
        return f"TLS: {_cause(error)}"
    return _cause(error) or type(error).__name__


def _cause(error: BaseException) -> str:
    """Return the innermost reason; urllib3's own messages name objects and URLs."""
    found: BaseException = error
    while (
        not _is_no_http(found)
        and (inner := found.__cause__ or found.__context__ or _argument(found)) is not None
        and inner is not found
    ):
        found = inner
    if _is_no_http(found):
        return "its answer is not HTTP"
    if isinstance(found, ssl.SSLCertVerificationError):
        return f"the certificate was not accepted: {found.verify_message}"
    if isinstance(found, OSError) and found.strerror:
        return found.strerror
    return " ".join(str(found).split())[:200]


def _is_no_http(error: BaseException) -> bool:
    # A ValueError is a number that cannot be read. A connection that was closed is a bad status line too.
    return type(error) is ValueError or (isinstance(error, BadStatusLine) and not isinstance(error, ConnectionError))


def _argument(error: BaseException) -> BaseException | None:
    return next((argument for argument in error.args if isinstance(argument, BaseException)), None)
