"""Control groups of tests: below one of this process's own, which is removed at the end, when nothing must be in it."""

from __future__ import annotations

import contextlib
import os
import signal

from windlass_linux import cgroups

NAME = f"windlass-test-{os.getpid()}"
"""Of the group that is the parent of all of this process's."""

_parents = [NAME]
_shared: list[str] = []


def path_of(id: str) -> str:
    """Return the path that a spec names for a container of a test."""
    return f"/{NAME}/{id}"


def parent(name: str) -> str:
    """Note that our containers alone are going to be below a group, such as a namespace's; return its name."""
    _parents.append(name)
    return name


def shared(name: str) -> None:
    """Note that there may be containers below a group of a name that others use as well, and so may make."""
    if name not in _shared and not any(os.path.isdir(each) for each in _everywhere(name)):
        _shared.append(name)


def left() -> list[str]:
    """Remove the parents, and all that is in them; return the groups of containers that were left."""
    found = [below.path for name in _parents for group in _everywhere(name) for below in _scan(group)]
    for group in (group for name in _parents for group in _everywhere(name)):
        for pid in cgroups.processes_in(group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        cgroups.remove_within([group])
    for group in (group for name in _shared for group in _everywhere(name)):
        # Empty, it is nobody's.
        with contextlib.suppress(OSError):
            os.rmdir(group)
    return found


def _everywhere(name: str) -> list[str]:
    return [f"{place}/{name}" for place, _, _ in cgroups.hierarchies()]


def _scan(group: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(group) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
