"""Paths below the root of a chrooted worker: parents that are missing, links that dangle, trees to remove."""

# Names are bytes, which pathlib does not take:
# ruff: noqa: PTH102, PTH106, PTH108, PTH115
from __future__ import annotations

import errno
import os
import stat
from typing import Protocol

MAX_LINKS = 40
"""As Linux's own limit (path_resolution(7))."""


class Ownership(Protocol):
    """Knows what a directory that this layer does not describe looks like beneath."""

    def dress(self, path: bytes) -> None:
        """Give the new directory ``path`` owner and mode of its counterpart, if there is one."""
        ...


def resolve(path: bytes, last: bool = False) -> bytes:
    """Return ``path`` without links, where components that do not exist stand for themselves.

    The last component is left alone unless ``last``. Raises OSError with ELOOP.
    """
    todo = path.split(b"/")[::-1]
    done: list[bytes] = []
    links = 0
    while todo:
        part = todo.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            del done[-1:]
            continue
        here = b"/" + b"/".join((*done, part))
        target = _link(here) if todo or last else b""
        if not target:
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith(b"/"):
            done.clear()
        todo += target.split(b"/")[::-1]
    return b"/" + b"/".join(done)


def _link(path: bytes) -> bytes:
    try:
        return os.readlink(path)
    except OSError:
        return b""


def make_parents(path: bytes, ownership: Ownership) -> None:
    """Make the directories above ``path`` that are missing, also where a link among them dangles."""
    parent = resolve(path[: path.rindex(b"/")], last=True)
    missing: list[bytes] = []
    while parent != b"/" and not os.path.lexists(parent):
        missing.append(parent)
        parent = parent[: parent.rindex(b"/")] or b"/"
    for directory in reversed(missing):
        os.mkdir(directory, 0o755)
        ownership.dress(directory)


def remove(path: bytes) -> None:
    """Remove whatever ``path`` names, without following it and without recursing by Python's stack."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    stack = [path]
    while stack:
        top = stack[-1]
        try:
            os.rmdir(top)
            stack.pop()
            continue
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        for item in os.scandir(top):
            if item.is_dir(follow_symlinks=False):
                stack.append(item.path)
            else:
                os.unlink(item.path)
