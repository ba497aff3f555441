"""Unpacking: layers become snapshots, each committed under the chain ID of all up to it (reference 6.5.7)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence

from windlass.errors import AlreadyExists, Error, InvalidArgument, NotFound, Unavailable
from windlass.mounts import Mount
from windlass.values import Descriptor
from windlass_images.imagetree import Leaf
from windlass_images.manifests import chain_id
from windlass_images.store import Store

TRIES = 3
REF = "containerd.io/snapshot.ref"
DIFF_ID = "containerd.io/snapshot/diff-id"
PARENT = "containerd.io/snapshot/parent-chain-id"
INHERITED = "containerd.io/snapshot/"
UNCOMPRESSED = "containerd.io/uncompressed"
KEEP_SNAPSHOT = "containerd.io/gc.ref.snapshot."


async def unpack(store: Store, snapshotter: str, leaf: Leaf, progress: Callable[[str, str, int, int], None]) -> str:
    """Make a snapshot of an image, of its layers only those that are not there yet, and return its name."""
    diff_ids, layers = leaf.image.diff_ids, leaf.manifest.layers
    missing = len(layers)
    while missing and not await exists(store, snapshotter, chain_id(diff_ids[:missing])):
        missing -= 1
    for number in range(missing, len(layers)):
        progress("unpacking", layers[number].digest, number, len(layers))
        await _layer(store, snapshotter, layers[number], diff_ids[: number + 1])
        progress("unpacking", layers[number].digest, number + 1, len(layers))
    chain = leaf.image.chain_id
    if chain:
        await store.content.label(leaf.manifest.config.digest, {KEEP_SNAPSHOT + snapshotter: chain})
    return chain


async def exists(store: Store, snapshotter: str, name: str) -> bool:
    """Tell whether there is a snapshot of that name."""
    try:
        await store.snapshots.stat(snapshotter, name)
    except NotFound:
        return False
    return True


async def _layer(store: Store, snapshotter: str, layer: Descriptor, diff_ids: Sequence[str]) -> None:
    chain, parent, diff_id = chain_id(diff_ids), chain_id(diff_ids[:-1]), diff_ids[-1]
    own = {key: value for key, value in layer.annotations.items() if key.startswith(INHERITED)}
    labels = own | {REF: chain, DIFF_ID: diff_id} | ({PARENT: parent} if parent else {})
    for _ in range(TRIES):
        key = f"extract-{time.time_ns() % 1_000_000_000}-{secrets.token_urlsafe(3)} {chain}"
        try:
            mounts = await store.snapshots.prepare(snapshotter, key, parent, labels)
        except AlreadyExists:
            # Somebody else, or a remote snapshotter, has the result; unless it went away again.
            if await exists(store, snapshotter, chain):
                return
            continue
        await _fill(store, snapshotter, key, mounts, layer, diff_id, chain)
        return
    raise Unavailable(f"snapshot {chain} is being created and removed by somebody else; try again")


async def _fill(
    store: Store, snapshotter: str, key: str, mounts: Sequence[Mount], layer: Descriptor, diff_id: str, chain: str
) -> None:
    try:
        # A snapshotter that hands out something read-only has the files already (reference 6.5.7, "staged").
        if not mounts or "ro" not in mounts[-1].options:
            await _apply(store, mounts, layer, diff_id)
        try:
            await store.snapshots.commit(snapshotter, chain, key)
        except AlreadyExists:
            await store.snapshots.remove(snapshotter, key)
    except BaseException:
        try:
            await store.snapshots.remove(snapshotter, key)
        except Error:
            pass  # why the layer failed is what has to be told; the lease takes the snapshot along
        raise
    await store.content.label(layer.digest, {UNCOMPRESSED: diff_id})


async def _apply(store: Store, mounts: Sequence[Mount], layer: Descriptor, diff_id: str) -> None:
    try:
        applied = await store.apply(layer, mounts)
    except Error as error:
        raise type(error)(f"layer {layer.digest} cannot be unpacked: {error}") from None
    if applied.digest != diff_id:
        raise InvalidArgument(f"layer {layer.digest} unpacks to {applied.digest}, the config says {diff_id}")
