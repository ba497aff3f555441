"""Large blobs that are being read: open for a while, since clients come back for the next part (`ctr content get`)."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import cast

from windlass.contracts.content import CHUNK, Reader, ReadyReader
from windlass.errors import FailedPrecondition

CAPACITY = 16
LIFETIME = 10.0
"""Seconds without a read after which a blob is closed, when the next is opened."""


class OpenBlobs:
    """The readers of the blobs that were read last, by their digests; owns them."""

    def __init__(self) -> None:
        self._readers: OrderedDict[str, tuple[ReadyReader, float]] = OrderedDict()
        self._guard = threading.Lock()

    def read(self, digest: str, offset: int, length: int) -> tuple[int, bytes] | None:
        """Return the size of a blob and a part of it, None unless both can be had without waiting for a disk."""
        with self._guard:
            found = self._readers.get(digest)
            if found is None:
                return None
            reader = found[0]
            self._readers[digest] = reader, time.monotonic()
            self._readers.move_to_end(digest)
        end = min(offset + length, reader.size) if length > 0 else reader.size
        if offset >= end:
            return reader.size, b""
        if end - offset > CHUNK:
            return None
        try:
            data = reader.read_ready(offset, end - offset)
        except FailedPrecondition:
            return None  # it was closed meanwhile
        return None if data is None else (reader.size, data)

    def keep(self, digest: str, open: Callable[[], Reader]) -> None:
        """Open a blob, if it is not; those that were read least recently make room."""
        with self._guard:
            if digest in self._readers:
                return
        reader = open()
        if not hasattr(reader, "read_ready"):
            reader.close()
            return
        ready = cast(ReadyReader, reader)  # for it has what makes one, and may be behind the gate
        with self._guard:
            now = time.monotonic()
            old = [each for each, (_, used) in self._readers.items() if now - used > LIFETIME]
            closing = [self._readers.pop(each)[0] for each in old]
            if digest in self._readers:
                closing.append(self._readers.pop(digest)[0])
            self._readers[digest] = ready, now
            while len(self._readers) > CAPACITY:
                closing.append(self._readers.popitem(last=False)[1][0])
        for each in closing:
            each.close()

    def forget(self, digest: str) -> None:
        """Close a blob, so that its space is free when its name is gone."""
        with self._guard:
            found = self._readers.pop(digest, None)
        if found is not None:
            found[0].close()

    def close(self) -> None:
        """Close all."""
        with self._guard:
            readers = [reader for reader, _ in self._readers.values()]
            self._readers.clear()
        for each in readers:
            each.close()
