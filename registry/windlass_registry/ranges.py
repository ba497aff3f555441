"""A large blob over several connections: fetches parts at the same time and returns them in order."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from windlass_registry.blobs import Blob, NoRanges
from windlass_registry.hosts import Host

PART = 8 << 20
"""Bytes of one request; as many as there are connections, and one more, are in memory."""
BLOCK = 1 << 20

Open = Callable[[int, "int | None"], Blob]
"""Opens the blob from an offset to an end, None is its own."""


class Ranges:
    """The bytes of a blob from an offset on, as `Blob` gives them; the reader must check the digest."""

    def __init__(self, open: Open, size: int, offset: int, width: int) -> None:
        """Fetch by ``width`` connections; from a host without ranges, by one."""
        self._open = open
        self._size = size
        self._next = self.began = self.position = offset
        self._pool = ThreadPoolExecutor(width, "range")
        self._width = width
        self._parts: deque[Future[bytes]] = deque()
        self._current = memoryview(b"")
        self._plain: Blob | None = None
        self.host: Host | None = None
        """The host that the first part came from."""

    def __enter__(self) -> Ranges:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up connections and bytes; wait for parts that are being fetched, unless the session is aborted."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        # An error's traceback leads here, and may be kept for long: some megabytes need not.
        self._parts.clear()
        self._current = memoryview(b"")
        if self._plain is not None:
            self._plain.close()

    def read(self, amount: int) -> bytes | memoryview:
        """Return up to ``amount`` bytes, none at the end. Raises as `Blob.read`."""
        if not self._current and self._plain is None and self.position < self._size:
            self._advance()
        if self._plain is not None:
            data: bytes | memoryview = self._plain.read(amount)
        else:
            data, self._current = self._current[:amount], self._current[amount:]
        self.position += len(data)
        return data

    def _advance(self) -> None:
        while len(self._parts) <= self._width and self._next < self._size:
            end = min(self._next + PART, self._size)
            fetch = contextvars.copy_context().run
            self._parts.append(self._pool.submit(fetch, self._fetch, self._next, end))
            self._next = end
        try:
            self._current = memoryview(self._parts.popleft().result())
        except NoRanges:
            self._parts.clear()
            self._plain = self._open(self.position, None)

    def _fetch(self, start: int, end: int) -> bytes:
        with self._open(start, end) as blob:
            data = b"".join(iter(lambda: blob.read(BLOCK), b""))
            if start == self.began:
                self.host = blob.host
            return data
