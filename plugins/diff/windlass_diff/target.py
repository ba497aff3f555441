"""Takes a worker to where it works: a mount namespace of its own, the mounts in it, and a chroot.

Nothing outlives the worker: its mount namespace is its own.
"""

# ruff: noqa: PTH102, PTH118
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.errors import FailedPrecondition
from windlass.records import dataclass
from windlass_diff.apply import Rules
from windlass_diff.lowers import Absent, Lowers
from windlass_linux import calls as linux
from windlass_linux import mounting

ALL_IDS = (0, 0, (1 << 32) - 1)


@dataclass(frozen=True, slots=True)
class Overlay:
    """An active overlay mount, taken apart."""

    upper: str
    lowers: tuple[str, ...]
    userxattr: bool


def active_overlay(mounts: Sequence[Mount]) -> Overlay | None:
    """Return the overlay that ``mounts`` is, or None when it is anything but a single plain active one.

    One without lower directories cannot be mounted; it is how a client asks for a layer
    that gets its parent later (docs/containerd 6.5).
    """
    if len(mounts) != 1 or mounts[0].type != "overlay" or mounts[0].target.strip("/"):
        return None
    options = dict(option.partition("=")[::2] for option in mounts[0].options)
    if "upperdir" not in options or {"uidmap", "gidmap", "ro"} & options.keys():
        return None
    lowers = options["lowerdir"].replace("\\:", "\0").split(":") if "lowerdir" in options else []
    return Overlay(options["upperdir"], tuple(lower.replace("\0", ":") for lower in lowers), "userxattr" in options)


def in_user_namespace() -> bool:
    """Return whether this process's user namespace is not the initial one."""
    return tuple(map(int, Path("/proc/self/uid_map").read_text().split())) != ALL_IDS


def private_mounts() -> None:
    """Give the process mounts of its own; what is unmounted outside goes away here too (mount_namespaces(7))."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_SLAVE)


class Target:
    """The tree that a layer is applied to, as the root of this process."""

    def __init__(self, mounts: Sequence[Mount], directory: str, detached: bool = False) -> None:
        """Change the root; ``directory`` is empty, and what it shows is seen by this process alone.

        ``detached``: what is below is not there yet. Raises FailedPrecondition if that cannot be done without.
        """
        private_mounts()
        userns = in_user_namespace()
        overlay = None if userns else active_overlay(mounts)
        if detached and overlay is None:
            raise FailedPrecondition("only an overlay's upper directory can be filled before what is below it is there")
        # Only of an empty upper directory it is certain that all it holds is of this layer.
        self._direct = overlay is not None and not any(os.scandir(overlay.upper))
        self._old_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._directory = directory
        self.syncable = self._direct or (len(mounts) == 1 and {"bind", "rbind"} & set(mounts[0].options) != set())
        if overlay is not None and self._direct:
            self.where = root = overlay.upper
            self.lowers = Absent() if detached else Lowers(overlay.lowers)
            skipped = (b"trusted.", b"user.overlay.") if overlay.userxattr else (b"trusted.",)
            self.rules = Rules(overlay=True, skipped_xattrs=skipped)
        else:
            root = directory
            self.where = mounts[0].source if len(mounts) == 1 and self.syncable else "the snapshot"
            if overlay is not None and not overlay.lowers:
                raise FailedPrecondition(f"upper directory {overlay.upper} has files of another layer; prepare it anew")
            mounting.mount_all(mounting.without_volatile(mounts), directory)
            self.lowers = Lowers()
            self.rules = Rules(user_namespace=userns)
        os.chroot(root)
        os.chdir("/")
        os.umask(0)

    def sync(self) -> None:
        """Write the filesystem to its disk, where it is not overlayfs that decides."""
        if self.syncable:
            fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                linux.syncfs(fd)
            finally:
                os.close(fd)

    def leave(self) -> None:
        """Go back to the old root and unmount; the end of the process would do it later, and not wait for it."""
        os.fchdir(self._old_root)
        os.chroot(".")
        os.close(self._old_root)
        if not self._direct:
            mounting.unmount_all(self._directory)


class Sides:
    """Two trees that are compared, as ``/lower`` and ``/upper`` of this process, neither of them writable."""

    def __init__(self, lower: Sequence[Mount], upper: Sequence[Mount], directory: str) -> None:
        """Change the root; ``directory`` is empty, and what it shows is seen by this process alone."""
        private_mounts()
        self._old_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._directory = directory
        linux.mount("none", directory, "tmpfs", linux.MS_NODEV | linux.MS_NOSUID, "mode=0700,size=64k")
        try:
            for name, mounts in (("lower", lower), ("upper", upper)):
                side = os.path.join(directory, name)
                os.mkdir(side)
                mounting.mount_all(mounting.read_only(mounting.without_volatile(mounts)), side)
        except BaseException:
            mounting.unmount_all(directory)
            raise
        os.chroot(directory)
        os.chdir("/")

    def leave(self) -> None:
        """Go back to the old root and unmount."""
        os.fchdir(self._old_root)
        os.chroot(".")
        os.close(self._old_root)
        mounting.unmount_all(self._directory)
