"""What a daemon that died, containerd among them, has left in the directory of temporary mounts."""

from __future__ import annotations

import logging
from pathlib import Path

from windlass_linux.mounting import unmount_all

logger = logging.getLogger(__name__)


def clear_mounts(directory: Path) -> None:
    """Unmount what a daemon that died has left mounted below ``directory``, and remove the mount points."""
    if not directory.is_dir():
        return
    try:
        unmount_all(directory)
        for place in directory.iterdir():
            # never recursively: what a mount still shows is not ours
            place.rmdir()
    except OSError as error:
        logger.warning("leftovers in %s stay: %s", directory, error)
