"""Namespaces of a container: new ones as flags of clone3(2), others by their files."""

from __future__ import annotations

import os
from itertools import takewhile

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_linux import calls as linux
from windlass_oci_runtime import userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from windlass_oci_runtime.json_types import Json

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
"""By the names of the specification."""

FILES = {"network": "net", "mount": "mnt"}
"""Names in /proc/PID/ns that differ."""

CLOCKS = ("monotonic", "boottime")
ENTERED_BY_EXECUTION = (6, 0)
"""Since this Linux execve(2) takes a process into the time namespace that it has made."""

LATE = linux.CLONE_NEWCGROUP | linux.CLONE_NEWTIME
"""Made by the process itself: a cgroup namespace after it has joined its groups, whose root it shows, and a time
namespace with its offsets before the first process is in it, which is when the program is executed."""


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
        # The user namespace last: root of the host may enter all others.
        for kind, flag in sorted(FLAGS.items(), key=lambda each: each[0] == "user"):
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
        raise InvalidArgument(
            f"linux.namespaces: {kind} namespace {path[:200]}: {why}; the pod or network may be gone"
        ) from None


def differs(pid: int, kind: str) -> bool:
    """Return whether another process is in another namespace than this one. Raises OSError."""
    return os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def time_offsets(spec: Json, is_new: bool) -> str:
    """Return what to write to `timens_offsets` (time_namespaces(7)). Raises InvalidArgument, FailedPrecondition."""
    offsets = spec.get("timeOffsets") or {}
    if offsets and not is_new:
        raise InvalidArgument("linux.timeOffsets need a new time namespace in linux.namespaces")
    if is_new and _release() < ENTERED_BY_EXECUTION:
        raise FailedPrecondition("a time namespace needs Linux 6.0 or later with this runtime")
    for clock in offsets:
        if clock not in CLOCKS:
            raise InvalidArgument(f"linux.timeOffsets: {clock[:40]!r} is not one of {', '.join(CLOCKS)}")
    return "".join(f"{clock} {each.get('secs', 0)} {each.get('nanosecs', 0)}\n" for clock, each in offsets.items())


def _release() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(takewhile(str.isdigit, minor)) or 0)


def set_time(offsets: str) -> None:
    """Set the clocks of the time namespace that this process has made, and that its program will be in."""
    with open("/proc/self/timens_offsets", "w", encoding="ascii") as file:
        file.write(offsets)


def join(descriptors: Sequence[tuple[int, int]]) -> None:
    """Enter the namespaces; the user namespace as its root. That of time needs a process with memory of its own."""
    for descriptor, flag in descriptors:
        try:
            linux.setns(descriptor, flag)
        except OSError as error:
            kind = next(each for each in FLAGS if FLAGS[each] == flag)
            raise OSError(
                error.errno, f"cannot join the {kind} namespace of linux.namespaces: {error.strerror}"
            ) from None
        if flag == linux.CLONE_NEWUSER:
            userns.become_root()
