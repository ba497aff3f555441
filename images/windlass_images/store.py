"""The place of the work on images: one namespace of a daemon, seen from inside or through its API.

The daemon has one of these over its metadata store, a client one over its
connection; the work on images is written once, against this. Values and
errors are the kernel's. Everything here may be called by any number of tasks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from windlass.contracts.content import Info as BlobInfo
from windlass.contracts.images import Image
from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Info as SnapshotInfo
from windlass.contracts.snapshots import Usage
from windlass.contracts.values import Descriptor


class Content(Protocol):
    """Blobs of the namespace."""

    async def info(self, digest: str) -> BlobInfo:
        """Return size and labels of a blob. Raises NotFound."""
        ...

    async def label(self, digest: str, labels: Mapping[str, str]) -> None:
        """Set labels of a blob; an empty value removes one. Raises NotFound."""
        ...

    async def read(self, digest: str, limit: int) -> bytes:
        """Return a whole blob. Raises NotFound, OutOfRange when it is longer than ``limit`` bytes."""
        ...

    async def head(self, digest: str, size: int) -> bytes:
        """Return the first ``size`` bytes of a blob, fewer of a shorter one."""
        ...

    def chunks(self, digest: str) -> AsyncIterator[bytes]:
        """Yield a blob in parts of a megabyte at most. Raises NotFound."""
        ...

    async def write(
        self,
        ref: str,
        chunks: AsyncIterator[bytes],
        size: int,
        expected: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Write a blob of ``size`` bytes and return its digest; nothing is kept of one that fails.

        ``expected`` is its digest where that is known: of a blob that is there already nothing is written.
        Raises FailedPrecondition for other bytes than expected, DataLoss for too few.
        """
        ...


class Images(Protocol):
    """Images of the namespace."""

    async def get(self, name: str) -> Image:
        """Return an image. Raises NotFound."""
        ...

    async def list(self, *filters: str) -> Sequence[Image]:
        """Return the images that match one of the filters, all without any."""
        ...

    async def put(self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None) -> Image:
        """Create an image, or let an existing one point to ``target``."""
        ...

    async def delete(self, name: str, sync: bool = False) -> None:
        """Delete an image; with ``sync`` what only it needed is gone on return. Raises NotFound."""
        ...


class Snapshots(Protocol):
    """Snapshots of the namespace; each call names its snapshotter."""

    async def stat(self, snapshotter: str, key: str) -> SnapshotInfo:
        """Return a snapshot's record. Raises NotFound."""
        ...

    async def hold(self, snapshotter: str, name: str) -> None:
        """Have the store's lease keep a snapshot, whether it is there or not; without a lease nothing does."""
        ...

    async def usage(self, snapshotter: str, key: str) -> Usage:
        """Return the usage of a snapshot itself. Raises NotFound."""
        ...

    async def prepare(
        self, snapshotter: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Mount]:
        """Open a writable snapshot over a committed parent and return its mounts. Raises AlreadyExists, NotFound."""
        ...

    async def view(self, snapshotter: str, key: str, parent: str = "") -> Sequence[Mount]:
        """Open a read-only snapshot over a committed parent and return its mounts."""
        ...

    async def commit(
        self, snapshotter: str, name: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> None:
        """Freeze an active snapshot; ``parent`` rebases one that was prepared without any, see `capabilities`.

        What it was labelled with before is gone: ``labels`` are those of the frozen one. Raises AlreadyExists (name).
        """
        ...

    async def remove(self, snapshotter: str, key: str) -> None:
        """Remove a snapshot that has no children. Raises NotFound."""
        ...

    async def capabilities(self, snapshotter: str) -> frozenset[str]:
        """Return the capabilities of a snapshotter, such as ``rebase``. Raises NotFound without one."""
        ...


class Store(Protocol):
    """One namespace of a daemon; a `lease` keeps objects that are made under it from garbage collection."""

    @property
    def content(self) -> Content:
        """The namespace's blobs."""
        ...

    @property
    def images(self) -> Images:
        """The namespace's images."""
        ...

    @property
    def snapshots(self) -> Snapshots:
        """The namespace's snapshots."""
        ...

    @property
    def lease_id(self) -> str:
        """The lease that this store works under, empty for none."""
        ...

    def lease(self, label: str = "") -> AbstractAsyncContextManager[Store]:
        """Give a store that works under a new lease, which expires after a day and is deleted at the context's end.

        ``label`` says what it is for. When the context ends with an error, what only the lease
        kept is gone afterwards.
        """
        ...

    async def apply(self, desc: Descriptor, mounts: Sequence[Mount], detached: bool = False) -> Descriptor:
        """Apply a layer onto mounts; return media type, diff ID and size of its plain tar.

        ``detached`` says that what is below the layer is not there, and that it is to be refused
        with FailedPrecondition if that makes a difference.
        Raises Unimplemented for a media type that no differ knows, InvalidArgument for a damaged layer.
        """
        ...
