"""Watching a directory by inotify(7)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from windlass_linux import calls as linux

IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
CHANGES = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
_EVENT = struct.Struct("=iIII")
BUFFER = 64 << 10


class Watch:
    """Changes of one directory's entries. A file counts when its writer has closed it, not when it appears."""

    def __init__(self, directory: Path) -> None:
        """Watch; raises OSError, FileNotFoundError for a directory that is not there."""
        self._fd = linux.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            linux.inotify_add_watch(self._fd, directory, CHANGES | linux.IN_ONLYDIR)
        except BaseException:
            os.close(self._fd)
            raise

    def fileno(self) -> int:
        """Return the descriptor that is readable when something has changed."""
        return self._fd

    def read(self) -> Iterator[tuple[int, str]]:
        """Yield mask and file name of each change there is; the name is empty for one of the directory itself."""
        while True:
            try:
                data = os.read(self._fd, BUFFER)
            except BlockingIOError:
                return
            position = 0
            while position < len(data):
                _, mask, _, length = _EVENT.unpack_from(data, position)
                position += _EVENT.size
                yield mask, os.fsdecode(data[position : position + length].rstrip(b"\0"))
                position += length

    def close(self) -> None:
        """Watch no more."""
        os.close(self._fd)
