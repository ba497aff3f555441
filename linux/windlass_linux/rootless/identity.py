"""Which IDs a plain user may have in a user namespace: those of /etc/subuid and /etc/subgid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from windlass.errors import StartError

ENOUGH = 65536
"""What images take for granted: every ID up to that of nobody."""

Range = tuple[int, int]
"""The first ID on the host, and how many follow it."""


def subordinate(file: Path, user: str, uid: int) -> list[Range]:
    """Return the ranges that a file has for a user, by name or number (subuid(5)). Raises StartError without any."""
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise StartError(f"{file} cannot be read: {error.strerror}; {_remedy(file, user)}") from None
    ranges = []
    for line in lines:
        owner, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if owner in (user, str(uid)) and first.isdigit() and count.isdigit() and int(count):
            ranges.append((int(first), int(count)))
    if not ranges:
        raise StartError(f"{file} has no range for user {user}; {_remedy(file, user)}")
    return ranges


def mapping(own: int, ranges: Sequence[Range]) -> list[str]:
    """Return the arguments of newuidmap or newgidmap: the user is ID 0, the subordinate IDs follow from 1."""
    arguments, inside = ["0", str(own), "1"], 1
    for first, count in ranges:
        arguments += [str(inside), str(first), str(count)]
        inside += count
    return arguments


def shortage(file: Path, ranges: Sequence[Range]) -> str:
    """Return a warning when the ranges are too small for common images, "" when they are not."""
    total = sum(count for _, count in ranges)
    if total >= ENOUGH:
        return ""
    return f"{file} gives {total} IDs; images with owners above {total} cannot be unpacked; {ENOUGH} are enough"


def _remedy(file: Path, user: str) -> str:
    option = "--add-subgids" if file.name == "subgid" else "--add-subuids"
    return f"as root: usermod {option} 100000-165535 {user}"
