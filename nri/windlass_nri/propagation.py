"""Whether mounts on this machine propagate from and to a path."""

from __future__ import annotations

import re
from pathlib import Path

SHARED, SLAVE, PRIVATE = "rshared", "rslave", ""


def propagation_of(path: str) -> str:
    """Return the propagation of the mount that ``path`` is on, by /proc/self/mountinfo of proc(5)."""
    wanted = Path(path).parts
    found, depth = PRIVATE, 0
    for line in Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape").splitlines():
        fields = line.partition(" - ")[0].split(" ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])).parts
        # a later mount on the same point hides the earlier one
        if len(point) >= depth and wanted[: len(point)] == point:
            found, depth = _propagation(fields[6:]), len(point)
    return found


def _propagation(tags: list[str]) -> str:
    if any(tag.startswith("shared:") for tag in tags):
        return SHARED
    return SLAVE if any(tag.startswith("master:") for tag in tags) else PRIVATE
