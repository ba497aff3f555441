"""Connections to hosts: kept open, each with its own TLS, through the environment's proxies; nothing is tried twice."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from http.client import BadStatusLine, HTTPException
from typing import IO, Any

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
"""Bytes of a body nobody wants that are read all the same, since a new connection costs more."""
_PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""What OpenSSL says of a peer that answers in clear."""

Body = Callable[[], IO[bytes] | io.RawIOBase | bytes]
"""Gives what is sent, each time from its beginning."""


# Whoever writes skip_verify into a hosts.toml has been asked already.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


class Unreachable(Exception):
    """A host did not answer; ``plain`` says that it may speak http in place of https."""

    def __init__(self, reason: str, plain: bool = False) -> None:
        """Say why."""
        super().__init__(reason)
        self.plain = plain


class Watch:
    """The connections on which a session waits for answers, so that another thread can end the wait."""

    def __init__(self) -> None:
        """Watch none yet."""
        self._connections: set[HTTPConnection] = set()
        self._lock = threading.Lock()

    def begin(self, connection: HTTPConnection) -> None:
        """A request is about to be sent."""
        with self._lock:
            self._connections.add(connection)

    def end(self) -> None:
        """The answer to this thread's request has come, or never will."""
        own = getattr(_waiting, "connection", None)
        with self._lock:
            self._connections.discard(own)

    def abort(self) -> None:
        """Shut all connections down."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            try:
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)
            except (OSError, ValueError):
                pass  # it has ended by itself


_waiting = threading.local()
"""Of each thread: the watch of its session, and the connection that it waits for."""


class _Watched:
    """A connection that says when it is used."""

    def request(self, *arguments: Any, **named: Any) -> None:  # Any: as urllib3's own, whatever they are
        _waiting.connection = self
        _waiting.watch.begin(self)
        super().request(*arguments, **named)  # type: ignore[misc] # of the connection that this is mixed into


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
        """Connect to nobody yet."""
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
        """Send one request and return its answer, whose body the caller reads and releases. Raises Unreachable.

        ``watch`` can end the wait.
        """
        timeout = urllib3.Timeout(connect=dial, read=RESPONSE_TIMEOUT)
        with self._pools.use(url, tls) as pool:
            _waiting.watch = watch
            try:
                return pool.urlopen(
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

    def close(self) -> None:
        """Close what is idle; answers that are being read are their readers'."""
        self._pools.close()


def release(answer: urllib3.BaseHTTPResponse) -> None:
    """Give an answer's connection back to its pool, or close it if too much of its body was not read."""
    left = getattr(answer, "length_remaining", None)
    if left is not None and left <= DRAINED:
        answer.drain_conn()
        answer.release_conn()
    else:
        answer.close()


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
        return "its answer is no HTTP"
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
