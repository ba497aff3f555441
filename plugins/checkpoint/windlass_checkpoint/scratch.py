"""Directories that checkpoints pass through, on disk because they hold as much as a container's memory."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from windlass.errors import InvalidArgument
from windlass_storage import trees
from windlass_storage.disks import disk_errors, private_directory

KEPT = "kept-"
"""How the names of directories begin that the operator has to decide about."""
MAX_ENTRIES = 1 << 20


class Scratch:
    """Makes the directories; whatever a daemon that was killed has left there is removed. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Take ``directory``, which only this object uses."""
        self._directory = directory
        private_directory(directory)
        for left in directory.iterdir():
            if not left.name.startswith(KEPT):
                trees.remove(left)

    def make(self) -> Path:
        """Return a new directory that only root may enter."""
        path = self._directory / secrets.token_hex(8)
        with disk_errors(f"make {path}", self._directory):
            path.mkdir(mode=0o700)
        return path

    def remove(self, path: Path) -> None:
        """Delete a directory of `make`, if it is still there."""
        with disk_errors(f"remove {path}", self._directory):
            trees.remove(path)

    def keep(self, path: Path, namespace: str, id: str) -> Path:
        """Give a directory of `make` a name under which it stays, and return that."""
        kept = path.with_name(f"{KEPT}{namespace}-{id}-{path.name}")
        path.rename(kept)
        return kept


def refuse_strange(top: Path, what: str) -> None:
    """Raise InvalidArgument when anything but plain files and directories is below ``top``.

    criu would open what a link leads to, and would wait for the writer of a FIFO.
    """
    for count, entry in enumerate(_walk(top)):
        mode = entry.stat(follow_symlinks=False).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            name = os.path.relpath(entry.path, top)[:80]
            raise InvalidArgument(f"{what} holds {name!r}, which is neither file nor directory; it is not restored")
        if count >= MAX_ENTRIES:
            raise InvalidArgument(f"{what} holds more than {MAX_ENTRIES} files; it is not restored")


def _walk(top: Path) -> Iterator[os.DirEntry[str]]:
    pending = [os.fspath(top)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
