"""Network namespaces that have a name, as `ip netns` and CNI have them: see `windlass_linux.namespaces`."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from windlass_linux import namespaces
from windlass_linux.namespaces import is_there as is_there
from windlass_linux.namespaces import remove as remove

R = TypeVar("R")

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
_IFREQ = struct.Struct("16sh22x")


def create(path: Path) -> None:
    """Make a namespace with its loopback interface up, and name it ``path``, which must not exist.

    Blocks for some milliseconds. Raises OSError; nothing is left then.
    """
    namespaces.create({"net": path}, _loopback_up)


def create_owned(path: Path, uidmap: str, gidmap: str) -> None:
    """Make a namespace as `create` does, which belongs to a new user namespace with these mappings."""
    namespaces.create_owned({"net": path}, uidmap, gidmap)
    try:
        within(path, _loopback_up)
    except BaseException:
        namespaces.remove(path)
        raise


def within(path: Path, call: Callable[[], R]) -> R:
    """Call a function in a thread of its own that is in the namespace, and return what it returns."""
    return namespaces.within("net", path, call)


def within_each(paths: Iterable[Path], call: Callable[[Path], object]) -> None:
    """Call a function in each namespace that is there, in one thread of its own for all of them."""
    namespaces.within_each("net", paths, call)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        found = fcntl.ioctl(control, SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        flags = _IFREQ.unpack(found)[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | IFF_UP))
