"""Connections that are kept open between requests, by host, TLS settings and proxy, and closed when they are idle."""

from __future__ import annotations

import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from windlass.errors import FailedPrecondition
from windlass_registry.failures import shown_proxy
from windlass_registry.hosts import Tls, is_loopback

IDLE_CONNECTIONS = 10
IDLE = 30.0
"""Seconds after which the connections to a host that is not asked any more are closed, as in containerd."""
BLOCK = 256 << 10
"""Bytes that an upload reads at a time."""

_Key = tuple[object, ...]


@dataclass
class _Pool:
    """The connections to one host."""

    manager: urllib3.PoolManager
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class Pools:
    """Any number of threads may use them."""

    def __init__(self, classes: dict[str, type[urllib3.HTTPConnectionPool]]) -> None:
        """Keep connections of ``classes``, by scheme; make no connection yet."""
        self._classes = classes
        self._pools: dict[_Key, _Pool] = {}
        self._contexts: dict[_Key, ssl.SSLContext] = {}
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    @contextmanager
    def use(self, url: str, tls: Tls) -> Iterator[urllib3.PoolManager]:
        """Give the connections for ``url``, as long as a request is sent. Raises FailedPrecondition (files of TLS)."""
        pool = self._enter(url, tls)
        try:
            yield pool.manager
        finally:
            with self._lock:
                pool.users -= 1
                pool.used = time.monotonic()

    def _enter(self, url: str, tls: Tls) -> _Pool:
        proxy = proxy_of(url)
        secure = any(each.startswith("https:") for each in (url, proxy))
        trust = (tls, _stamps(tls))
        key = (urlsplit(url).netloc, proxy, secure, *trust)
        with self._lock:
            if key not in self._pools:
                # Without need no context: to read the machine's certificates takes a fifth of a small pull's time.
                if secure and trust not in self._contexts:
                    self._contexts[trust] = _context(tls)
                self._pools[key] = _Pool(self._manager(proxy, self._contexts[trust] if secure else None))
            pool = self._pools[key]
            pool.users += 1
            self._arm()
            return pool

    def _manager(self, proxy: str, context: ssl.SSLContext | None) -> urllib3.PoolManager:
        make = partial(_through, proxy) if proxy else urllib3.PoolManager
        manager = make(maxsize=IDLE_CONNECTIONS, blocksize=BLOCK, ssl_context=context)
        manager.pool_classes_by_scheme = self._classes
        return manager

    def _arm(self) -> None:
        """Close idle connections later, from a thread that lives as long as there are any."""
        if self._timer is None:
            self._timer = threading.Timer(IDLE, self._tidy)
            self._timer.daemon = True
            self._timer.start()

    def _tidy(self) -> None:
        before = time.monotonic() - IDLE
        with self._lock:
            self._timer = None
            idle = [key for key, pool in self._pools.items() if not pool.users and pool.used <= before]
            gone = [self._pools.pop(key) for key in idle]
            if self._pools:
                self._arm()
            else:
                self._contexts.clear()
        for pool in gone:
            _close(pool.manager)

    def close(self) -> None:
        """Close idle connections; those of answers that are being read stay open."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            pools, self._pools = self._pools, {}
            self._contexts.clear()
        for pool in pools.values():
            _close(pool.manager)


def _close(manager: urllib3.PoolManager) -> None:
    """Close idle connections, also while one is being read, for which the manager's own `clear` would keep them."""
    for key in manager.pools.keys():  # noqa: SIM118 # it cannot be iterated otherwise
        pool = manager.pools.get(key)
        if pool is not None:
            pool.close()
    manager.clear()


def proxy_of(url: str) -> str:
    """Return the environment's proxy for a URL, empty for none; this machine is never asked through one."""
    parts = urlsplit(url)
    if is_loopback(parts.netloc) or urllib.request.proxy_bypass(parts.netloc):
        return ""
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _through(proxy: str, maxsize: int, blocksize: int, ssl_context: ssl.SSLContext | None) -> urllib3.ProxyManager:
    try:
        user = urlsplit(proxy).netloc.rpartition("@")[0]
        headers = urllib3.make_headers(proxy_basic_auth=unquote(user)) if user else None
        return urllib3.ProxyManager(
            proxy, proxy_headers=headers, maxsize=maxsize, blocksize=blocksize, ssl_context=ssl_context
        )
    except (HTTPError, ValueError):
        raise FailedPrecondition(
            f"the environment's proxy {shown_proxy(proxy)} cannot be used; write it as http://name:port"
        ) from None


def _stamps(tls: Tls) -> tuple[int, ...]:
    """Return the times of the files of TLS: renewed certificates need a new context."""
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
