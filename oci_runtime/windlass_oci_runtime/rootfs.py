"""Makes a container's root file system, in its own mount namespace: every mount by descriptor, every path inside."""

from __future__ import annotations

import errno
import os
import stat

from windlass.errors import InvalidArgument
from windlass_linux import calls as linux
from windlass_linux.mount_options import PROPAGATION
from windlass_oci_runtime.inside import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from windlass_oci_runtime.mounts import Mount

REAL_DIRECTORIES = ("proc", "sysfs")
"""Types of file systems that are mounted on directories only, so that no link of an image leads them elsewhere."""

EMPTY = linux.MOVE_MOUNT_F_EMPTY_PATH | linux.MOVE_MOUNT_T_EMPTY_PATH


def begin(path: str, propagation: str) -> Root:
    """Make ``path`` a mount of its own, cut off from the host as ``propagation`` says, and return its root."""
    flags = PROPAGATION.get(propagation or "rslave")
    if flags is None:
        raise InvalidArgument(f"linux.rootfsPropagation {propagation[:40]!r} is not one of mount(8)")
    # Not shared in any case until the root has changed: pivot_root(2) refuses that, and the host would see our mounts.
    linux.mount("", "/", "", flags if not flags & linux.MS_SHARED else linux.MS_SLAVE | linux.MS_REC)
    flags = linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_RECURSIVE
    try:
        tree = linux.open_tree(linux.AT_FDCWD, path, flags)
        if not stat.S_ISDIR(os.fstat(tree).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"root.path {path}") from None
    linux.mount_setattr(tree, "", linux.AT_EMPTY_PATH | linux.AT_RECURSIVE, propagation=linux.MS_PRIVATE)
    linux.move_mount(tree, "", linux.AT_FDCWD, path, linux.MOVE_MOUNT_F_EMPTY_PATH)
    return Root(tree)


def mount_one(root: Root, mount: Mount) -> None:
    """Make one mount and attach it."""
    if mount.tree >= 0:
        tree = mount.tree
    else:
        tree = bound(mount) if mount.is_bind else _made(mount, _kept_mode(root, mount))
    try:
        if mount.is_bind:
            _set(tree, linux.AT_EMPTY_PATH, mount.set, mount.clear)
        if mount.recursive_set or mount.recursive_clear:
            _set(tree, linux.AT_EMPTY_PATH | linux.AT_RECURSIVE, mount.recursive_set, mount.recursive_clear)
        target = _target(root, mount, tree)
        try:
            if mount.copies_up:
                _copy_up(target, tree)
            linux.move_mount(tree, "", target, "", EMPTY)
        finally:
            os.close(target)
        for each in mount.propagation:
            flags = linux.AT_EMPTY_PATH | (linux.AT_RECURSIVE if each & linux.MS_REC else 0)
            linux.mount_setattr(tree, "", flags, propagation=each & ~linux.MS_REC)
    finally:
        os.close(tree)


def bound(mount: Mount) -> int:
    """Return the detached mount of a bind's source."""
    flags = linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | (linux.AT_RECURSIVE if mount.is_recursive else 0)
    return linux.open_tree(linux.AT_FDCWD, mount.source, flags)


def _kept_mode(root: Root, mount: Mount) -> list[tuple[str, str]]:
    """Return the option by which a tmpfs gets the mode of the directory that it covers, unless it is given one."""
    if mount.type != "tmpfs" or any(key == "mode" for key, _ in mount.data):
        return []
    try:
        covered = root.open(mount.destination, os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        return [("mode", f"{stat.S_IMODE(os.stat(covered).st_mode):o}")]
    finally:
        os.close(covered)


def _made(mount: Mount, more: Sequence[tuple[str, str]]) -> int:
    """Return a new file system's detached mount; ``more`` are further options."""
    context = linux.fsopen(mount.type)
    try:
        linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "source", mount.source or mount.type)
        for key, value in (*mount.data, *more):
            command = linux.FSCONFIG_SET_FLAG if value is None else linux.FSCONFIG_SET_STRING
            linux.fsconfig(context, command, key, value)
        if mount.set & linux.MOUNT_ATTR_RDONLY and mount.type not in ("cgroup", "cgroup2", "tmpfs"):
            linux.fsconfig(context, linux.FSCONFIG_SET_FLAG, "ro")
        linux.fsconfig(context, linux.FSCONFIG_CMD_CREATE)
        return linux.fsmount(context, attr_flags=mount.set)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}{_said(context)}") from error
    finally:
        os.close(context)


def _said(context: int) -> str:
    """Return what Linux says about a file system that it did not make, fsopen(2)."""
    try:
        return f" ({os.read(context, 1000).decode(errors='replace').strip()})"
    except OSError:
        return ""


def _copy_up(target: int, tree: int) -> None:
    from windlass_oci_runtime.copying import copy_up

    source = os.open(f"/proc/self/fd/{target}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        copy_up(source, tree)
    finally:
        os.close(source)


def _target(root: Root, mount: Mount, tree: int) -> int:
    resolve = linux.RESOLVE_NO_SYMLINKS if mount.type in REAL_DIRECTORIES else 0
    if stat.S_ISDIR(os.stat(tree).st_mode):
        return root.directory(mount.destination, resolve)
    return root.file(mount.destination, resolve)


def _set(tree: int, flags: int, on: int, off: int) -> None:
    if on or off:
        # Times of access are one value of several bits, which is replaced as a whole.
        off |= linux.MOUNT_ATTR__ATIME if (on | off) & linux.MOUNT_ATTR__ATIME else 0
        linux.mount_setattr(tree, "", flags, attr_set=on, attr_clr=off)


def enter(root: Root) -> None:
    """Make it the root of this process, and leave the host's."""
    os.fchdir(root.descriptor)
    linux.pivot_root(".", ".")
    # The old root is on top of the new one now; both are at ".".
    linux.umount2(".", linux.MNT_DETACH)
    os.chdir("/")


def finish(root: Root, propagation: str, readonly: bool) -> None:
    """Give the root its last attributes."""
    flags = PROPAGATION[propagation] if propagation else 0
    if flags:
        recursive = linux.AT_RECURSIVE if flags & linux.MS_REC else 0
        linux.mount_setattr(root.descriptor, "", linux.AT_EMPTY_PATH | recursive, propagation=flags & ~linux.MS_REC)
    if readonly:
        linux.mount_setattr(root.descriptor, "", linux.AT_EMPTY_PATH, attr_set=linux.MOUNT_ATTR_RDONLY)


def mask(root: Root, path: str, null: int) -> None:
    """Hide a file behind ``null``, a descriptor of /dev/null, or a directory behind an empty one; missing is fine."""
    try:
        target = root.open(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if stat.S_ISDIR(os.stat(target).st_mode):
            tree = _empty()
        else:
            flags = linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_EMPTY_PATH
            tree = linux.open_tree(null, "", flags)
            # Or root in the container could change the owner and the mode of the host's /dev/null.
            attributes = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC
            linux.mount_setattr(tree, "", linux.AT_EMPTY_PATH, attributes)
        linux.move_mount(tree, "", target, "", EMPTY)
        os.close(tree)
    finally:
        os.close(target)


def _empty() -> int:
    context = linux.fsopen("tmpfs")
    try:
        linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "source", "tmpfs")
        linux.fsconfig(context, linux.FSCONFIG_SET_FLAG, "ro")
        linux.fsconfig(context, linux.FSCONFIG_CMD_CREATE)
        return linux.fsmount(context, attr_flags=linux.MOUNT_ATTR_RDONLY)
    finally:
        os.close(context)


def make_readonly(root: Root, path: str) -> None:
    """Put a read-only bind of a path over itself; missing is fine."""
    try:
        target = root.open(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        flags = linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_EMPTY_PATH | linux.AT_RECURSIVE
        tree = linux.open_tree(target, "", flags)
        linux.mount_setattr(tree, "", linux.AT_EMPTY_PATH | linux.AT_RECURSIVE, attr_set=linux.MOUNT_ATTR_RDONLY)
        linux.move_mount(tree, "", target, "", EMPTY)
        os.close(tree)
    finally:
        os.close(target)


def null_device() -> int:
    """Return a descriptor of the host's /dev/null, which is what it should be. Raises OSError."""
    descriptor = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    found = os.stat(descriptor)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not the device 1:3", "/dev/null")
    return descriptor
