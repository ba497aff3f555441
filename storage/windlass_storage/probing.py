"""Tries an overlay mount without waiting for the disk."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.errors import FULL
from windlass_linux import mounting
from windlass_storage import trees

MARKS = "work/incompat"
"""What Linux leaves in the work directory of a volatile mount, and for which it refuses the next mount."""


def overlay_failure(options: Sequence[str], work: Path, merged: Path) -> str:
    """Return why an overlay cannot be mounted on ``merged``, empty if it can; raises OSError for want of space.

    ``options`` name the layers, among them ``work``. It is tried as volatile first: to unmount any other, Linux
    writes all that waits for the upper directory's disk, which on a busy host takes longer than the rest of the start.
    """
    trees.remove(work / MARKS)  # of a daemon that was killed here
    try:
        with contextlib.suppress(OSError):  # before Linux 5.10, and without space for the marks
            _try((*options, "volatile"), merged)
            return ""
        _try(options, merged)
    except OSError as error:
        if error.errno in FULL:
            raise
        return error.strerror or str(error)
    finally:
        trees.remove(work / MARKS)
    return ""


def _try(options: Sequence[str], merged: Path) -> None:
    mounting.mount_one(Mount("overlay", "overlay", tuple(options)), str(merged))
    mounting.unmount(str(merged))
