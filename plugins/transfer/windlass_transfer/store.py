"""A namespace, seen from inside the daemon, as what `windlass_images` works on."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from windlass.contracts.content import CHUNK, ContentStore, Info, Reader, Writer
from windlass.contracts.diff import DETACHED, Differ
from windlass.contracts.gc import Collector
from windlass.contracts.images import Image, ImageStore
from windlass.contracts.leases import LABEL_EXPIRE, Resource
from windlass.contracts.metadata import Metadata
from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Info as SnapshotInfo
from windlass.contracts.snapshots import Snapshotter, Usage
from windlass.contracts.values import Descriptor, Payload
from windlass.errors import AlreadyExists, DataLoss, Error, NotFound, OutOfRange, Unavailable, Unimplemented
from windlass.gate import offload, offloaded
from windlass_images.turns import PATIENCE, Locked, Turn
from windlass_transfer.workers import settled

logger = logging.getLogger(__name__)

LEASE_SECONDS = 24 * 3600
"""What a killed daemon has fetched is kept so long for the next attempt (docs/containerd 6.5.1)."""
COMMIT_TIMEOUT = 1800.0
OPEN_TIMEOUT = 60.0


@dataclass(frozen=True)
class Parts:
    """The plugins that a store is made of; ``differs`` in the order in which they are asked."""

    metadata: Metadata
    collector: Collector
    differs: Mapping[str, Differ]
    capabilities: Mapping[str, frozenset[str]]
    """Of each snapshotter."""
    patience: float = PATIENCE
    """Seconds in which a registry, or another client that writes the same ingest, has to get on; 0 is without end."""


class LocalStore:
    """Implements `windlass_images.store.Store`."""

    def __init__(self, parts: Parts, namespace: str, lease: str) -> None:
        """Work in ``namespace``, under ``lease`` if there is one."""
        self.parts = parts
        self.namespace = namespace
        self._lease = lease
        self.content = LocalContent(parts.metadata.content(namespace, lease), parts.patience)
        self.images = LocalImages(parts, parts.metadata.images(namespace, lease))
        self.snapshots = LocalSnapshots(parts, namespace, lease)

    @property
    def lease_id(self) -> str:
        """The lease, empty for none."""
        return self._lease

    @asynccontextmanager
    async def lease(self, label: str = "") -> AsyncIterator[LocalStore]:
        """Give a store under a new lease; of a context that fails nothing stays."""
        leases = self.parts.metadata.leases(self.namespace)
        expires = datetime.fromtimestamp(time.time() + LEASE_SECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        labels = {LABEL_EXPIRE: expires} | ({"windlass.dev/for": label} if label else {})
        lease = f"{time.time_ns() % 1_000_000_000}-{secrets.token_urlsafe(9)}"
        try:
            await settled(offload(leases.create, lease, labels))
        except asyncio.CancelledError:  # it was created all the same
            await asyncio.shield(self._end(lease, False))
            raise
        failed = True
        try:
            yield LocalStore(self.parts, self.namespace, lease)
            failed = False
        finally:
            await asyncio.shield(self._end(lease, failed))

    async def _end(self, lease: str, collect: bool) -> None:
        try:
            await offload(self.parts.metadata.leases(self.namespace).delete, lease)
            if collect:
                await self.parts.collector.collect()
        except NotFound:
            pass
        except Error as error:  # what the lease was for has failed already, and that is what has to be told
            logger.warning("lease %s of namespace %s: %s", lease, self.namespace, error)

    async def apply(self, desc: Descriptor, mounts: Sequence[Mount], detached: bool = False) -> Descriptor:
        """Have the first differ that knows the media type apply a layer; how long that takes is the differ's to say."""
        payloads = {DETACHED: Payload("", b"")} if detached else {}
        view = self.parts.metadata.content(self.namespace, self._lease)
        problem = Unimplemented("no differ is configured")
        for differ in self.parts.differs.values():
            try:
                return await settled(offloaded(differ.apply, deadline=None)(view, desc, mounts, payloads))
            except Unimplemented as error:
                problem = error
        raise problem


class LocalContent:
    """Implements `windlass_images.store.Content`."""

    def __init__(self, view: ContentStore, patience: float) -> None:
        self.view = view
        self._patience = patience

    async def info(self, digest: str) -> Info:
        """Return size and labels of a blob."""
        return await offload(self.view.info, digest)

    async def label(self, digest: str, labels: Mapping[str, str]) -> None:
        """Set labels of a blob."""
        if labels:
            await offload(self.view.update, Info(digest, labels=labels), [f"labels.{key}" for key in labels])

    async def read(self, digest: str, limit: int) -> bytes:
        """Return a whole blob."""
        return await offload(_read, self.view, digest, limit)

    async def head(self, digest: str, size: int) -> bytes:
        """Return the first bytes of a blob."""
        return await offload(_head, self.view, digest, size)

    async def chunks(self, digest: str) -> AsyncIterator[bytes]:
        """Yield a blob."""
        reader = await offloaded(self.view.reader, deadline=OPEN_TIMEOUT, discard=_close)(Descriptor("", digest, 0))
        try:
            offset = 0
            while data := await offload(reader.read_at, offset, CHUNK):
                offset += len(data)
                yield data
        finally:
            await asyncio.shield(offload(reader.close))

    async def write(
        self,
        ref: str,
        chunks: AsyncIterator[bytes],
        size: int,
        expected: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Write a blob of ``size`` bytes and return its digest."""
        try:
            writer = await self._writer(ref, size, expected)
        except AlreadyExists:
            await self.label(expected, labels or {})
            return expected
        try:
            async for chunk in chunks:
                await settled(offload(writer.write, chunk))
            offset = writer.status().offset
            if offset != size:
                raise DataLoss(f"ingest {ref} has {offset} bytes in place of {size}")
            digest = await offload(writer.digest)
            desc = Descriptor("", expected or digest, size)
            await settled(offloaded(commit, deadline=COMMIT_TIMEOUT)(self.view, writer, desc, labels or {}))
        except BaseException:
            await asyncio.shield(offload(_give_up, self.view, writer, ref))
            raise
        return digest

    async def _writer(self, ref: str, size: int, expected: str) -> Writer:
        turn = self.turn(ref)
        while True:
            try:
                writer = await offloaded(opened, deadline=OPEN_TIMEOUT, discard=_close)(self.view, ref, size, expected)
            except Locked:
                await turn.wait()
                continue
            if writer.status().offset:
                await offload(writer.truncate, 0)
            return writer

    def turn(self, ref: str) -> Turn:
        """Return the wait for an ingest that another client writes."""

        async def offset() -> int:
            return (await offload(self.view.status, ref)).offset

        return Turn(ref, offset, self._patience)


def _close(opened: Reader | Writer) -> None:
    opened.close()


def opened(view: ContentStore, ref: str, size: int, expected: str, media_type: str = "") -> Writer:
    """Open an ingest. Raises AlreadyExists (blob), Locked."""
    try:
        return view.writer(ref, size, expected, media_type)
    except Unavailable as error:
        raise Locked(str(error)) from None


def _read(view: ContentStore, digest: str, limit: int) -> bytes:
    reader = view.reader(Descriptor("", digest, 0))
    try:
        if reader.size > limit:
            raise OutOfRange(f"blob {digest} has {reader.size} bytes, {limit} are the limit")
        return reader.read_at(0, reader.size)
    finally:
        reader.close()


def _head(view: ContentStore, digest: str, size: int) -> bytes:
    reader = view.reader(Descriptor("", digest, 0))
    try:
        return reader.read_at(0, min(size, reader.size))
    finally:
        reader.close()


def commit(view: ContentStore, writer: Writer, desc: Descriptor, labels: Mapping[str, str]) -> None:
    """Make an ingest a blob; one that has come otherwise meanwhile gets the labels."""
    try:
        writer.commit(desc.size, desc.digest, labels)
    except AlreadyExists:
        if labels:
            view.update(Info(desc.digest, labels=labels), [f"labels.{key}" for key in labels])


def _give_up(view: ContentStore, writer: Writer, ref: str) -> None:
    writer.close()
    forget(view, ref)


def forget(view: ContentStore, ref: str) -> None:
    """Give an ingest up, if it is there and nobody else's."""
    try:
        view.abort(ref)
    except (NotFound, Unavailable):
        pass


class LocalImages:
    """Implements `windlass_images.store.Images`."""

    def __init__(self, parts: Parts, view: ImageStore) -> None:
        self._collector = parts.collector
        self._view = view

    async def get(self, name: str) -> Image:
        """Return an image."""
        return await offload(self._view.get, name)

    async def list(self, *filters: str) -> Sequence[Image]:
        """Return the images that match."""
        return await offload(self._view.list, list(filters))

    async def put(self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None) -> Image:
        """Create or change an image."""
        image = Image(name, target, labels or {})
        while True:
            try:
                return await settled(offload(self._view.create, image))
            except AlreadyExists:
                pass
            try:
                return await settled(offload(self._view.update, image))
            except NotFound:
                pass  # removed in between

    async def delete(self, name: str, sync: bool = False) -> None:
        """Delete an image."""
        await offload(self._view.delete, name)
        if sync:
            await self._collector.collect()


class LocalSnapshots:
    """Implements `windlass_images.store.Snapshots`."""

    def __init__(self, parts: Parts, namespace: str, lease: str) -> None:
        self._parts = parts
        self._namespace = namespace
        self._lease = lease

    async def stat(self, snapshotter: str, key: str) -> SnapshotInfo:
        """Return what is known of a snapshot."""
        return await offload(self._view(snapshotter).stat, key)

    async def hold(self, snapshotter: str, name: str) -> None:
        """Have the lease keep a snapshot."""
        if self._lease:
            leases = self._parts.metadata.leases(self._namespace)
            await settled(offload(leases.add_resource, self._lease, Resource(name, f"snapshots/{snapshotter}")))

    async def usage(self, snapshotter: str, key: str) -> Usage:
        """Return what a snapshot itself takes."""
        return await offload(self._view(snapshotter).usage, key)

    async def prepare(
        self, snapshotter: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Mount]:
        """Open a writable snapshot."""
        return await settled(offload(self._view(snapshotter).prepare, key, parent, labels))

    async def view(self, snapshotter: str, key: str, parent: str = "") -> Sequence[Mount]:
        """Open a read-only snapshot."""
        return await settled(offload(self._view(snapshotter).view, key, parent))

    async def commit(
        self, snapshotter: str, name: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> None:
        """Freeze an active snapshot."""
        view = self._view(snapshotter)
        await settled(offloaded(view.commit, deadline=COMMIT_TIMEOUT)(name, key, labels, parent))

    async def remove(self, snapshotter: str, key: str) -> None:
        """Remove a snapshot."""
        await settled(offload(self._view(snapshotter).remove, key))

    async def capabilities(self, snapshotter: str) -> frozenset[str]:
        """Return what a snapshotter can do."""
        try:
            return self._parts.capabilities[snapshotter]
        except KeyError:
            raise NotFound(f"snapshotter {snapshotter} does not exist; `ctr plugins ls` lists those that do") from None

    def _view(self, snapshotter: str) -> Snapshotter:
        return self._parts.metadata.snapshotter(snapshotter, self._namespace, self._lease)
