"""Unpacking: layers become snapshots, each committed under the chain ID of all up to it (docs/containerd 6.5.7).

A layer waits for its blob and for the one below. Where the snapshotter can rebase it waits for the one
below only to be committed, so that layers are applied side by side.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace

from windlass.contracts.diff import LABEL_UNCOMPRESSED
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from windlass_images.imagetree import Leaf
from windlass_images.manifests import chain_id
from windlass_images.store import Store

TRIES = 3
REF = "containerd.io/snapshot.ref"
DIFF_ID = "containerd.io/snapshot/diff-id"
PARENT = "containerd.io/snapshot/parent-chain-id"
INHERITED = "containerd.io/snapshot/"
KEEP_SNAPSHOT = "containerd.io/gc.ref.snapshot."
REBASE = "rebase"

Progress = Callable[[str, str, int, int], None]
"""Gets a verb, its object, the bytes done and all bytes."""


def ignore(verb: str, what: str, done: int, total: int) -> None:
    """Show no progress."""


async def _at_once(layer: Descriptor) -> None:
    """All layers are there."""


@dataclass(frozen=True)
class Ways:
    """How to unpack layers; the default is one by one, from blobs in the store."""

    width: int = 1
    """Layers that are applied at the same time, if the snapshotter can rebase."""
    ready: Callable[[Descriptor], Awaitable[None]] = _at_once
    """Returns when the blob of a layer is there. Raises why it will never be."""
    alone: Callable[[str], AbstractAsyncContextManager[None]] = lambda name: nullcontext()
    """Lets one at a time make the snapshot of a name, so that others need not make it too."""


async def unpack(store: Store, snapshotter: str, leaf: Leaf, progress: Progress, ways: Ways | None = None) -> str:
    """Make a snapshot of an image, of its layers only those that are not there yet, and return its name."""
    layers, diff_ids = leaf.manifest.filesystem, leaf.image.diff_ids
    if len(layers) != len(diff_ids):
        raise InvalidArgument(
            f"{leaf.target.digest} has {len(layers)} layers of a file system, but its config {len(diff_ids)} diff IDs"
        )
    await _Unpacking(store, snapshotter, leaf, progress, ways or Ways()).run()
    chain = leaf.image.chain_id
    if chain:
        await store.content.label(leaf.manifest.config.digest, {KEEP_SNAPSHOT + snapshotter: chain})
    return chain


async def exists(store: Store, snapshotter: str, name: str) -> bool:
    """Return whether there is a snapshot of that name."""
    try:
        await store.snapshots.stat(snapshotter, name)
    except NotFound:
        return False
    return True


async def held(store: Store, snapshotter: str, name: str) -> bool:
    """Return whether there is a snapshot of that name, which the store's lease keeps from now on.

    The snapshots below it stay with it. What is merely there may be another pull's, which fails, or be
    about to be collected.
    """
    if not await exists(store, snapshotter, name):
        return False
    await store.snapshots.hold(snapshotter, name)
    return await exists(store, snapshotter, name)


class _Unpacking:
    """The layers of one image on their way."""

    def __init__(self, store: Store, snapshotter: str, leaf: Leaf, progress: Progress, ways: Ways) -> None:
        self._store = store
        self._snapshotter = snapshotter
        self._layers = leaf.manifest.filesystem
        self._diff_ids = leaf.image.diff_ids
        self._progress = progress
        self._ways = ways
        self._room = asyncio.Semaphore(max(ways.width, 1))
        self._detached = False

    async def run(self) -> None:
        missing = len(self._layers)
        while missing and not await held(self._store, self._snapshotter, chain_id(self._diff_ids[:missing])):
            missing -= 1
        left = range(missing, len(self._layers))
        if len(left) > 1 and self._ways.width > 1:
            self._detached = REBASE in await self._store.snapshots.capabilities(self._snapshotter)
        loop = asyncio.get_running_loop()
        below: asyncio.Future[None] = loop.create_future()
        below.set_result(None)
        try:
            async with asyncio.TaskGroup() as group:
                for number in left:
                    below = group.create_task(self._layer(number, below))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None

    async def _layer(self, number: int, below: asyncio.Future[None]) -> None:
        """Make the snapshot of one layer; ``below`` is done when that of the layer below is committed."""
        layer, chain = self._layers[number], chain_id(self._diff_ids[: number + 1])
        detached = self._detached and number > 0
        if not detached:
            await below
        async with self._ways.alone(f"{self._snapshotter} {chain}"):
            if await held(self._store, self._snapshotter, chain):
                await below
                return
            await self._ways.ready(layer)
            try:
                key = await self._filled(number, detached)
            except FailedPrecondition:
                if not detached:
                    raise
                await below  # the layer needs the one below it
                detached = False
                key = await self._filled(number, detached)
            await self._commit(number, key, detached, below)
        await self._store.content.label(layer.digest, {LABEL_UNCOMPRESSED: self._diff_ids[number]})

    async def _filled(self, number: int, detached: bool) -> str:
        """Return the key of a snapshot with the layer in it, empty if there is one under its name already."""
        layer, diff_ids = self._layers[number], self._diff_ids[: number + 1]
        async with self._room:
            self._progress("unpacking", layer.digest, 0, layer.size)
            key, mounts = await self._prepare(layer, diff_ids, detached)
            if not key:
                return key
            try:
                # A snapshotter that hands out something read-only has the files already (6.5.7, "staged").
                if not mounts or "ro" not in mounts[-1].options:
                    await self._apply(_without_lower(mounts) if detached else mounts, layer, diff_ids[-1], detached)
            except BaseException:
                await self._drop(key)
                raise
            self._progress("unpacking", layer.digest, layer.size, layer.size)
            return key

    async def _prepare(self, layer: Descriptor, diff_ids: Sequence[str], detached: bool) -> tuple[str, Sequence[Mount]]:
        chain, parent = chain_id(diff_ids), chain_id(diff_ids[:-1])
        labels = _labels(layer, diff_ids)
        for _ in range(TRIES):
            key = f"extract-{time.time_ns() % 1_000_000_000}-{secrets.token_urlsafe(3)} {chain}"
            try:
                mounts = await self._store.snapshots.prepare(self._snapshotter, key, "" if detached else parent, labels)
            except AlreadyExists:
                # A remote snapshotter has the result; unless it went away again.
                if await held(self._store, self._snapshotter, chain):
                    return "", ()
                continue
            return key, mounts
        raise Unavailable(f"snapshot {chain} is being created and removed by another client; try again")

    async def _apply(self, mounts: Sequence[Mount], layer: Descriptor, diff_id: str, detached: bool) -> None:
        try:
            applied = await self._store.apply(layer, mounts, detached)
        except Error as error:
            raise type(error)(f"layer {layer.digest} cannot be unpacked: {error}") from None
        if applied.digest != diff_id:
            raise InvalidArgument(f"layer {layer.digest} unpacks to {applied.digest}, the config says {diff_id}")

    async def _commit(self, number: int, key: str, detached: bool, below: asyncio.Future[None]) -> None:
        if not key:
            await below
            return
        diff_ids = self._diff_ids[: number + 1]
        parent = chain_id(diff_ids[:-1]) if detached else ""
        labels = _labels(self._layers[number], diff_ids)
        try:
            await below
            await self._store.snapshots.commit(self._snapshotter, chain_id(diff_ids), key, parent, labels)
        except AlreadyExists:
            await self._drop(key)
        except BaseException:
            await self._drop(key)
            raise

    async def _drop(self, key: str) -> None:
        if not key:
            return
        try:
            await asyncio.shield(self._store.snapshots.remove(self._snapshotter, key))
        except Error:
            pass  # the caller gets the error of the layer; the snapshot goes with the lease


def _labels(layer: Descriptor, diff_ids: Sequence[str]) -> dict[str, str]:
    """Return the labels of a layer's snapshot, while it is being filled and afterwards."""
    own = {key: value for key, value in layer.annotations.items() if key.startswith(INHERITED)}
    parent = chain_id(diff_ids[:-1])
    return own | {REF: chain_id(diff_ids), DIFF_ID: diff_ids[-1]} | ({PARENT: parent} if parent else {})


def _without_lower(mounts: Sequence[Mount]) -> Sequence[Mount]:
    """Return the bind of an upper directory as an overlay of it alone, so that whiteouts become overlayfs' own."""
    if len(mounts) == 1 and mounts[0].type == "bind":
        return (replace(mounts[0], type="overlay", source="overlay", options=(f"upperdir={mounts[0].source}",)),)
    return mounts


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error: the others followed from it, or would make a message each."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
