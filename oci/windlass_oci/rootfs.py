"""A look into the root file system of a container that does not run.

A snapshot is mounted read-only in a mount namespace of one thread, which leaves nothing behind even after kill -9.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from windlass.contracts.mounts import Mount
from windlass.errors import Error
from windlass_linux import calls as linux

R = TypeVar("R")


def looked_into(mounts: Sequence[Mount], look: Callable[[str], R]) -> R:
    """Mount a snapshot, call ``look`` with the path of its root, and return what that returns.

    ``look`` is called in a thread of its own, which alone has the mount. Blocks; needs root. Raises OSError.
    """
    found: list[R] = []
    problems: list[OSError | Error] = []
    thread = threading.Thread(target=_look, args=(mounts, look, found, problems), name="windlass-rootfs", daemon=True)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return found[0]


def _look(mounts: Sequence[Mount], look: Callable[[str], R], found: list[R], problems: list[OSError | Error]) -> None:
    from windlass_linux import mounting

    try:
        # Of this thread alone, unshare(2): the namespace and its mounts end with it.
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
        with mounting.mounted(mounting.read_only(mounts)) as root:
            found.append(look(root))
    except (OSError, Error) as error:
        problems.append(error)
