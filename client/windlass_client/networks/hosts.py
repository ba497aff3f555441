"""`/etc/hosts` of a container: docker's own lines, and a part between two marks that follows its networks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

LIMIT = 1 << 20
"""Bytes of a file that is rewritten; the container may have written more, and then keeps what it has."""
BEGIN, END = "# windlass: begin", "# windlass: end"
LOCAL = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def text(lines: Sequence[str], before: str = LOCAL) -> str:
    """Return a whole file."""
    return before.rstrip("\n") + "\n" + "".join(f"{each}\n" for each in (BEGIN, *lines, END))


def rewrite(path: Path, lines: Sequence[str]) -> None:
    """Replace what is between the marks, and keep what the container has written around it.

    The file is mounted in the container, so it must stay the same file. A container without one is left alone.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    with os.fdopen(descriptor, "r+", encoding="utf-8", errors="surrogateescape") as file:
        found = file.read(LIMIT)
        if len(found) == LIMIT:
            return
        before, begin, rest = found.partition(f"{BEGIN}\n")
        after = rest.partition(f"{END}\n")[2] if begin else ""
        new = text(lines, before) + after
        if new != found:
            # One write: what a reader sees meanwhile is at most the end of the old file behind the new one.
            file.seek(0)
            file.write(new)
            file.truncate()
