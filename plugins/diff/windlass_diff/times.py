"""The times of directories, set when nothing changes in them any more, in memory that a layer cannot make large.

A layer of 250 KB can name half a million directories. The first ones are remembered by path, which is quick; when they
take much room the further ones are remembered by inode, in 24 bytes each, and found again by a walk through the tree.
"""

from __future__ import annotations

import os
import stat
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator

from windlass.errors import ResourceExhausted

NEAR = 8 << 20
"""Bytes that what is remembered by path may take."""
ENTRY = 300
"""Bytes that a path takes besides its own."""
MOST = 1 << 21
"""Directories that are remembered by inode."""
OPEN = 200
"""Directories that a walk holds open; of those further down it reads the names at once."""

AccessAndChange = tuple[int, int]


class DirectoryTimes:
    """Remembers inode and times of directories below ``/``, and sets the times at the end."""

    def __init__(self, near: int = NEAR) -> None:
        """Take up to ``near`` bytes for paths."""
        self._room = near
        self._near: dict[bytes, tuple[int, AccessAndChange]] = {}
        self._inodes = array("Q")
        self._times = array("q")

    def remember(self, path: bytes, inode: int, times: AccessAndChange) -> None:
        """Have the directory at ``path`` get these times; it is left alone if another is there by then."""
        if path in self._near or self._room >= len(path) + ENTRY:
            self._room -= len(path) + ENTRY if path not in self._near else 0
            self._near[path] = (inode, times)
            return
        if len(self._inodes) >= MOST:
            raise ResourceExhausted(f"archive has more than {MOST} directories, whose times have to be remembered")
        self._inodes.append(inode)
        self._times.extend(times)

    def set(self, progress: Callable[[], None]) -> None:
        """Set all times."""
        for path, (inode, times) in self._near.items():
            # A later entry may have put something else there, or led the path elsewhere.
            if _inode(path) == inode:
                os.utime(path, ns=times, follow_symlinks=False)
            progress()
        if self._inodes:
            self._set_far(progress)

    def _set_far(self, progress: Callable[[], None]) -> None:
        order = array("L", sorted(range(len(self._inodes)), key=self._inodes.__getitem__))
        for path in _directories():
            inode = _inode(path)
            # Of several entries for one directory the last counts, which the sort has left the last.
            found = bisect_right(order, inode, key=self._inodes.__getitem__) - 1
            if found >= 0 and self._inodes[order[found]] == inode:
                at = 2 * order[found]
                os.utime(path, ns=(self._times[at], self._times[at + 1]), follow_symlinks=False)
            progress()


def _inode(path: bytes) -> int:
    """Return the inode of a directory, 0 for anything else."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return status.st_ino if stat.S_ISDIR(status.st_mode) else 0


def _directories() -> Iterator[bytes]:
    """Yield every directory below the root, whatever is in between."""
    path = b""
    levels = [_names(b"/")]
    while levels:
        name = next(levels[-1], None)
        if name is None:
            levels.pop()
            path = path.rpartition(b"/")[0]
            continue
        path += b"/" + name
        yield path
        levels.append(_names(path) if len(levels) < OPEN else iter(list(_names(path))))


def _names(directory: bytes) -> Iterator[bytes]:
    with os.scandir(directory) as items:
        for item in items:
            if item.is_dir(follow_symlinks=False):
                yield item.name
