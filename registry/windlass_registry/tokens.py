"""How a repository's requests are authorised: Basic, or tokens fetched from where the registry says.

Source: docs/containerd 6.3.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeGuard
from urllib.parse import urlencode, urlsplit

import urllib3

from windlass.contracts.transfer import Credentials
from windlass.errors import Unauthenticated, Unavailable
from windlass_registry import challenges, urls
from windlass_registry.challenges import Challenge
from windlass_registry.credentials import Ask
from windlass_registry.hosts import Host, is_loopback
from windlass_registry.transport import Transport, Unreachable, Watch

CLIENT_ID = "windlass"
ANSWER_LIMIT = 1 << 20
MARGIN = 10.0
"""Seconds before its end from which on a token is not used any more."""
MOST_SECONDS = 1 << 32
FALLS_BACK = frozenset({400, 401, 404, 405})
"""Answers to POST after which GET is tried: older token servers know nothing else."""


@dataclass
class _Known:
    """The authorisation of one host."""

    challenge: Challenge
    lock: threading.Lock = field(default_factory=threading.Lock)
    tokens: dict[tuple[str, ...], tuple[str, float]] = field(default_factory=dict)


class Authorizer:
    """Authorises requests to the hosts of one registry; tokens are shared by all threads, never by repositories."""

    def __init__(self, transport: Transport, reference: str, ask: Ask | None, agent: str) -> None:
        """Ask ``ask`` for credentials, once for each host."""
        self._transport = transport
        self._reference = reference
        self._ask = ask
        self._agent = agent
        self._known: dict[str, _Known] = {}
        self._credentials: dict[str, Credentials | None] = {}
        self._lock = threading.Lock()
        self.watch = Watch()
        """What it waits for, and the session with it."""

    def header(self, host: Host, scopes: Iterable[str]) -> str:
        """Return the Authorization for a request, empty as long as the host has not asked for any."""
        known = self._known.get(host.authority)
        if known is None:
            return ""
        if known.challenge.scheme == "basic":
            credentials = self._for(host)
            return f"Basic {_basic(credentials)}" if _is_pair(credentials) else ""
        return f"Bearer {self._token(known, host, _union(scopes, known.challenge))}"

    def challenged(self, host: Host, headers: Iterable[str], sent: str) -> None:
        """Take a host's 401 to a request that had ``sent`` as its Authorization. Raises Unauthenticated."""
        found = challenges.parse(headers)
        if not found:
            raise Unauthenticated(f"{host.authority} refuses without saying how to log in")
        challenge = found[0]
        with self._lock:
            known = self._known.get(host.authority)
            if known is None or known.challenge != challenge:
                known = self._known[host.authority] = _Known(challenge)
        if challenge.scheme == "basic" and sent.startswith("Basic "):
            raise Unauthenticated(f"{host.authority} does not accept the user name and password")
        if challenge.scheme == "basic" and not _is_pair(self._for(host)):
            raise Unauthenticated(f"{host.authority} wants a user name and a password, and none were given")
        with known.lock:
            known.tokens = {key: held for key, held in known.tokens.items() if sent != f"Bearer {held[0]}"}

    def _for(self, host: Host) -> Credentials | None:
        with self._lock:
            if host.authority in self._credentials or self._ask is None:
                return self._credentials.get(host.authority)
        found = self._ask(host.authority, self._reference)
        with self._lock:
            return self._credentials.setdefault(host.authority, found)

    def _token(self, known: _Known, host: Host, scopes: tuple[str, ...]) -> str:
        with known.lock:  # who comes while a token is being fetched waits for it
            token, end = known.tokens.get(scopes, ("", 0.0))
            if not token or time.monotonic() > end:
                token, seconds = self._fetch(known.challenge, host, scopes)
                known.tokens[scopes] = (token, time.monotonic() + seconds - MARGIN)
            return token

    def _fetch(self, challenge: Challenge, host: Host, scopes: tuple[str, ...]) -> tuple[str, float]:
        realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
        credentials = self._for(host)
        server = _check_realm(realm, host, credentials)
        if credentials is not None and credentials.secret:
            answer = self._post(realm, service, scopes, credentials, host)
            if answer.status not in FALLS_BACK:
                return self._read(answer, server)
            self.watch.let_go(answer)
        return self._read(self._get(realm, service, scopes, credentials, host), server)

    def _read(self, answer: urllib3.BaseHTTPResponse, server: str) -> tuple[str, float]:
        try:
            return _token_of(answer, server)
        finally:
            self.watch.let_go(answer)

    def _post(
        self, realm: str, service: str, scopes: tuple[str, ...], credentials: Credentials, host: Host
    ) -> urllib3.BaseHTTPResponse:
        form = {"scope": " ".join(scopes), "service": service, "client_id": CLIENT_ID}
        if credentials.username:
            form |= {"grant_type": "password", "username": credentials.username, "password": credentials.secret}
        else:
            form |= {"grant_type": "refresh_token", "refresh_token": credentials.secret}
        body = urlencode(form).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        return self._send("POST", realm, headers, host, lambda: body)

    def _get(
        self, realm: str, service: str, scopes: tuple[str, ...], credentials: Credentials | None, host: Host
    ) -> urllib3.BaseHTTPResponse:
        query = urlencode([("service", service)] * bool(service) + [("scope", scope) for scope in scopes])
        headers = {}
        if _is_pair(credentials):
            headers["Authorization"] = f"Basic {_basic(credentials)}"
        return self._send("GET", f"{realm}{'&' if '?' in realm else '?'}{query}", headers, host, None)

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], host: Host, body: Callable[[], bytes] | None
    ) -> urllib3.BaseHTTPResponse:
        headers = {"User-Agent": self._agent, "Accept": "application/json", **headers}
        try:
            return self._transport.send(method, url, headers, host.tls, host.dial_timeout, self.watch, body)
        except Unreachable as error:
            raise Unavailable(f"token server {urlsplit(url).netloc} of {host.authority}: {error}") from None


def _check_realm(realm: str, host: Host, credentials: Credentials | None) -> str:
    """Return the token server's name; a password goes in clear only to this machine, or where it went so before."""
    try:
        parts = urls.parse(realm)
    except urls.BadUrl as error:
        raise Unauthenticated(
            f"{host.authority} names no token server that can be asked: its realm is {error}"
        ) from None
    clear = parts.scheme == "http" and host.scheme == "https" and not is_loopback(parts.netloc)
    if clear and credentials is not None:
        raise Unauthenticated(
            f"{host.authority} wants the password sent to {parts.netloc} without encryption; it was not sent"
        )
    return parts.netloc


def _token_of(answer: urllib3.BaseHTTPResponse, server: str) -> tuple[str, float]:
    """Return token and lifetime in seconds."""
    try:
        if answer.status >= 500 or answer.status == 429:
            raise Unavailable(f"token server {server} answered {answer.status}")
        if answer.status != 200:
            raise Unauthenticated(f"token server {server} gave no token: it answered {answer.status}")
        data = answer.read(ANSWER_LIMIT + 1, decode_content=True)
    except (urllib3.exceptions.HTTPError, OSError):
        raise Unavailable(f"token server {server} broke off") from None
    try:
        document = json.loads(data) if len(data) <= ANSWER_LIMIT else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Unauthenticated(f"token server {server} gave no token: its answer is not a JSON object")
    token = document.get("access_token") or document.get("token")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise Unauthenticated(f"token server {server} gave no token")
    seconds = document.get("expires_in")
    if not isinstance(seconds, (int, float)) or not 0 < seconds < MOST_SECONDS:  # a larger integer may not fit a float
        return token, float("inf")
    return token, float(seconds)


def _union(scopes: Iterable[str], challenge: Challenge) -> tuple[str, ...]:
    return tuple(sorted({*scopes, *challenge.parameters.get("scope", "").split()}))


def _is_pair(credentials: Credentials | None) -> TypeGuard[Credentials]:
    return credentials is not None and bool(credentials.username and credentials.secret)


def _basic(credentials: Credentials) -> str:
    return base64.b64encode(f"{credentials.username}:{credentials.secret}".encode()).decode()
