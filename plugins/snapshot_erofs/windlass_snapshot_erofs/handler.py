"""The handler of mount type ``erofs``: images are mounted as they are where Linux can, else through loop devices."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass_linux import mounting
from windlass_storage.directory_handler import DirectoryHandler


class ErofsHandler(DirectoryHandler):
    """Mounts EROFS images."""

    def __init__(self) -> None:
        """Believe that Linux needs no loop devices, until it says so."""
        super().__init__(self._mount_image)
        self._needs_device = False

    def _mount_image(self, mount: Mount, place: str) -> None:
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
        # Linux frees the loop device with the mount.
        mounting.mount_one(replace(mount, options=(*bare, "loop")), place)
