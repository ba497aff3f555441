"""Gives a process a terminal of its container, and its master to who asked for the process."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431
"""ioctl_tty(2): the number of a terminal, and its lock."""


def connected(path: str) -> socket.socket:
    """Return a connection to the socket that gets the master. Raises OSError."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        peer.connect(path)
    except BaseException:
        peer.close()
        raise
    return peer


def make(peer: socket.socket, size: Mapping[str, int] | None) -> int:
    """Open a terminal of this root's /dev/pts, send its master to ``peer``, and return its slave."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("I", fcntl.ioctl(master, TIOCGPTN, bytes(4)))[0]
        name = f"/dev/pts/{number}"
        slave = os.open(name, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if size:
            fcntl.ioctl(
                slave, termios.TIOCSWINSZ, struct.pack("HHHH", size.get("height", 0), size.get("width", 0), 0, 0)
            )
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))
        peer.sendmsg([name.encode()], [rights])
        return slave
    finally:
        os.close(master)


def attach(slave: int) -> None:
    """Make a terminal this session's, and the standard streams."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(slave, number)
