"""The handler of mount type ``erofs``: images are mounted as they are where Linux can, else through loop devices."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from windlass import mounting
from windlass.activations import ActiveMount
from windlass.mounts import Mount


class ErofsHandler:
    """A `windlass.activations.MountHandler`."""

    def __init__(self) -> None:
        """Believe that Linux needs no loop devices, until it says so."""
        self._needs_device = False

    def mount(self, mount: Mount, place: str, below: Sequence[ActiveMount]) -> ActiveMount:
        """Make a directory and mount an image on it."""
        directory = Path(place)
        directory.mkdir(0o700)
        try:
            self._mount(replace(mount, target=""), place)
        except BaseException:
            directory.rmdir()
            raise
        return ActiveMount(mount, place, time.time_ns())

    def _mount(self, mount: Mount, place: str) -> None:
        bare = tuple(option for option in mount.options if option != "loop")
        if not self._needs_device or Path(mount.source).is_block_device():
            try:
                mounting.mount_one(replace(mount, options=bare), place)
                return
            except OSError as error:
                # Linux before 6.12, or configured without EROFS_FS_BACKED_BY_FILE, wants a block device.
                if error.errno != errno.ENOTBLK:
                    raise
                self._needs_device = True
        mounting.mount_one(replace(mount, options=(*bare, "loop")), place)

    def unmount(self, place: str) -> None:
        """Unmount and remove the directory; Linux frees the loop device."""
        if not Path(place).is_dir():
            return
        mounting.unmount_all(place)
        with suppress(FileNotFoundError):
            # Never recursive: should something still be mounted there, its files are not ours to delete.
            Path(place).rmdir()

    def is_mounted(self, place: str) -> bool:
        """Tell whether anything is mounted there."""
        return os.path.realpath(place) in mounting.mounts_below(place)
