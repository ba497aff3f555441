"""The variable HOME of a process that is given none: the directory of its user in the container's `/etc/passwd`."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USERS = "/etc/passwd"
MOST = 1 << 20
"""Bytes of it that are looked at."""


def added(environment: Sequence[str], uid: int) -> list[str]:
    """Return an environment with HOME. The process must be in the container's root file system already."""
    given = [each for each in environment if each.startswith("HOME=")]
    # The last one counts, as in `execute`; an empty one is none.
    if given and given[-1] != "HOME=":
        return list(environment)
    others = [each for each in environment if not each.startswith("HOME=")]
    return [*others, f"HOME={_directory(uid) or '/'}"]


def _directory(uid: int) -> str:
    for line in _lines():
        fields = line.split(":")
        if len(fields) > 5 and fields[2] == str(uid):
            return fields[5]
    return ""


def _lines() -> list[str]:
    try:
        # Whatever the image has there must not hold us up.
        descriptor = os.open(USERS, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return []
        return os.read(descriptor, MOST).decode(errors="surrogateescape").splitlines()
    except OSError:
        return []
    finally:
        os.close(descriptor)
