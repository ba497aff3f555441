"""Small blobs in memory: the manifests and configurations that clients read again for every container."""

from __future__ import annotations

import threading
from collections import OrderedDict

from windlass.contracts.content import Reader

LARGEST = 64 << 10
"""Bytes of a blob that is worth keeping."""

CAPACITY = 2 << 20
"""Bytes that are kept in all, `OVERHEAD` of each blob included."""

OVERHEAD = 300
"""Bytes that a blob takes besides its own, for the digest and its places."""


class SmallBlobs:
    """The small blobs that were read last, by their digests, which their bytes can never change."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Keep nothing yet, and up to ``capacity`` bytes."""
        self._capacity = capacity
        self._blobs: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._guard = threading.Lock()

    def get(self, digest: str) -> bytes | None:
        """Return a blob that is kept."""
        with self._guard:
            data = self._blobs.get(digest)
            if data is not None:
                self._blobs.move_to_end(digest)
            return data

    def read(self, digest: str, reader: Reader) -> bool:
        """Keep a blob if it is small, and return whether it is; those that were read least recently make room."""
        size = reader.size
        if size > LARGEST or digest in self._blobs:
            return size <= LARGEST
        data = reader.read_at(0, size)
        if len(data) != size:
            return True
        with self._guard:
            if self._blobs.pop(digest, None) is None:
                self._size += size + OVERHEAD
            self._blobs[digest] = data
            while self._size > self._capacity:
                self._size -= len(self._blobs.popitem(last=False)[1]) + OVERHEAD
        return True
