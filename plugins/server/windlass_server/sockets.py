"""Unix sockets bound to their own path, which take connections only when they have their mode and owner."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_server.activation import inherited

MODE = 0o660
PARENT_MODE = 0o770
BACKLOG = 4096
"""Connections that wait until the daemon is ready, or has time; Linux takes no more than net.core.somaxconn."""
LONGEST = 104
"""Bytes in a socket's path on every Unix (docs/containerd 1.5)."""


@dataclass(frozen=True, slots=True)
class Place:
    """A socket that listens at a path."""

    socket: socket.socket
    path: Path
    file: tuple[int, int] | None
    """Device and inode, by which it is known from a successor's; None if the path is systemd's to remove."""

    def close(self) -> None:
        """Stop listening, and remove the path unless it is another server's by now; twice is fine."""
        self.socket.close()
        try:
            if self.file and _file(self.path) == self.file:
                self.path.unlink()
        except FileNotFoundError:
            pass


def listen(path: Path, owner: tuple[int, int]) -> Place:
    """Return a socket that listens at ``path``, which the caller owns.

    If systemd has passed one it is that. A stale socket is replaced. Raises InvalidArgument for a path that is too
    long, FailedPrecondition when another process listens there or a file is in the way.
    """
    check_length(path)
    if (passed := inherited.take(path)) is not None:
        return Place(passed, path, None)
    path.parent.mkdir(mode=PARENT_MODE, parents=True, exist_ok=True)
    _refuse_occupied(path)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # By its own path, which peers and `ss` see. Linux refuses connections until listen(), whatever the mode is.
        listener.bind(str(path))
        path.chmod(MODE)
        os.chown(path, *owner)
        listener.listen(BACKLOG)
        return Place(listener, path, _file(path))
    except BaseException:
        listener.close()
        raise


def _file(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def check_length(path: Path) -> None:
    """Raise InvalidArgument for a path that no socket can have."""
    length = len(os.fsencode(path))
    if length > LONGEST:
        raise InvalidArgument(
            f"socket path {path} has {length} bytes, the limit is {LONGEST}; choose a shorter --address"
        )


def _refuse_occupied(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise FailedPrecondition(f"{path} is in the way: it is not a socket; remove it or choose another address")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise FailedPrecondition(f"{path} is in the way: {error.strerror}") from None
    raise FailedPrecondition(f"{path} is in use by another daemon; stop it or choose another address")
