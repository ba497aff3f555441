"""Loop devices: a file as a block device, freed by Linux when its last user is gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from windlass import linux

TRIES = 100


@contextmanager
def attached(path: str, readonly: bool, direct: bool = False) -> Iterator[str]:
    """Yield the path of a loop device for ``path``; it lives on as long as something is mounted from it.

    ``direct``: what it reads and writes is not cached a second time.
    """
    file = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
    try:
        device, name = _configure(file, path, readonly, direct)
    finally:
        os.close(file)
    try:
        yield name
    finally:
        os.close(device)


def _configure(file: int, path: str, readonly: bool, direct: bool) -> tuple[int, str]:
    flags = linux.LO_FLAGS_AUTOCLEAR | (linux.LO_FLAGS_READ_ONLY if readonly else 0)
    flags |= linux.LO_FLAGS_DIRECT_IO if direct else 0
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(TRIES):
            name = f"/dev/loop{linux.loop_ctl_get_free(control)}"
            device = os.open(name, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
            try:
                linux.loop_configure(device, file, flags, path)
                return device, name
            except OSError as error:
                os.close(device)
                # Between asking for a free one and taking it, somebody else took it.
                if error.errno != errno.EBUSY:
                    raise
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device", path)
