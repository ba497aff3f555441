"""Connections to hosts: kept open, each with its own TLS, through the environment's proxies; nothing is tried twice."""

from __future__ import annotations

import io
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Mapping
from http.client import BadStatusLine
from typing import IO, Any
from urllib.parse import urlsplit

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

from windlass.errors import FailedPrecondition
from windlass_registry.hosts import Tls, is_loopback

RESPONSE_TIMEOUT = 30.0
"""Seconds that a peer may be silent."""
IDLE_CONNECTIONS = 10
BLOCK = 256 << 10
"""Bytes that an upload reads at a time."""
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
    """Pools of connections, by TLS settings and proxy."""

    def __init__(self) -> None:
        """Connect to nobody yet."""
        self._pools: dict[object, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

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
        pool = self._pool(url, tls)
        _waiting.watch = watch
        timeout = urllib3.Timeout(connect=dial, read=RESPONSE_TIMEOUT)
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
        except (HTTPError, OSError) as error:
            raise Unreachable(explain(error, dial), _is_plain(error)) from None
        finally:
            watch.end()

    def _pool(self, url: str, tls: Tls) -> urllib3.PoolManager:
        proxy = proxy_of(url)
        secure = "https" in (urlsplit(url).scheme, urlsplit(proxy).scheme)
        key = (proxy, secure, tls, _stamps(tls))
        with self._lock:
            if key not in self._pools:
                # Without need no context: to read the machine's certificates takes a fifth of a small pull's time.
                # Any: each has its own type
                named: dict[str, Any] = {"ssl_context": _context(tls)} if secure else {}
                named |= {"maxsize": IDLE_CONNECTIONS, "blocksize": BLOCK}
                pool = urllib3.ProxyManager(proxy, **named) if proxy else urllib3.PoolManager(**named)
                pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
                self._pools[key] = pool
            return self._pools[key]

    def close(self) -> None:
        """Close what is idle; answers that are being read are their readers'."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.clear()


def release(answer: urllib3.BaseHTTPResponse) -> None:
    """Give an answer's connection back to its pool, or close it if too much of its body was not read."""
    left = getattr(answer, "length_remaining", None)
    if left is not None and left <= DRAINED:
        answer.drain_conn()
        answer.release_conn()
    else:
        answer.close()


def proxy_of(url: str) -> str:
    """Return the environment's proxy for a URL, empty for none; this machine is never asked through one."""
    parts = urlsplit(url)
    if is_loopback(parts.netloc) or urllib.request.proxy_bypass(parts.netloc):
        return ""
    return urllib.request.getproxies().get(parts.scheme, "")


def _stamps(tls: Tls) -> tuple[int, ...]:
    """Certificates that were renewed need a new context."""
    files = [*tls.cas, *(path for pair in tls.pairs for path in pair if path is not None)]
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in files)


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if tls.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in tls.cas:
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise FailedPrecondition(f"CA {path} cannot be used: {error.strerror or 'not PEM'}") from None
    for certificate, key in tls.pairs:
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or "certificate and key are not a pair in PEM"
            raise FailedPrecondition(f"client certificate {certificate} cannot be used: {reason}") from None
    return context


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
