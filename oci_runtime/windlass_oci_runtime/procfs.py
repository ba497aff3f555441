"""Files of /proc, verified to be Linux's own: a container may have put something else there."""

from __future__ import annotations

import ctypes
import os
import struct

from windlass.errors import FailedPrecondition
from windlass_linux import calls as linux

PROC = 0x9FA0
"""The magic number of procfs, statfs(2)."""
RESOLVE = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_NO_XDEV | linux.RESOLVE_NO_MAGICLINKS


def open_below(directory: str, path: str, flags: int) -> int:
    """Open a file below a directory of /proc; nothing may be mounted over it. Raises FailedPrecondition, OSError."""
    base = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _type(base) != PROC:
            raise FailedPrecondition(f"{directory} is not a directory of procfs")
        return linux.openat2(base, path, flags, resolve=RESOLVE)
    finally:
        os.close(base)


def open_own(name: str, flags: int) -> int:
    """Open a file of this process's directory, in a procfs that is mounted for that alone and that nobody else sees."""
    context = linux.fsopen("proc")
    try:
        linux.fsconfig(context, linux.FSCONFIG_CMD_CREATE)
        mount = linux.fsmount(context)
    finally:
        os.close(context)
    try:
        return linux.openat2(mount, f"{os.getpid()}/{name}", flags, resolve=RESOLVE)
    finally:
        os.close(mount)


def _type(descriptor: int) -> int:
    buffer = ctypes.create_string_buffer(256)  # struct statfs is 120 bytes
    linux.checked(linux.libc().fstatfs(descriptor, buffer))
    return int(struct.unpack_from("@l", buffer)[0])
