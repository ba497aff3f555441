"""Control groups that an OCI runtime has made and then been killed: none knows of them, so they are removed here."""

from __future__ import annotations

import errno
import json
import logging
import posixpath
import time
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_SPEC = 16 << 20
PATIENCE = 1.0
"""Seconds that a process in a group, which has lost its runtime, may take to end."""

PAUSE = 0.02


def remove_cgroups(bundle: Path) -> None:
    """Remove the group of a bundle's container from every hierarchy where nothing is in it.

    For a container that its runtime was to delete already. A path in the form of
    systemd is left to systemd, which removes a scope that is empty.
    """
    path = cgroup_of(bundle / "config.json")
    deadline = time.monotonic() + PATIENCE
    for hierarchy in hierarchies() if path else ():
        group = Path(f"{hierarchy}{path}")
        while not _is_removed(group) and time.monotonic() < deadline:
            time.sleep(PAUSE)


def cgroup_of(spec: Path) -> str:
    """Return the absolute path that a spec names, "" for none or one that is relative to the runtime's own group."""
    try:
        with spec.open("rb") as file:
            path = json.loads(file.read(MAX_SPEC))["linux"]["cgroupsPath"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return ""
    path = posixpath.normpath(path).lstrip("/")
    return f"/{path}" if path else ""


def hierarchies() -> Iterator[str]:
    """Yield where control groups are mounted, each hierarchy of version 1 and that of version 2."""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith(("cgroup ", "cgroup2 ")):
            yield left.split()[4]


def _is_removed(group: Path) -> bool:
    """Remove a group if it is there and empty; False for one that may be empty soon."""
    try:
        group.rmdir()
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            logger.warning("cannot remove control group %s: %s", group, error)
    return True
