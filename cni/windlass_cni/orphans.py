"""Plugins whose daemon was killed: they may hang, and would go on where the next daemon has collected already."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path

logger = logging.getLogger(__name__)

PARENT = "WINDLASS_CNI_PARENT"
"""A variable that every plugin has: the pid of the process that executes it."""


def end_orphans(proc: Path = Path("/proc")) -> int:
    """Kill the plugins that outlived who executed them, with what they have started; return how many. Blocks."""
    ended = 0
    for entry in proc.iterdir():
        if entry.name.isdigit() and _is_orphan(entry):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(entry.name), signal.SIGKILL)
                logger.warning("CNI plugin %s of an earlier daemon still ran; it was killed", entry.name)
                ended += 1
    return ended


def _is_orphan(process: Path) -> bool:
    """Tell whether a process is a plugin whose parent is another than it had. One that a plugin starts is not."""
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
        parent = next((each.partition(b"=")[2] for each in variables if each.startswith(f"{PARENT}=".encode())), None)
        if parent is None:
            return False
        _, parent_now, group = (process / "stat").read_bytes().rpartition(b")")[2].split()[:3]
    except (OSError, ValueError):
        return False  # it has just ended
    return group == process.name.encode() and parent_now != parent
