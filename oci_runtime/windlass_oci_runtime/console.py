"""Gives a process a terminal of its container, and its master to who asked for the process."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import stat
import struct
import termios

from windlass_linux import calls as linux
from windlass_oci_runtime import procfs
from windlass_oci_runtime.rootfs import EMPTY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from windlass_oci_runtime.inside import Root

TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
"""ioctl_tty(2): the number of a terminal, its lock, and its slave."""
DEVPTS = 0x1CD1
"""The magic number of devpts, statfs(2)."""


def connected(where: str | socket.socket) -> socket.socket:
    """Return a connection to the socket that gets the master, given by its path or itself. Raises OSError."""
    if not isinstance(where, str):
        return where.dup()
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        peer.connect(where)
    except BaseException:
        peer.close()
        raise
    return peer


def make(peer: socket.socket, size: Mapping[str, int] | None) -> int:
    """Open a terminal of this root's /dev/pts, send its master to ``peer``, and return its slave."""
    master = _opened()
    try:
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("I", fcntl.ioctl(master, TIOCGPTN, bytes(4)))[0]
        name = f"/dev/pts/{number}"
        # By the master: the container may have put something else at the name.
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if size:
            fcntl.ioctl(
                slave, termios.TIOCSWINSZ, struct.pack("HHHH", size.get("height", 0), size.get("width", 0), 0, 0)
            )
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))
        peer.sendmsg([name.encode()], [rights])
        return slave
    finally:
        os.close(master)


def _opened() -> int:
    """Return a new master, of the file system of terminals and of nothing else that may be at the place."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    # A link would lead to another file, or to a terminal of somebody else (CVE-2025-52565).
    master = linux.openat2(linux.AT_FDCWD, "/dev/pts/ptmx", flags, resolve=linux.RESOLVE_NO_SYMLINKS)
    found = os.fstat(master)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(5, 2) or procfs.type_of(master) != DEVPTS:
        os.close(master)
        raise OSError(errno.EINVAL, "it is not the multiplexer of a devpts; mount one at /dev/pts", "/dev/pts/ptmx")
    os.set_blocking(master, True)
    return master


def bind(root: Root, slave: int) -> None:
    """Have the terminal at /dev/console, too, as the specification wants; no link of the image leads it elsewhere."""
    tree = linux.open_tree(slave, "", linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_EMPTY_PATH)
    try:
        target = root.file("/dev/console", linux.RESOLVE_NO_SYMLINKS)
        try:
            linux.move_mount(tree, "", target, "", EMPTY)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def attach(slave: int) -> None:
    """Make a terminal this session's, and the standard streams."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(slave, number)
