"""Loop devices: a file as a block device, freed by Linux when its last user is gone."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from windlass_linux import loop_calls
from windlass_linux.calls import StrPath

TRIES = 100
BUSY_SECONDS = 2.0
"""How long a file may be in use after what was in it has been unmounted: Linux frees devices a little later."""
BUSY_PAUSE = 0.02
F_SETSIG = 10
"""fcntl(2); Python has no name for it."""


@contextmanager
def attached(path: str, readonly: bool, direct: bool = False) -> Iterator[str]:
    """Yield the path of a loop device for ``path``; it lives on as long as something is mounted from it.

    ``direct``: what it reads and writes is not cached a second time.
    Raises OSError (EBUSY) for a file that something else writes to, such as another device: two would damage it.
    """
    if not readonly and is_written(path):
        raise OSError(errno.EBUSY, "it is in use already, and a second writer would damage it", path)
    file = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
    try:
        device, name = _configure(file, path, readonly, direct)
    finally:
        os.close(file)
    try:
        yield name
    finally:
        os.close(device)


def is_written(path: StrPath, patience: float | None = None) -> bool:
    """Return whether anybody has a file open for writing, still after ``patience`` seconds (`BUSY_SECONDS`)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + (BUSY_SECONDS if patience is None else patience)
        while not _can_lease(descriptor):
            if time.monotonic() > deadline:
                return True
            time.sleep(BUSY_PAUSE)
        return False
    finally:
        os.close(descriptor)


def _can_lease(descriptor: int) -> bool:
    # fcntl(2): a read lease is given only on files that no process has open for writing.
    try:
        # Another process that opens it just now makes Linux send us SIGIO, which ends a process; this one is ignored.
        fcntl.fcntl(descriptor, F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        # A block device, or a filesystem without leases, cannot tell.
        return error.errno not in (errno.EAGAIN, errno.EBUSY)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def _configure(file: int, path: str, readonly: bool, direct: bool) -> tuple[int, str]:
    flags = loop_calls.LO_FLAGS_AUTOCLEAR | (loop_calls.LO_FLAGS_READ_ONLY if readonly else 0)
    flags |= loop_calls.LO_FLAGS_DIRECT_IO if direct else 0
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(TRIES):
            name = f"/dev/loop{loop_calls.loop_ctl_get_free(control)}"
            device = os.open(name, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
            try:
                loop_calls.loop_configure(device, file, flags, path)
                return device, name
            except OSError as error:
                os.close(device)
                # Between asking for a free one and taking it, another process took it.
                if error.errno != errno.EBUSY:
                    raise
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device", path)
