"""A mount of type `cgroup`: the container sees its own groups, and none above them."""

from __future__ import annotations

import os

from windlass_linux import calls as linux
from windlass_oci_runtime.mounts import Mount
from windlass_oci_runtime.rootfs import mount_one

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from windlass_oci_runtime.inside import Root

TYPE = "cgroup"
HIERARCHIES = "/sys/fs/cgroup"
ATTRIBUTES = ("nosuid", "nodev", "noexec", "relatime")


def attach(root: Root, wanted: Mount, places: Sequence[str]) -> None:
    """Make the mount: with version 1 a directory for each hierarchy, with version 2 alone the one there is."""
    mode = "ro" if wanted.set & linux.MOUNT_ATTR_RDONLY else "rw"
    if len(places) == 1 and not _hierarchy(places[0]):
        mount_one(root, _bind(places[0], wanted.destination, mode))
        return
    base = {"destination": wanted.destination, "type": "tmpfs", "source": "tmpfs"}
    mount_one(root, Mount({**base, "options": ["mode=755", *ATTRIBUTES[:3]]}))
    for place in places:
        name = _hierarchy(place)
        mount_one(root, _bind(place, f"{wanted.destination}/{name}", mode))
        _link(root, wanted.destination, name)
    if mode == "ro":
        tree = root.open(wanted.destination)
        linux.mount_setattr(tree, "", linux.AT_EMPTY_PATH, attr_set=linux.MOUNT_ATTR_RDONLY)
        os.close(tree)


def _bind(source: str, destination: str, mode: str) -> Mount:
    return Mount({"destination": destination, "type": "bind", "source": source, "options": [*ATTRIBUTES, mode]})


def _hierarchy(place: str) -> str:
    """Return the name of the hierarchy that a group is in, such as `cpu,cpuacct`; "" for version 2 alone."""
    name = place.removeprefix(f"{HIERARCHIES}/").partition("/")[0]
    return "" if os.path.exists(f"{HIERARCHIES}/cgroup.controllers") else name


def _link(root: Root, above: str, name: str) -> None:
    """Let each controller of a hierarchy that several share be found by its own name."""
    if "," not in name:
        return
    directory = root.open(above)
    try:
        for each in name.split(","):
            os.symlink(name, each, dir_fd=directory)
    except FileExistsError:
        pass
    finally:
        os.close(directory)
