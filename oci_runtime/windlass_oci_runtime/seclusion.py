"""Keeps what is the host's in a process from the containers that it enters: its descriptors, and its memory."""

from __future__ import annotations

import contextlib

from windlass_linux import calls as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def keep_only(descriptors: Iterable[int], preserved: int = 0) -> None:
    """Close all others but the standard streams and the ``preserved`` that follow them.

    Or a container could find one of the host's here.
    """
    first = 3 + preserved
    for descriptor in sorted(descriptors):
        if descriptor < first:
            continue
        if descriptor > first:
            linux.close_range(first, descriptor - 1)
        first = descriptor + 1
    linux.close_range(first)


@contextlib.contextmanager
def closed_to_others() -> Iterator[None]:
    """Keep this process and those that it makes meanwhile from ptrace(2) and /proc by whoever lacks CAP_SYS_PTRACE."""
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    try:
        yield
    finally:
        linux.prctl(linux.PR_SET_DUMPABLE, 1)
