"""Unix sockets that appear in their place finished: bound, with mode and owner, never before."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from windlass.errors import FailedPrecondition, InvalidArgument

MODE = 0o660
PARENT_MODE = 0o770
BACKLOG = 128
LONGEST = 104
"""Bytes in a socket's path on every Unix (reference 1.5)."""


@contextmanager
def placed(path: Path, owner: tuple[int, int]) -> Iterator[str]:
    """Yield a short path to bind a socket to, and move the socket to ``path`` afterwards.

    A stale socket at ``path`` is replaced. Raises InvalidArgument for a path that is
    too long, FailedPrecondition when somebody listens there or a file is in the way.
    """
    check_length(path)
    path.parent.mkdir(mode=PARENT_MODE, parents=True, exist_ok=True)
    _refuse_occupied(path)
    name = f".{path.name}.{os.getpid()}"
    parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # through the descriptor, so that the temporary name may be longer than a socket's path
        short = f"/proc/self/fd/{parent}/{name}"
        yield short
        os.chmod(name, MODE, dir_fd=parent)
        os.chown(name, *owner, dir_fd=parent)
        os.rename(name, path.name, src_dir_fd=parent, dst_dir_fd=parent)
    finally:
        os.close(parent)


def listen(path: Path, owner: tuple[int, int]) -> socket.socket:
    """Return a listening socket at ``path``, which the caller owns; raises as `placed`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with placed(path, owner) as short:
            listener.bind(short)
            listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


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
        raise FailedPrecondition(f"{path} is in the way: it is no socket; remove it or choose another address")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise FailedPrecondition(f"{path} is in the way: {error.strerror}") from None
    raise FailedPrecondition(f"{path} is in use by another daemon; stop it or choose another address")


def remove(path: Path) -> None:
    """Remove a socket that we placed; one that is gone is fine."""
    path.unlink(missing_ok=True)
