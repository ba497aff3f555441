"""Network namespaces that have a name: a file on which the namespace is mounted, as `ip netns` and CNI have them."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from windlass_linux import calls as linux

R = TypeVar("R")

NSFS_MAGIC = 0x6E736673
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
_IFREQ = struct.Struct("16sh22x")


def create(path: Path) -> None:
    """Make a namespace with its loopback interface up, and name it ``path``, which must not exist.

    Blocks for some milliseconds. Raises OSError; nothing is left then.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))

    def make() -> None:
        linux.unshare(linux.CLONE_NEWNET)
        _loopback_up()
        linux.mount("/proc/thread-self/ns/net", path, "", linux.MS_BIND)

    try:
        _in_thread(make)
    except BaseException:
        path.unlink()
        raise


def remove(path: Path) -> None:
    """Take the name away, and with it a namespace that nothing else holds; one that is gone already is not an error."""
    while True:
        try:
            linux.umount2(path, linux.MNT_DETACH | linux.UMOUNT_NOFOLLOW)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            break
    path.unlink(missing_ok=True)


def is_there(path: Path) -> bool:
    """Return whether a namespace is mounted at ``path``; after a reboot the file may be there without one."""
    try:
        return linux.statfs_type(path) == NSFS_MAGIC
    except FileNotFoundError:
        return False


def within(path: Path, call: Callable[[], R]) -> R:
    """Call a function in a thread of its own that is in the namespace, and return what it returns.

    Sockets that it makes belong to the namespace for ever.
    """

    def enter() -> R:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            linux.setns(descriptor, linux.CLONE_NEWNET)
        finally:
            os.close(descriptor)
        return call()

    return _in_thread(enter)


def _in_thread(call: Callable[[], R]) -> R:
    """Call in a thread that ends with the call, so that no other work ever runs in the namespace it changed to."""
    # An executor of its own, since one thread is never used twice here.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns") as executor:
        return executor.submit(call).result()


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        found = fcntl.ioctl(control, SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        flags = _IFREQ.unpack(found)[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | IFF_UP))
