"""From an image to a created container, and back to nothing (docs/containerd 6.8)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from windlass.contracts.containers import Container
from windlass.contracts.mounts import Mount
from windlass.contracts.namespaces import LABEL_RUNTIME, LABEL_SNAPSHOTTER
from windlass.contracts.values import Platform, check_identifier
from windlass.errors import AlreadyExists, Error, NotFound
from windlass_images.imagetree import Leaf, resolve
from windlass_images.manifests import ImageConfig
from windlass_images.unpack import Progress, held, ignore, unpack
from windlass_local import tasks
from windlass_local.namespace import DEFAULT_RUNTIME, DEFAULT_SNAPSHOTTER, Namespace
from windlass_local.waiting import unless_gone
from windlass_oci import process
from windlass_oci.payloads import SPEC, to_payload
from windlass_oci.users import Accounts, User, find_user, is_numeric

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Spec

STOP_SIGNAL = "io.containerd.image.config.stop-signal"


@dataclass(frozen=True)
class Rootfs:
    """The root file system of a container that is being created: a writable snapshot over an image."""

    namespace: Namespace
    """Under the lease that keeps the snapshot."""
    image: ImageConfig
    mounts: Sequence[Mount]

    async def user(self, text: str = "") -> User:
        """Return who ``text`` is by the image's accounts; empty is the image's own user. Raises as `find_user`."""
        text = text or self.image.user
        return find_user(text, Accounts() if is_numeric(text) else await self.accounts())

    async def accounts(self) -> Accounts:
        """Return the image's accounts. Raises as `windlass_oci.accounts.read_accounts`."""
        from windlass_oci.accounts import read_accounts

        async with self.namespace.mountable(self.mounts) as mounts:
            return await asyncio.to_thread(read_accounts, mounts)


@dataclass(frozen=True)
class Launched:
    """A container that was created, and what to give to its task as root file system."""

    container: Container
    rootfs: tuple[Mount, ...]


BuildSpec = Callable[[Rootfs], Awaitable["Spec"]]


def _no_labels(_image: ImageConfig) -> Mapping[str, str]:
    return {}


async def create(
    namespace: Namespace,
    wanted: Container,
    platform: Platform,
    build: BuildSpec,
    progress: Progress = ignore,
    snapshot_labels: Mapping[str, str] | None = None,
    purpose: str = "run",
    image_labels: Callable[[ImageConfig], Mapping[str, str]] = _no_labels,
) -> Launched:
    """Create a container with a writable snapshot over its image; when that fails, neither is left.

    ``wanted`` has ID, image and whatever else the record is to have; an empty runtime or snapshotter
    is the namespace's default, and an empty snapshot key is the ID. ``build`` makes the spec;
    ``image_labels`` are labels of the record that depend on the image, ``snapshot_labels`` the snapshot's,
    and ``purpose`` is what the lease that keeps it meanwhile says of itself.
    Raises AlreadyExists.
    """
    check_identifier("container", wanted.id)
    leaf, runtime, snapshotter = await asyncio.gather(
        resolve(namespace, wanted.image, platform),
        _default(namespace, wanted.runtime, LABEL_RUNTIME, DEFAULT_RUNTIME),
        _default(namespace, wanted.snapshotter, LABEL_SNAPSHOTTER, DEFAULT_SNAPSHOTTER),
    )
    labels = {**_labels(leaf.image), **wanted.labels, **image_labels(leaf.image)}
    key = wanted.snapshot_key or wanted.id
    wanted = replace(wanted, runtime=runtime, snapshotter=snapshotter, snapshot_key=key, labels=labels)
    async with namespace.lease(purpose) as leased:
        mounts = await _prepare(leased, wanted, leaf, progress, snapshot_labels)
        return await _record(leased, wanted, Rootfs(leased, leaf.image, mounts), build)


async def _default(namespace: Namespace, explicit: str, label: str, built_in: str) -> str:
    return explicit or await namespace.default(label) or built_in


def _labels(image: ImageConfig) -> Mapping[str, str]:
    stop = {STOP_SIGNAL: image.stop_signal} if image.stop_signal else {}
    return {**process.image_labels(image), **stop}


async def _prepare(
    leased: Namespace, wanted: Container, leaf: Leaf, progress: Progress, labels: Mapping[str, str] | None
) -> Sequence[Mount]:
    parent = leaf.image.chain_id
    if parent and not await held(leased, wanted.snapshotter, parent):
        await unpack(leased, wanted.snapshotter, leaf, progress)
    try:
        return await leased.snapshots.prepare(wanted.snapshotter, wanted.snapshot_key, parent, labels)
    except AlreadyExists:
        await _refuse_taken(leased, wanted.id)
        raise


async def _record(leased: Namespace, wanted: Container, rootfs: Rootfs, build: BuildSpec) -> Launched:
    try:
        spec = to_payload(SPEC, await build(rootfs))
        container = await leased.containers.create(replace(wanted, spec=spec))
        return Launched(container, tuple(rootfs.mounts))
    except AlreadyExists:
        await asyncio.shield(_remove_snapshot(leased, wanted))
        raise
    except BaseException:
        await asyncio.shield(_withdraw(leased, wanted))
        raise


async def _refuse_taken(namespace: Namespace, id: str) -> None:
    """Raise AlreadyExists that speaks of the container, if there is one: its snapshot has the same name."""
    with contextlib.suppress(NotFound):
        await namespace.containers.get(id)
        raise AlreadyExists(f"container {id} already exists; choose another name, or remove it with `windlass rm {id}`")


async def _withdraw(leased: Namespace, wanted: Container) -> None:
    """Remove a snapshot, and before it the container that the daemon may have recorded after all.

    A deadline that passes, or an interrupt, leaves the outcome open: on a slow disk the record may still be on its
    way. The daemon makes changes under one lease in order, so `hold` returns after the record is made or refused.
    If that fails too, the snapshot stays for as long as the container is there.
    """
    try:
        await leased.snapshots.hold(wanted.snapshotter, wanted.snapshot_key)
        with contextlib.suppress(NotFound):
            found = await leased.containers.get(wanted.id)
            if (found.snapshotter, found.snapshot_key) == (wanted.snapshotter, wanted.snapshot_key):
                await leased.containers.delete(wanted.id)
        await _remove_snapshot(leased, wanted)
    except Error:
        pass  # the first failure is the one that the caller needs


async def _remove_snapshot(namespace: Namespace, container: Container) -> None:
    await unless_gone(namespace.snapshots.remove(container.snapshotter, container.snapshot_key))


async def remove(namespace: Namespace, id: str, force: bool = False) -> None:
    """Delete a container with its stopped task and its snapshot; ``force`` kills what still runs. Raises NotFound."""
    container = await namespace.containers.get(id)
    await tasks.remove(namespace.tasks, id, force)
    await namespace.containers.delete(id)
    if container.snapshot_key:
        await _remove_snapshot(namespace, container)


async def undo(namespace: Namespace, id: str) -> None:
    """Remove what there is of a container after a failure; a second failure does not hide the first."""
    try:
        await remove(namespace, id, force=True)
    except Error:
        pass
