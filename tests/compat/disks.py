"""A small disk of the test's own, to be filled up: a filesystem in a file, mounted by a loop device."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = 4096


class Disk:
    """A mounted file system; what fills it is one file, which can be taken away again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def free(self) -> int:
        """Return the bytes that can still be written."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all space but ``leave`` bytes."""
        os.sync()  # or what was written just now takes its blocks later
        with self._filler.open("ab") as file:
            for step in (1 << 20, 64 << 10, BLOCK):
                while self.free() - step >= leave:
                    try:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise
                        break

    def grab(self) -> None:
        """Take what is free at this moment, and wait for nothing."""
        with self._filler.open("ab") as file:
            for step in (1 << 20, 64 << 10, BLOCK):
                try:
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def release(self) -> None:
        """Give back what `fill` has taken."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(directory: Path, megabytes: int, kind: str = "ext4") -> Iterator[Disk]:
    """Yield a disk that is mounted in ``directory``; mount and loop device are gone afterwards."""
    image, place = directory / "disk.img", directory / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    # -m 0: root may use what is otherwise kept for it, so that full is full.
    options = {"ext4": ["-F", "-b", str(BLOCK), "-m", "0"], "btrfs": ["-f"]}[kind]
    subprocess.run([f"mkfs.{kind}", "-q", *options, image], check=True)
    # `mount -o loop` marks the device to be released with its last mount.
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "-l", place], check=True)
