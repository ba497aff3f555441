"""The limit of open descriptors: as high as it may be for ourselves, as it was found for what we execute.

Go programs do the same (since Go 1.19 and 1.20.4), and containerd is one: a container gets what the service manager has
set, and programs that use select(2), which fails from 1,024 on, see no more of it than before.
"""

from __future__ import annotations

import os
import resource

# Not from typing, which would be a megabyte in every shim.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NOFILE = resource.RLIMIT_NOFILE

SHELL = "/bin/sh"

_found = 0
"""The soft limit before we raised it, 0 while we have not."""


def raise_limit() -> None:
    """Raise the soft limit to the hard one, if Linux lets us; we work without."""
    global _found
    soft, hard = resource.getrlimit(NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(NOFILE, (hard, hard))
        except (OSError, ValueError):
            # The sysctl fs.nr_open may be lower by now than what a process has been given (setrlimit(2): EPERM).
            return
        _found = _found or soft


def found_limit() -> int:
    """Return the soft limit that there was before it was raised."""
    return _found or resource.getrlimit(NOFILE)[0]


def set_limit(soft: int) -> None:
    """Set the soft limit, at most to the hard one, unless it is so already."""
    now, hard = resource.getrlimit(NOFILE)
    wanted = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    if wanted != now:
        resource.setrlimit(NOFILE, (wanted, hard))


class Found:
    """A context in which the limit is as it was found, for a process with one thread that executes something."""

    __slots__ = ()

    def __enter__(self) -> None:
        if _found:
            set_limit(_found)

    def __exit__(self, *_: object) -> None:
        if _found:
            raise_limit()


def limited(command: Sequence[str]) -> list[str]:
    """Return a command that runs another with the limit as it was found, for a process with threads.

    A limit is the whole process's, and to set one between fork and exec would be Python code in a copy of a process
    with threads; so a shell does it.
    """
    if not _found or not os.access(SHELL, os.X_OK):
        return list(command)
    return [SHELL, "-c", 'ulimit -S -n "$0" && exec "$@"', str(_found), *command]
