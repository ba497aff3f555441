"""Unix sockets of shims: made for the owner only, and usable below directories of any depth."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

MAX_SUN_PATH = 107
"""Longest path that fits into a unix(7) address, the closing zero left out."""

BACKLOG = 16


@contextlib.contextmanager
def short_name(path: Path) -> Iterator[str]:
    """Give a socket's path a name that fits into its address, through a descriptor of the directory if need be."""
    if len(os.fsencode(path)) <= MAX_SUN_PATH:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen_unix(path: Path) -> socket.socket:
    """Return a listening socket of mode 0600 at ``path``, which must not exist."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Linux gives the file the mode of the socket, so there is no moment at which others could connect.
        os.fchmod(listener.fileno(), 0o600)
        with short_name(path) as name:
            listener.bind(name)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def connect_unix(peer: socket.socket, path: str) -> None:
    """Make ``peer`` non-blocking and connect it at once or not at all: a full backlog raises BlockingIOError."""
    peer.setblocking(False)
    if path.startswith("\0"):
        peer.connect(path)
        return
    with short_name(Path(path)) as name:
        peer.connect(name)
