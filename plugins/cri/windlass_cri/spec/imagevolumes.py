"""Images that are mounted into containers: each once in a pod, read-only (docs/containerd 5.13)."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Mapping
from pathlib import Path

from windlass.errors import AlreadyExists, Error, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.images.images import Images
from windlass_cri.images.joined import Joined
from windlass_cri.steps import IMAGE_VOLUME
from windlass_images import platforms
from windlass_images.imagetree import resolve
from windlass_images.unpack import held, ignore, unpack
from windlass_linux import calls as linux
from windlass_linux import mounting
from windlass_local.inside import LocalNamespace
from windlass_local.waiting import unless_gone


class ImageVolumes:
    """The image volumes of all pods, below one directory; what an earlier daemon mounted is there as well."""

    def __init__(self, namespace: LocalNamespace, images: Images, state: Path) -> None:
        """Mount below ``state``."""
        self._namespace = namespace
        self._images = images
        self._directory = state / "image-volumes"
        self._mounting: Joined[Path] = Joined()  # two containers do not mount one image twice

    async def prepare(self, pod: str, config: cri.ContainerConfig, snapshotter: str, labels: Mapping[str, str]) -> None:
        """Mount the images that the container's mounts name, and set their host paths. Raises Unknown.

        ``labels`` give their files to the pod's user namespace.
        """
        for each in config.mounts:
            if each.HasField("image"):
                try:
                    each.host_path = await self._prepare(pod, each, snapshotter, labels)
                except (Error, OSError) as error:
                    raise Unknown(f"{IMAGE_VOLUME}{error}") from error
                each.ClearField("uidMappings")
                each.ClearField("gidMappings")

    async def _prepare(self, pod: str, wanted: cri.Mount, snapshotter: str, labels: Mapping[str, str]) -> str:
        if wanted.host_path:
            raise Unknown(f"hostpath must be empty while mount image: {wanted.container_path}")
        if not wanted.readonly:
            raise Unknown(f"readonly must be true while mount image: {wanted.container_path}")
        if not wanted.image.image:
            raise Unknown(f"image not specified in: {wanted.container_path}")
        id = await self._images.resolve(wanted.image.image)
        target = await self._mounting.run((pod, id), lambda: self._mounted(pod, id, snapshotter, labels))
        return await asyncio.to_thread(below, target, wanted.image_sub_path)

    async def _mounted(self, pod: str, id: str, snapshotter: str, labels: Mapping[str, str]) -> Path:
        leaf = await resolve(self._namespace, self._images.name_of(id), platforms.host())
        target = self._directory / pod / leaf.target.digest.partition(":")[2]
        if target.is_mount():
            return target
        # First, since `release` goes by it: whatever fails from here on is taken back when the pod stops.
        await asyncio.to_thread(target.mkdir, 0o755, True, True)
        store = self._namespace.under(pod)  # the pod's lease has its ID
        chain = leaf.image.chain_id
        if chain and not await held(store, snapshotter, chain):
            await unpack(store, snapshotter, leaf, ignore)
        try:
            mounts = await store.snapshots.view(snapshotter, str(target), chain, labels)
        except AlreadyExists:
            mounts = await store.snapshots.mounts(snapshotter, str(target))
        mounts = await store.activate(_activation(target), mounts)
        await asyncio.to_thread(mounting.mount_all, mounts, str(target))
        return target

    async def release(self, pod: str, snapshotter: str) -> None:
        """Unmount what a pod's containers had, after they have ended. Raises Unknown."""
        try:
            await self._release(pod, snapshotter)
        except OSError as error:
            raise Unknown(f"the image volumes of sandbox {pod} cannot be unmounted: {error}") from error

    async def _release(self, pod: str, snapshotter: str) -> None:
        directory = self._directory / pod
        if not await asyncio.to_thread(directory.exists):
            return
        for target in await asyncio.to_thread(lambda: list(directory.iterdir())):
            await asyncio.to_thread(mounting.unmount_all, target)
            await self._namespace.deactivate(_activation(target))
            await unless_gone(self._namespace.snapshots.remove(snapshotter, str(target)))
            await asyncio.to_thread(target.rmdir)
        await asyncio.to_thread(directory.rmdir)


def _activation(target: Path) -> str:
    return f"image-volume-{target.parent.name[:32]}-{target.name}"


def below(target: Path, path: str) -> str:
    """Return the directory at ``path`` below a mounted image, out of which no link leads. Raises Unknown, OSError."""
    if not path:
        return str(target)
    top = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolved = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_MAGICLINKS
        found = linux.openat2(top, path, os.O_PATH | os.O_CLOEXEC, resolve=resolved)
    except OSError as error:
        reason = "path escapes from parent" if error.errno == errno.EXDEV else (error.strerror or "").lower()
        raise Unknown(f'failed to ensure image subpath "{path}" in "{target}": openat {path}: {reason}') from None
    finally:
        os.close(top)
    try:
        real = Path(f"/proc/self/fd/{found}").readlink()
    finally:
        os.close(found)
    if not real.is_dir():
        raise Unknown(
            f'failed to ensure image subpath "{path}" in "{target}": only directory subpath is supported, '
            f'subpath: "{path}", mountpoint: "{target}"'
        )
    return str(real)
