"""Linux system calls under their own names, for those that Python 3.11's ``os`` lacks.

Shims are forked from a process that has this module loaded, so it imports
little and finds the C library at the first call. Each function is one call of
section 2 of the manual, with its arguments in the manual's order, and raises
OSError with the path it was about. Elsewhere than on Linux the import works and
every call fails with ENOSYS.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

StrPath = str | os.PathLike[str]

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# mount(2)
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

# umount2(2)
MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

# tee(2)
SPLICE_F_NONBLOCK = 2

# inotify_add_watch(2)
IN_ONLYDIR = 0x01000000

# clone(2), unshare(2), setns(2)
CLONE_VM = 0x100
CLONE_FS = 0x200
CLONE_FILES = 0x400
CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# wait(2): children whose exit signal is not SIGCHLD
WALL = 0x40000000

# prctl(2)
PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_GET_NAME = 16
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_SET_NO_NEW_PRIVS = 38

# openat2(2)
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20

# close_range(2)
CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4

# open_tree(2), move_mount(2)
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC if hasattr(os, "O_CLOEXEC") else 0x80000
MOVE_MOUNT_F_SYMLINKS = 0x01
MOVE_MOUNT_F_AUTOMOUNTS = 0x02
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_AUTOMOUNTS = 0x20
MOVE_MOUNT_T_EMPTY_PATH = 0x40

# fsopen(2), fsconfig(2), fsmount(2)
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_BINARY = 2
FSCONFIG_SET_PATH = 3
FSCONFIG_SET_PATH_EMPTY = 4
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7

# mount_setattr(2), fsmount(2)
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# ioctl_fs(2)
FICLONE = 0x40049409

# The calls that came with the numbering shared by all architectures: glibc 2.35 and musl lack wrappers.
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_CLOSE_RANGE = 436
_NR_OPENAT2 = 437
_NR_MOUNT_SETATTR = 442

_libc: ctypes.CDLL | None = None


def libc() -> ctypes.CDLL:
    """Return the C library; its functions leave ``errno`` for `ctypes.get_errno`."""
    global _libc
    if _libc is None:
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, f"system calls of Linux do not exist on {sys.platform}")
        _libc = ctypes.CDLL(None, use_errno=True)
        _libc.syscall.restype = ctypes.c_long
        # Looked up here, so that processes forked later share what that makes.
        _libc.mount.argtypes = (*[ctypes.c_char_p] * 3, ctypes.c_ulong, ctypes.c_char_p)
        _libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
    return _libc


def checked(result: int, path: StrPath | None = None, second: StrPath | None = None) -> int:
    """Return what a call returned; raise OSError for -1, naming the paths."""
    if result >= 0:
        return result
    code = ctypes.get_errno()
    if path is None:
        raise OSError(code, os.strerror(code))
    raise OSError(code, os.strerror(code), os.fspath(path), None, None if second is None else os.fspath(second))


def _syscall(number: int, *arguments: object, path: StrPath | None = None) -> int:
    # Plain Python integers would pass as C int and lose their upper half.
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(libc().syscall(ctypes.c_long(number), *words), path)


def mount(source: StrPath, target: StrPath, filesystemtype: str, mountflags: int = 0, data: str = "") -> None:
    """Attach a filesystem, or change an existing mount as ``mountflags`` says."""
    result = libc().mount(
        os.fsencode(source), os.fsencode(target), filesystemtype.encode() or None, mountflags, os.fsencode(data) or None
    )
    checked(result, source, target)


def umount2(target: StrPath, flags: int = 0) -> None:
    """Remove the topmost mount at ``target``."""
    checked(libc().umount2(os.fsencode(target), flags), target)


def pivot_root(new_root: StrPath, put_old: StrPath) -> None:
    """Make ``new_root`` the root mount and move the old one to ``put_old``."""
    checked(libc().pivot_root(os.fsencode(new_root), os.fsencode(put_old)), new_root, put_old)


def unshare(flags: int) -> None:
    """Give the calling thread namespaces or tables of its own."""
    checked(libc().unshare(flags))


def setns(fd: int, nstype: int = 0) -> None:
    """Move the calling thread into a namespace, or into several of a process by its pidfd."""
    checked(libc().setns(fd, nstype))


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Operate on the calling process."""
    return checked(libc().prctl(option, *(ctypes.c_ulong(a) for a in (arg2, arg3, arg4, arg5))))


def set_name(name: str) -> None:
    """Set the calling thread's name as `ps` shows it, cut to 15 bytes (PR_SET_NAME)."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def syncfs(fd: int) -> None:
    """Write the filesystem that ``fd`` is on to its disk."""
    checked(libc().syncfs(fd))


def openat2(dirfd: int, path: StrPath, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open relative to ``dirfd`` with the restrictions of ``resolve``; the descriptor is close-on-exec."""
    how = struct.pack("=QQQ", flags | OPEN_TREE_CLOEXEC, mode, resolve)
    while True:
        try:
            return _syscall(_NR_OPENAT2, dirfd, os.fsencode(path), how, len(how), path=path)
        except BlockingIOError:
            # A rename raced with resolution; the manual says to try again. RESOLVE_CACHED means it.
            if resolve & RESOLVE_CACHED:
                raise


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close every descriptor from ``first`` to ``last``, or mark them close-on-exec."""
    _syscall(_NR_CLOSE_RANGE, first, last, flags)


def open_tree(dirfd: int, path: StrPath, flags: int) -> int:
    """Return a descriptor of the mount at ``path``, with OPEN_TREE_CLONE of a detached copy of it."""
    return _syscall(_NR_OPEN_TREE, dirfd, os.fsencode(path), flags, path=path)


def move_mount(from_dirfd: int, from_path: StrPath, to_dirfd: int, to_path: StrPath, flags: int) -> None:
    """Attach a detached mount, or move an attached one."""
    source, target = os.fsencode(from_path), os.fsencode(to_path)
    _syscall(_NR_MOVE_MOUNT, from_dirfd, source, to_dirfd, target, flags, path=to_path)


def mount_setattr(
    dirfd: int,
    path: StrPath,
    flags: int,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Change the properties of a mount, with AT_RECURSIVE of all below it."""
    attr = struct.pack("=QQQQ", attr_set, attr_clr, propagation, userns_fd)
    _syscall(_NR_MOUNT_SETATTR, dirfd, os.fsencode(path), flags, attr, len(attr), path=path)


def fsopen(fsname: str, flags: int = FSOPEN_CLOEXEC) -> int:
    """Return a descriptor for configuring a new filesystem; reading it gives Linux's messages."""
    return _syscall(_NR_FSOPEN, fsname.encode(), flags, path=fsname)


def fsconfig(fd: int, cmd: int, key: str | None = None, value: str | None = None, aux: int = 0) -> None:
    """Set one parameter (a string of at most 255 bytes), or create the filesystem."""
    name = None if key is None else key.encode()
    _syscall(_NR_FSCONFIG, fd, cmd, name, None if value is None else os.fsencode(value), aux, path=key)


def fsmount(fsfd: int, flags: int = FSMOUNT_CLOEXEC, attr_flags: int = 0) -> int:
    """Return a descriptor of a detached mount of the filesystem that ``fsfd`` created."""
    return _syscall(_NR_FSMOUNT, fsfd, flags, attr_flags)


def ficlone(destination: int, source: int) -> None:
    """Make one open file share the other's data; EOPNOTSUPP or EXDEV where that cannot be."""
    checked(libc().ioctl(destination, ctypes.c_ulong(FICLONE), ctypes.c_ulong(source)))


def statfs_type(path: StrPath) -> int:
    """Return the magic number of the filesystem that ``path`` is on (f_type of statfs(2))."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs is 120 bytes
    checked(libc().statfs(os.fsencode(path), buffer), path)
    return int(struct.unpack_from("@l", buffer)[0])


def inotify_init1(flags: int) -> int:
    """Return a descriptor for inotify(7)."""
    return checked(libc().inotify_init1(flags))


def inotify_add_watch(fd: int, path: StrPath, mask: int) -> int:
    """Watch a path, and return the watch's number."""
    return checked(libc().inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask)), path)


def tee(fd_in: int, fd_out: int, length: int, flags: int = 0) -> int:
    """Copy bytes from one pipe to another, without taking them, and return how many."""
    return checked(libc().tee(fd_in, fd_out, ctypes.c_size_t(length), ctypes.c_uint(flags)))
