"""Tokens: what a client of the streaming server shows for a request that the kubelet made (docs/containerd 5.8)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from windlass.errors import ResourceExhausted

T = TypeVar("T")

LIFETIME = 60.0
MOST = 1000


class Tokens(Generic[T]):
    """Requests by their tokens; each is good once, and for a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Have none."""
        self._clock = clock
        self._requests: dict[str, tuple[float, T]] = {}

    def add(self, request: T) -> str:
        """Keep a request and return its token: 8 characters that fit into a URL.

        Raises ResourceExhausted when too many wait.
        """
        now = self._clock()
        # In the order of their age, so the loop ends at the first that lives.
        for token, (until, _) in list(self._requests.items()):
            if until > now:
                break
            del self._requests[token]
        if len(self._requests) >= MOST:
            raise ResourceExhausted(f"{MOST} streaming requests wait for their clients; try again later")
        token = secrets.token_urlsafe(6)
        self._requests[token] = (now + LIFETIME, request)
        return token

    def take(self, token: str) -> T | None:
        """Return the request and forget it; None for a token that is unknown, used or too old."""
        until, request = self._requests.pop(token, (0.0, None))
        return request if until > self._clock() else None
