"""Looks for processes that run in containers' root filesystems and belong to no bundle, for `windlass fsck`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Stray:
    """A process, its program, and the control group by which it can be ended with all that it has started."""

    pid: int
    name: str
    group: str


def strays(root: Path, known: Collection[int]) -> Iterator[Stray]:
    """Yield the first process of each mount namespace whose root is below ``root`` and that no ``known`` one is in.

    What a known one has started may have another: it is in its control group, or below that.
    """
    seen = {namespace_of(pid) for pid in (*known, os.getpid())}
    theirs = {f"{group}/" for pid in known if (group := group_of(pid)).strip("/")}
    for pid in sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        with contextlib.suppress(OSError):
            namespace = namespace_of(pid)
            if namespace and namespace not in seen:
                seen.add(namespace)
                group = group_of(pid)
                if has_root_below(pid, root) and not f"{group}/".startswith(tuple(theirs)):
                    yield Stray(pid, Path(f"/proc/{pid}/comm").read_text().strip(), group)


def namespace_of(pid: int) -> str:
    """Return which mount namespace a process is in, "" when it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115 - what it says is not a path
    except OSError:
        return ""


def has_root_below(pid: int, root: Path) -> bool:
    """Return whether a process has a root filesystem that is made of, or bound from, directories below ``root``."""
    for line in Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        _, _, _, source, place, *_ = left.split()
        if place == "/":
            # The directories of an overlay are among its options; of a bind the field says the place in its filesystem.
            return f"={root}/" in right or f":{root}/" in right or source.startswith(f"{root}/")
    return False


def group_of(pid: int) -> str:
    """Return a process's control group, the deepest of all hierarchies."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return max((line.split(":", 2)[2] for line in lines), key=len, default="")
