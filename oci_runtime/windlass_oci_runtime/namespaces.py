"""Namespaces of a container: new ones as flags of clone3(2), others by their files."""

from __future__ import annotations

import os

from windlass.errors import InvalidArgument
from windlass_linux import calls as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLAGS = {
    "user": linux.CLONE_NEWUSER,
    "pid": linux.CLONE_NEWPID,
    "mount": linux.CLONE_NEWNS,
    "network": linux.CLONE_NEWNET,
    "ipc": linux.CLONE_NEWIPC,
    "uts": linux.CLONE_NEWUTS,
    "cgroup": linux.CLONE_NEWCGROUP,
    "time": linux.CLONE_NEWTIME,
}
"""By the names of the specification, in the order in which namespaces are joined."""

FILES = {"network": "net", "mount": "mnt"}
"""Names in /proc/PID/ns that differ."""

LATE = linux.CLONE_NEWCGROUP
"""Made by the process itself, after it has joined its groups, whose root they show."""


def new(namespaces: Sequence[Mapping[str, str]]) -> int:
    """Return the flags of the namespaces to make."""
    flags = 0
    for each in namespaces:
        if not each.get("path"):
            flags |= FLAGS[each["type"]]
    return flags


def opened(namespaces: Sequence[Mapping[str, str]]) -> list[tuple[int, int]]:
    """Return descriptor and flag of each namespace that has a path. Raises InvalidArgument, OSError."""
    found: list[tuple[int, int]] = []
    try:
        for kind, flag in FLAGS.items():
            for each in namespaces:
                if each["type"] == kind and each.get("path"):
                    found.append((_open(kind, each["path"]), flag))
    except BaseException:
        for descriptor, _ in found:
            os.close(descriptor)
        raise
    return found


def _open(kind: str, path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        why = (error.strerror or "").lower()
        raise InvalidArgument(f"{kind} namespace {path[:200]}: {why}; the pod or network may be gone") from None


def join(descriptors: Sequence[tuple[int, int]]) -> None:
    """Enter the namespaces, and close their descriptors."""
    for descriptor, flag in descriptors:
        linux.setns(descriptor, flag)
        os.close(descriptor)
