"""Volumes that an image declares: directories of the host with a copy of the image's files (docs/containerd 5.6)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.ids import new_id
from windlass_cri.spec.mounts import clean
from windlass_images.manifests import ImageConfig
from windlass_linux import calls as linux
from windlass_oci.rootfs import looked_into
from windlass_storage import trees


def declared(image: ImageConfig, asked: Iterable[cri.Mount], directory: Path) -> list[cri.Mount]:
    """Return a mount of a directory below ``directory`` for each volume that is not at a place of the client's."""
    taken = {clean(each.container_path) for each in asked}
    places = dict.fromkeys(clean(each) for each in image.volumes)
    return [
        cri.Mount(container_path=place, host_path=str(directory / "volumes" / new_id()), selinux_relabel=True)
        for place in places
        if place not in taken and place != "/"
    ]


def fill(volumes: Sequence[cri.Mount], mounts: Sequence[Mount]) -> None:
    """Make the directories, and copy into them what the root file system of ``mounts`` has. Blocks; raises Unknown."""
    for each in volumes:
        Path(each.host_path).mkdir(mode=0o755, parents=True)
    if volumes:
        places = {each.container_path: Path(each.host_path) for each in volumes}
        try:
            looked_into(mounts, lambda root: copy(root, places))
        except OSError as error:
            raise Unknown(f"the image's volumes cannot be copied: {error}") from error


def copy(root: str, places: Mapping[str, Path]) -> None:
    """Copy directories below ``root``, out of which no link leads (CVE-2022-23648); what is not there is left out."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for place, destination in places.items():
            _copy(top, place, destination)
    finally:
        os.close(top)


def _copy(top: int, place: str, destination: Path) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    resolve = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
    try:
        source = linux.openat2(top, place, flags, resolve=resolve)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return
        raise Unknown(f"volume {place} of the image cannot be copied: {error.strerror}") from None
    try:
        # Its path without links, in the mount namespace of this thread; no container runs that could change it.
        trees.copy(Path(f"/proc/self/fd/{source}").readlink(), destination)
    finally:
        os.close(source)
