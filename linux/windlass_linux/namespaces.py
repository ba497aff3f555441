"""Namespaces that no process keeps: each is mounted on a file, its name, and lasts until the name is removed."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from windlass_linux import calls as linux

R = TypeVar("R")

NSFS_MAGIC = 0x6E736673
KINDS = {"net": linux.CLONE_NEWNET, "ipc": linux.CLONE_NEWIPC, "uts": linux.CLONE_NEWUTS}
"""Those that one thread of a process can change alone, by their names in /proc/PID/ns."""
NS_GET_USERNS = 0xB701
"""ioctl_ns(2)."""


def create(names: Mapping[str, Path], inside: Callable[[], None], join: Mapping[str, Path] | None = None) -> None:
    """Make namespaces of the kinds that ``names`` has, prepare them, and give them their names; all or none.

    ``inside`` runs in them, and in those that ``join`` names, before they have names. Blocks for some milliseconds.
    Raises OSError, FileExistsError for a name that is taken, and what ``inside`` raises.
    """

    def make() -> None:
        for kind, path in (join or {}).items():
            _enter(kind, path)
        flags = 0
        for kind in names:
            flags |= KINDS[kind]
        linux.unshare(flags)
        inside()
        for kind, path in names.items():
            pin(f"/proc/thread-self/ns/{kind}", path)

    with files_for(names.values()):
        _in_thread(make)


def create_owned(names: Mapping[str, Path], uidmap: str, gidmap: str) -> None:
    """Make namespaces of a new user namespace with these mappings, and give them their names; all or none.

    ``names`` has kinds as in `create`, and ``user`` for that namespace itself. Raises OSError, InvalidArgument.
    """
    from windlass_linux import idmap

    flags = 0
    for kind in names:
        flags |= KINDS.get(kind, 0)
    with files_for(names.values()), idmap.sleeper(uidmap, gidmap, flags) as pid:
        for kind, path in names.items():
            pin(f"/proc/{pid}/ns/{kind}", path)


def owner_of(path: Path) -> int:
    """Return a descriptor of the user namespace that a namespace belongs to; the caller closes it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(descriptor, NS_GET_USERNS)
    finally:
        os.close(descriptor)


def pin(namespace: str, path: Path) -> None:
    """Give a namespace a name: a file that is there, from `files_for`."""
    linux.mount(namespace, path, "", linux.MS_BIND)


@contextmanager
def files_for(paths: Iterable[Path]) -> Iterator[None]:
    """Make the files that become names; when the work fails they are removed, with what was mounted on them."""
    made: list[Path] = []
    try:
        for path in paths:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
            made.append(path)
        yield
    except BaseException:
        for path in made:
            remove(path)
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


def within(kind: str, path: Path, call: Callable[[], R]) -> R:
    """Call a function in a thread of its own that is in a namespace, and return what it returns.

    Sockets that it makes belong to the namespace for ever.
    """

    def enter() -> R:
        _enter(kind, path)
        return call()

    return _in_thread(enter)


def within_each(kind: str, paths: Iterable[Path], call: Callable[[Path], object]) -> None:
    """Call a function in each namespace that is there, in one thread of its own for all of them."""

    def enter() -> None:
        for path in paths:
            try:
                _enter(kind, path)
            except OSError:  # it was removed meanwhile, and its name with it or not (EINVAL)
                continue
            call(path)

    _in_thread(enter)


def _enter(kind: str, path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.setns(descriptor, KINDS[kind])
    finally:
        os.close(descriptor)


def _in_thread(call: Callable[[], R]) -> R:
    """Call in a thread that ends with the call, so that no other work ever runs in the namespaces it changed to."""
    # Imported here for hooks of containers, which only name a namespace and have to start fast.
    from concurrent.futures import ThreadPoolExecutor

    # An executor of its own, since one thread is never used twice here.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespaces") as executor:
        return executor.submit(call).result()
