"""Carries out `windlass.contracts.mounts.Mount`s: mounts them, unmounts them, makes them read-only.

The shim and the unpack workers have this loaded, so it stays small; what is
needed once in a while (loop devices, identity mappings, the long way round for
many layers) is in modules of its own. Failures of Linux are OSErrors that name
the mount and the place; options without a meaning on this machine are InvalidArgument.
"""

from __future__ import annotations

import errno
import os
import time

from windlass.errors import InvalidArgument, Unimplemented
from windlass_linux import calls as linux
from windlass_linux.mount_options import PER_MOUNT, Options, parse_options

# Not from typing, which would be a megabyte in every shim.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from windlass.contracts.mounts import Mount

PAGE_MARGIN = 512
BUSY_TRIES = 5
MAX_STACKED_MOUNTS = 1000
BUSY_PAUSE = 0.02


def mount_all(mounts: Sequence[Mount], target: linux.StrPath) -> None:
    """Mount one after the other, each at its own path below ``target``; all or none."""
    root = os.fspath(target)
    done: list[str] = []
    try:
        for mount in mounts:
            done.append(_mount_below(mount, root))
    except BaseException:
        for place in reversed(done):
            unmount(place)
        raise


def _mount_below(mount: Mount, root: str) -> str:
    if not mount.target.strip("/"):
        mount_one(mount, root)
        return root
    # The path comes from outside and the tree below the root from an image: neither may lead out of it.
    directory = linux.openat2(linux.AT_FDCWD, root, os.O_PATH | os.O_DIRECTORY)
    try:
        inside = mount.target.lstrip("/")
        place = linux.openat2(directory, inside, os.O_PATH, resolve=linux.RESOLVE_IN_ROOT)
    finally:
        os.close(directory)
    try:
        mount_one(mount, f"/proc/self/fd/{place}")
        return os.readlink(f"/proc/self/fd/{place}")  # noqa: PTH115 - shims do without pathlib
    finally:
        os.close(place)


def mount_one(mount: Mount, target: str) -> None:
    """Mount at ``target`` itself, whatever path the mount names."""
    if mount.type.startswith(("fuse.", "fuse3.")):
        raise Unimplemented(f"mount type {mount.type} needs a helper program, which is not supported; use another type")
    options = parse_options(mount.options)
    bind = bool(options.flags & linux.MS_BIND)
    try:
        if options.uidmap or options.gidmap:
            _attach_mapped(mount, target, options)
        elif options.loop:
            from windlass_linux import loop

            with loop.attached(mount.source, readonly=bool(options.flags & linux.MS_RDONLY)) as device:
                _attach(mount.type, device, target, options)
        elif mount.type or options.flags or not options.propagation:
            # Propagation alone changes what is mounted there already.
            _attach(mount.type, mount.source, target, options)
    except OSError as error:
        what = f"cannot mount {mount.type or 'bind'} {mount.source[:200]}: {error.strerror or error}"
        raise OSError(error.errno, what, target) from error
    try:
        if bind and options.flags & PER_MOUNT and not options.flags & linux.MS_REMOUNT:
            _remount_bind(target, options.flags)
        for propagation in options.propagation:
            linux.mount("none", target, "", propagation)
    except BaseException:
        linux.umount2(target, linux.MNT_DETACH)
        raise


def _attach_mapped(mount: Mount, target: str, options: Options) -> None:
    from windlass_linux import idmap

    if not (options.uidmap and options.gidmap):
        raise InvalidArgument(f"a mapped mount of {mount.source[:200]} needs both uidmap= and gidmap=")
    if options.flags & linux.MS_BIND:
        idmap.bind(mount.source, target, options)
    elif mount.type == "overlay":
        with idmap.mapped_layers(options) as mapped:
            _attach(mount.type, mount.source, target, mapped)
    else:
        raise InvalidArgument(f"a mount of type {mount.type} cannot be mapped: only bind and overlay mounts can")


def _attach(kind: str, source: str, target: str, options: Options) -> None:
    data = ",".join(options.data)
    if kind == "overlay" and len(os.fsencode(data)) > os.sysconf("SC_PAGE_SIZE") - PAGE_MARGIN:
        from windlass_linux import overlay_mount

        overlay_mount.mount(target, options.flags, options.data)
    else:
        # A bind's own flags come with the remount; some filesystems' types ("bind") are only words for it.
        linux.mount(source, target, kind, options.flags, data)


def _remount_bind(target: str, flags: int) -> None:
    """Give a fresh bind its own flags; in a user namespace those that the source has are locked, so they are kept."""
    flags = (flags & ~linux.MS_REC) | linux.MS_REMOUNT
    try:
        linux.mount("none", target, "", flags)
    except PermissionError:
        # statvfs(3) names the same flags by the same numbers up to ST_NODIRATIME, ST_RELATIME apart.
        now = os.statvfs(target).f_flag
        kept = now & (linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC | linux.MS_NOATIME | linux.MS_NODIRATIME)
        if now & 4096:
            kept |= linux.MS_RELATIME
        linux.mount("none", target, "", flags | kept)


def unmount(target: linux.StrPath, flags: int = 0) -> None:
    """Remove the topmost mount at ``target``: busy ones after a few tries lazily, none is not an error."""
    for _ in range(BUSY_TRIES):
        try:
            linux.umount2(target, flags | linux.UMOUNT_NOFOLLOW)
            return
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            if error.errno != errno.EBUSY:
                raise
        time.sleep(BUSY_PAUSE)
    linux.umount2(target, flags | linux.UMOUNT_NOFOLLOW | linux.MNT_DETACH)


def unmount_all(target: linux.StrPath) -> None:
    """Remove every mount at ``target`` and below it, deepest first; afterwards nothing is mounted there."""
    below = mounts_below(target)
    for place in reversed(below):
        unmount(place)


def detach_all(target: linux.StrPath) -> None:
    """Detach everything that is mounted at ``target``, busy or not, with all that is mounted below it."""
    for _ in range(MAX_STACKED_MOUNTS):
        try:
            linux.umount2(target, linux.MNT_DETACH | linux.UMOUNT_NOFOLLOW)
        except OSError as error:
            # umount2(2): EINVAL is "not a mount point"; ENOENT, ENOTDIR "not even a directory".
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return
            raise


def mounts_below(target: linux.StrPath) -> list[str]:
    """Return where something is mounted at ``target`` or below, in the order it was mounted, repeated when stacked."""
    top = os.path.realpath(target)
    inside = top.rstrip("/") + "/"
    found = []
    # Of the thread: it may have a mount namespace of its own, where the process sees nothing of its mounts.
    with open("/proc/thread-self/mountinfo", "rb") as table:  # noqa: PTH123 - as above
        for line in table:
            place = os.fsdecode(unescape(line.split(b" ", 5)[4]))
            if place == top or place.startswith(inside):
                found.append(place)
    return found


def unescape(field: bytes) -> bytes:
    """Return a field of a mount table as it is meant."""
    # proc_pid_mountinfo(5): space, tab, newline and backslash are three octal digits.
    if b"\\" not in field:
        return field
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(code, char)
    return field


def read_only(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """Return mounts that show the same files and cannot change them."""
    return tuple(_read_only_overlay(m) if m.type == "overlay" else _read_only_other(m) for m in mounts)


def _read_only_overlay(mount: Mount) -> Mount:
    upper = [o.removeprefix("upperdir=") for o in mount.options if o.startswith("upperdir=")]
    options = []
    for option in mount.options:
        if option.startswith("lowerdir="):
            options.append("lowerdir=" + ":".join([*upper, option.removeprefix("lowerdir=")]))
        elif not option.startswith(("upperdir=", "workdir=")):
            options.append(option)
    return type(mount)(mount.type, mount.source, tuple(options), mount.target)


def _read_only_other(mount: Mount) -> Mount:
    options = tuple(o for o in mount.options if o not in ("rw", "ro"))
    return type(mount)(mount.type, mount.source, (*options, "ro"), mount.target)


def without_volatile(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """Return mounts that may be made more than once: overlay refuses a work directory that was used as volatile."""
    return tuple(
        type(m)(m.type, m.source, tuple(o for o in m.options if o not in ("volatile", "fsync=volatile")), m.target)
        if m.type == "overlay"
        else m
        for m in mounts
    )


class mounted:  # noqa: N801 -- used like a function, as contextlib.suppress is
    """A temporary directory (made in ``directory``) with the mounts on it, as a context; both are gone afterwards."""

    def __init__(self, mounts: Sequence[Mount], directory: linux.StrPath | None = None) -> None:
        self._mounts = without_volatile(mounts)
        self._directory = directory
        self._place = ""

    def __enter__(self) -> str:
        from tempfile import mkdtemp

        self._place = mkdtemp(prefix="windlass-mount-", dir=self._directory)
        try:
            mount_all(self._mounts, self._place)
        except BaseException:
            self.__exit__()
            raise
        return self._place

    def __exit__(self, *_: object) -> None:
        unmount_all(self._place)
        # Never recursive: should something still be mounted there, its files are not ours to delete.
        os.rmdir(self._place)  # noqa: PTH106 - as above
