"""Mounts that show other owners (mount_setattr(2), "ID-mapped mounts")."""

from __future__ import annotations

import os

from windlass.errors import InvalidArgument
from windlass_linux import calls as linux
from windlass_oci_runtime.userns import Maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_oci_runtime.mounts import Mount


def apply(mount: Mount, container: Maps | None) -> None:
    """Map the IDs of a detached mount: as it says itself, or as the container's user namespace does.

    Raises InvalidArgument, OSError for a file system that cannot do it.
    """
    uids, gids = mount.maps
    where = f"mount {mount.destination[:80]}"
    maps = Maps(uids, gids, where) if uids or gids else container
    if maps is None or not (maps.uids and maps.gids):
        raise InvalidArgument(f"{where}: idmap needs uidMappings and gidMappings, its own or the container's")
    from windlass_linux.idmap import user_namespace

    namespace = user_namespace(*maps.texts())
    try:
        flags = linux.AT_EMPTY_PATH | (linux.AT_RECURSIVE if mount.is_idmapped_whole else 0)
        linux.mount_setattr(mount.tree, "", flags, attr_set=linux.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    finally:
        os.close(namespace)
