"""The environment of a process; without HOME it gets the directory of its user in the container's `/etc/passwd`."""

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
    """Return an environment with HOME, and of each variable that is named several times the last value, as by runc.

    The process must be in the container's root file system already.
    """
    found: dict[str, str] = {}
    for each in environment:
        name = each.partition("=")[0]
        found.pop(name, None)
        found[name] = each
    if found.get("HOME", "HOME=") == "HOME=":
        found["HOME"] = f"HOME={_directory(uid) or '/'}"
    return list(found.values())


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
