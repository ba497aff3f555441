"""On which filesystem a path is."""

from __future__ import annotations

import os
from pathlib import Path

from windlass_linux import mounting


def filesystem_of(path: Path) -> tuple[str, str]:
    """Return the type and the source of the filesystem that ``path`` is on, or would be if it were made."""
    # Not by device numbers: on btrfs every subvolume has one of its own.
    place = os.fsencode(path.resolve())
    best, found = -1, ("an unknown filesystem", "")
    for line in Path("/proc/thread-self/mountinfo").read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        point = mounting.unescape(fields.split(b" ")[4])
        kind, source = rest.split(b" ")[:2]
        above = point == b"/" or place == point or place.startswith(point + b"/")
        # What is mounted later hides what was there before.
        if above and len(point) >= best:
            best, found = len(point), (os.fsdecode(kind), os.fsdecode(mounting.unescape(source)))
    return found
