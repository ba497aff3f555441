"""For authors of mount handlers: mounts on a directory that is made with the mount and goes with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from windlass.contracts.activations import ActiveMount, MountHandler
from windlass.contracts.mounts import Mount
from windlass.typing import override
from windlass_linux import mounting


class DirectoryHandler(MountHandler):
    """Handles any type of mount that ``attach`` can make."""

    def __init__(self, attach: Callable[[Mount, str], None] = mounting.mount_one) -> None:
        """Mount by ``attach``, which is given a mount without a target, and a directory."""
        self._attach = attach

    @override
    def mount(self, mount: Mount, place: str, below: Sequence[ActiveMount]) -> ActiveMount:
        """Make a directory and mount on it; the target of ``mount`` is not used."""
        directory = Path(place)
        directory.mkdir(0o700)
        try:
            self._attach(replace(mount, target=""), place)
        except BaseException:
            directory.rmdir()
            raise
        return ActiveMount(mount, place, time.time_ns())

    @override
    def unmount(self, place: str) -> None:
        if not Path(place).is_dir():
            return
        mounting.unmount_all(place)
        with suppress(FileNotFoundError):
            # Never recursive: should something still be mounted there, its files are not ours to delete.
            Path(place).rmdir()

    @override
    def is_mounted(self, place: str) -> bool:
        return os.path.realpath(place) in mounting.mounts_below(place)
