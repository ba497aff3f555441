"""Device files and links in /dev, which every container has (runtime-spec, config-linux)."""

from __future__ import annotations

import contextlib
import os
import stat

from windlass.errors import InvalidArgument
from windlass_oci_runtime.mounts import Mount
from windlass_oci_runtime.rootfs import mount_one

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from windlass_oci_runtime.inside import Root
    from windlass_oci_runtime.json_types import Json

DEFAULT: list[dict[str, object]] = [
    {"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
]

LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def make_all(root: Root, wanted: Iterable[Json], binds: bool = False) -> None:
    """Make the default devices and those of the specification; one of the same path replaces a default one.

    In a user namespace nobody may make devices, so the host's are bound (``binds``).
    """
    by_path = {str(each["path"]): each for each in (*DEFAULT, *wanted)}
    for path, device in by_path.items():
        if binds:
            mount_one(root, Mount({"destination": path, "source": path, "type": "bind"}))
        else:
            _make(root, path, device)
    directory = root.directory("/dev")
    try:
        for name, target in LINKS.items():
            try:
                os.symlink(target, name, dir_fd=directory)
            except FileExistsError:
                continue
    finally:
        os.close(directory)


def _make(root: Root, path: str, device: Json) -> None:
    kind = KINDS.get(device.get("type", ""))
    above, _, name = path.rpartition("/")
    if kind is None or not path.startswith("/") or not name:
        raise InvalidArgument(f"linux.devices: device {path[:80]!r} of type {device.get('type')!r} cannot be made")
    parent = root.directory(above or "/")
    try:
        number = os.makedev(device.get("major", 0), device.get("minor", 0))
        mode = int(device.get("fileMode") or 0o666) & 0o7777
        with contextlib.suppress(FileExistsError):
            os.mknod(name, kind | mode, number, dir_fd=parent)
        node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            found = os.stat(node)
            if stat.S_IFMT(found.st_mode) != kind or (kind != stat.S_IFIFO and found.st_rdev != number):
                raise InvalidArgument(
                    f"linux.devices: {path[:80]} exists in the root file system and is not that device"
                )
            # By the descriptor of what has been looked at: the name may be a link to a file of the host's by now.
            os.chmod(f"/proc/self/fd/{node}", mode)
            os.chown(f"/proc/self/fd/{node}", device.get("uid", 0), device.get("gid", 0))
        finally:
            os.close(node)
    finally:
        os.close(parent)
