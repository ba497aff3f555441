"""The root file system of an image, mounted on a directory of the user's.

A lease named after the directory keeps what this needs: a snapshot, and sometimes mounts of the daemon's. Unmounting
the directory ends the lease, and the daemon removes the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.contracts.values import Platform
from windlass.errors import AlreadyExists, Error, InvalidArgument, NotFound, PermissionDenied, Unimplemented
from windlass_client.client import Client
from windlass_client.store import ClientStore
from windlass_images.imagetree import resolve
from windlass_images.unpack import unpack
from windlass_linux import mounting
from windlass_remote.messages import from_mounts, to_mounts

IMAGE = "windlass.client/image"
TARGET = "windlass.client/target"
SAFE = ("nosuid", "nodev")
"""Mount options: set-user-ID bits and device files of an image have no effect."""


@dataclass(frozen=True)
class Mounted:
    """An image that is mounted."""

    image: str
    target: str


def lease_of(target: str) -> str:
    """Return the lease, and the snapshot's key, that belong to a path."""
    return f"windlass-mount-{hashlib.sha256(os.fsencode(target)).hexdigest()[:32]}"


async def mount(
    client: Client,
    name: str,
    target: str,
    platform: Platform,
    snapshotter: str,
    writable: bool = False,
    options: Sequence[str] = SAFE,
) -> Mounted:
    """Mount an image on an empty directory. When that fails nothing is left. Raises AlreadyExists for a used path."""
    path = await asyncio.to_thread(_directory, target)
    leaf = await resolve(ClientStore(client), name, platform)
    lease = lease_of(path)
    try:
        await client.leases.create(0, "mount", lease, {IMAGE: name, TARGET: path})
    except AlreadyExists:
        raise AlreadyExists(f"{path} has an image mounted already; unmount it with `windlass image unmount`") from None
    try:
        leased = client.under(lease)
        chain = await unpack(ClientStore(leased), snapshotter, leaf, lambda verb, what, done, total: None)
        make = leased.snapshots.prepare if writable else leased.snapshots.view
        mounts = await _plain(leased, lease, from_mounts(await make(snapshotter, lease, chain)))
        await _mount_all([_with(each, options) for each in mounts], path)
    except BaseException:
        await asyncio.shield(_undo(client, lease))
        raise
    return Mounted(name, path)


async def unmount(client: Client, target: str) -> Mounted:
    """Unmount an image from a path, and remove what `mount` made for it. Raises NotFound if none is mounted there."""
    path = await asyncio.to_thread(os.path.realpath, target)
    lease = lease_of(path)
    found = {mounted.target: mounted for mounted in await mounted_images(client)}
    if path not in found:
        raise NotFound(f"{path} has no image mounted in namespace {client.namespace}")
    await asyncio.to_thread(mounting.unmount_all, path)
    await _forget(client, lease)
    return found[path]


async def mounted_images(client: Client) -> list[Mounted]:
    """Return the images that `mount` has mounted and that are not unmounted yet."""
    leases = await client.leases.list(f'labels."{TARGET}"')
    return [Mounted(lease.labels[IMAGE], lease.labels[TARGET]) for lease in leases]


def reachable(path: str) -> bool:
    """Return whether users other than root and the owners of the directories can reach a path."""
    top = Path(os.path.realpath(path))
    return all(each.stat().st_mode & stat.S_IXOTH for each in (top, *top.parents))


def _with(mount: Mount, options: Sequence[str]) -> Mount:
    return replace(mount, options=(*mount.options, *options))


def _directory(target: str) -> str:
    path = os.path.realpath(target)
    try:
        if os.listdir(path):  # noqa: PTH208 - one is enough
            raise InvalidArgument(f"directory {path} is not empty; an image is mounted on an empty one")
    except OSError as error:
        raise InvalidArgument(f"directory {path} cannot be mounted on: {error.strerror}") from None
    if mounting.mounts_below(path):
        raise InvalidArgument(f"directory {path} is a mount already; an image is mounted on one that is none")
    return path


async def _plain(client: Client, name: str, mounts: Sequence[Mount]) -> Sequence[Mount]:
    """Return mounts that mount(2) can make; the daemon makes what has to come before them."""
    if len(mounts) < 2 and not any("/" in each.type for each in mounts):
        return mounts
    try:
        return from_mounts((await client.mounts.activate(name, to_mounts(mounts))).system)
    except Unimplemented:
        return mounts


async def _mount_all(mounts: Sequence[Mount], path: str) -> None:
    mounting_all = asyncio.create_task(asyncio.to_thread(mounting.mount_all, mounts, path))
    try:
        await asyncio.shield(mounting_all)
    except PermissionError:
        raise PermissionDenied(f"user {os.getuid()} may not mount on {path}; use root") from None
    except asyncio.CancelledError:
        # The thread goes on mounting; no caller would unmount it.
        await asyncio.wait([mounting_all])
        await asyncio.to_thread(mounting.unmount_all, path)
        raise


async def _undo(client: Client, lease: str) -> None:
    try:
        await _forget(client, lease)
    except (Error, OSError):
        pass  # the failure of the mount is the one to report


async def _forget(client: Client, lease: str) -> None:
    try:
        await client.mounts.deactivate(lease)
    except (NotFound, Unimplemented):
        pass  # the daemon had no part in it, or has no mount manager
    await client.leases.delete(lease, sync=True)
