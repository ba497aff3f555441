"""Contract: content stores, which keep blobs by their digests.

Bytes arrive through a *writer*, the open end of an *ingest* that is named by a
*ref*. `Writer.commit` makes the ingest a blob; a writer that is closed without
commit leaves the ingest, and the same ref continues it. One ref has one writer.
All methods are synchronous and may be called from any thread; one writer is
used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from windlass.contracts.values import Descriptor
from windlass.plugin import PluginType, contract
from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Info:
    """A blob's size, times and labels; size in bytes, times in nanoseconds since the epoch, UTC."""

    digest: str
    size: int = 0
    created_at: int = 0
    updated_at: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """State of an ingest: ``offset`` bytes are there of ``total`` (0: unknown) expected."""

    ref: str
    offset: int = 0
    total: int = 0
    expected: str = ""
    started_at: int = 0
    updated_at: int = 0


@contract
class Writer(Protocol):
    """The open end of an ingest."""

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data`` and return its length."""
        ...

    def digest(self) -> str:
        """Return the digest of the bytes so far."""
        ...

    def status(self) -> Status:
        """Describe the ingest."""
        ...

    def truncate(self, size: int) -> None:
        """Start again; only 0 is supported (docs/containerd 3.5). Raises Unimplemented."""
        ...

    def commit(self, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None) -> None:
        """Make the ingest a blob, durable before this returns, and close the writer.

        Raises FailedPrecondition when the size (0: any) or digest ("": any) differs, the
        ingest is kept; AlreadyExists when the blob is there, the ingest is removed.
        """
        ...

    def close(self) -> None:
        """Release the ref and keep the ingest; closing twice is fine."""
        ...


@contract
class Reader(Protocol):
    """Random access to one blob."""

    @property
    def size(self) -> int:
        """Length of the blob in bytes."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Return at most ``length`` bytes from ``offset``; fewer only at the end."""
        ...

    def fileno(self) -> int:
        """Return a descriptor open on the blob, for splice and for workers; the reader owns it."""
        ...

    def close(self) -> None:
        """Release the descriptor; closing twice is fine."""
        ...


@contract
class ReadyReader(Reader, Protocol):
    """A reader that can tell what it has to wait for."""

    def read_ready(self, offset: int, length: int) -> bytes | None:
        """Return exactly these bytes, None unless they are in memory and no other thread is reading."""
        ...


@contract
class ContentStore(Protocol):
    """Keeps blobs by their digests; see the module's text for the words."""

    def info(self, digest: str) -> Info:
        """Describe a blob. Raises NotFound, InvalidArgument (not a digest)."""
        ...

    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        """Change labels as `windlass.contracts.snapshots.Snapshotter.update` does. Raises NotFound."""
        ...

    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        """Yield every blob that matches one of ``filters``."""
        ...

    def delete(self, digest: str) -> None:
        """Forget a blob. Raises NotFound."""
        ...

    def reader(self, desc: Descriptor) -> Reader:
        """Open a blob by ``desc.digest``. Raises NotFound."""
        ...

    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> Writer:
        """Open the ingest ``ref``, or continue it.

        Only a ``size`` that contradicts the one it was begun with starts it again, as in containerd;
        ``expected`` may change. Who publishes events tells ``media_type`` of the blob; stores ignore it.
        Raises Unavailable while another writer has it; AlreadyExists when ``expected``
        is there; InvalidArgument without a ref.
        """
        ...

    def status(self, ref: str) -> Status:
        """Describe an ingest. Raises NotFound."""
        ...

    def statuses(self, filters: Sequence[str] = ()) -> list[Status]:
        """Describe every ingest that matches; the only field is ``ref``."""
        ...

    def abort(self, ref: str) -> None:
        """Discard an ingest. Raises NotFound; Unavailable while a writer has it open."""
        ...


CONTENT: PluginType[ContentStore] = PluginType("io.containerd.content.v1", ContentStore)


@contract
class RememberedContent(ContentStore, Protocol):
    """A namespace's view of a content store, which has some blobs at hand."""

    @property
    def namespace(self) -> str:
        """The namespace; a caller that hands digests to another process also hands over this."""
        ...

    def remembered(self, digest: str, offset: int = 0, length: int = 0) -> tuple[int, bytes] | None:
        """Return the size of a blob and a part of it, 0 is to its end; None for one that has to be read.

        At most `CHUNK` bytes, or more of a small blob. Raises as `info`.
        """
        ...


CHUNK = 1 << 20
"""Bytes that a reader is asked for, and a Read response carries, at most (docs/containerd 3.5)."""
