"""Executables that a container cannot write to when it finds one behind /proc/PID/exe.

CVE-2019-5736: the file behind /proc/PID/exe is the host's, whatever root file system the process has. So a process that
enters containers runs from a file of a read-only mount that nobody else has (overlayfs; it shares its memory with the
original), or, where that cannot be made, from a copy in memory with seals (memfd_create(2)).
"""

# ruff: noqa: PTH119, PTH120, PTH123
# Processes that enter containers have this module, and no pathlib.
from __future__ import annotations

import contextlib
import fcntl
import os

from windlass_linux import calls as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MFD_EXEC = 0x10
"""memfd_create(2), since Linux 6.3; an older one refuses it."""

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(path: str) -> int:
    """Return a descriptor of the program at ``path`` by which it can be executed, and never written. Raises OSError."""
    with contextlib.suppress(OSError):
        return through_overlay(os.path.realpath(path))
    return in_memory(path)


def through_overlay(path: str) -> int:
    """Return a descriptor of a program in a read-only mount of its own. Raises OSError."""
    directory, _, name = path.rpartition("/")
    context = linux.fsopen("overlay")
    try:
        # Without an upper directory nothing can be written; overlayfs wants two lower ones then.
        for lower in (directory or "/", os.path.dirname(__file__)):
            linux.fsconfig(context, linux.FSCONFIG_SET_STRING, "lowerdir+", lower)
        linux.fsconfig(context, linux.FSCONFIG_CMD_CREATE)
        attributes = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV
        mount = linux.fsmount(context, attr_flags=attributes)
    finally:
        os.close(context)
    try:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)


def in_memory(path: str) -> int:
    """Return a descriptor of a copy in memory that is sealed. Raises OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    name = os.path.basename(path)
    try:
        copy = os.memfd_create(name, flags | MFD_EXEC)
    except OSError:
        copy = os.memfd_create(name, flags)
    try:
        with open(path, "rb", buffering=0) as file:
            while os.sendfile(copy, file.fileno(), None, 1 << 30):
                pass
        os.fchmod(copy, 0o555)
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, SEALS)
        # What is open for writing cannot be executed, whatever its seals.
        return os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(copy)


def is_sealed(descriptor: int) -> bool:
    """Return whether nobody can write to the file behind a descriptor by way of it."""
    try:
        return bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError:
        return bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)


def is_own_sealed() -> bool:
    """Return whether this process runs from a program that nobody can write to by way of /proc/PID/exe."""
    descriptor = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return is_sealed(descriptor)
    finally:
        os.close(descriptor)


def execute(program: str, arguments: Sequence[str]) -> None:
    """Become a program, by a sealed descriptor of it; returns if this process is sealed already. Raises OSError."""
    if not is_own_sealed():
        os.execve(sealed(program), list(arguments), os.environ)  # noqa: S606 -- which is the point
