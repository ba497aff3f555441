"""The scope of systemd that holds a container's processes: its name, its slice, and the control groups of both."""

from __future__ import annotations

import json
import os
import re
import signal

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_linux import calls as linux
from windlass_linux.cgroups import hierarchies, processes_in
from windlass_oci_runtime.clone import clone
from windlass_oci_runtime.seclusion import keep_only

SLICE, PREFIX = "system.slice", "windlass"
"""Of a container whose spec names none."""
MOST_NAME = 255
LETTERS = re.compile(r"[A-Za-z0-9:_.\\@-]+\Z")


class Scope:
    """A scope by its name, below a slice."""

    __slots__ = ("name", "slice")

    def __init__(self, path: str, id: str) -> None:
        """Take linux.cgroupsPath apart, which is SLICE:PREFIX:NAME or empty. Raises InvalidArgument."""
        parts = path.split(":") if path else [SLICE, PREFIX, id]
        if len(parts) != 3:
            raise InvalidArgument(
                'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
                f"got {path[:80]!r} instead"
            )
        self.slice = parts[0] or SLICE
        expanded(self.slice)
        if parts[2].endswith(".slice"):
            raise InvalidArgument(f"linux.cgroupsPath {path[:80]!r} names a slice for the container; name a scope")
        self.name = f"{parts[1]}-{parts[2]}.scope"
        if not parts[2] or len(self.name) > MOST_NAME or not LETTERS.match(self.name):
            raise InvalidArgument(
                f"linux.cgroupsPath {path[:80]!r} gives no name of a unit; "
                f"use letters, digits and : _ . - @ \\, at most {MOST_NAME}"
            )

    def places(self) -> list[str]:
        """Return the directories of the scope's control groups, one in each hierarchy; they need not be there."""
        # systemd is at the root of what is mounted, on a host and in a container of its own.
        inner = f"{expanded(self.slice)}/{self.name}".lstrip("/")
        return [f"{place}/{inner}" for place, _, _ in hierarchies()]

    def check_holds(self, pid: int) -> None:
        """Check that a process is in the scope. Raises FailedPrecondition."""
        # systemd has one hierarchy, which need not be ours to know: it makes groups in others as it needs them.
        if not any(pid in processes_in(place) for place in self.places()):
            raise FailedPrecondition(f"unit {self.name} was not given its process by systemd; see systemctl status")


def of_spec(spec: bytes, id: str) -> Scope | None:
    """Return the scope that a document names, None when it names no scope."""
    try:
        path = json.loads(spec)["linux"]["cgroupsPath"]
        return Scope(path, id) if path else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidArgument):
        return None


def expanded(slice: str) -> str:
    """Return the directory of a slice: `a-b.slice` is below `a.slice` (systemd.slice(5)). Raises InvalidArgument."""
    name = slice.removesuffix(".slice")
    if name == slice or "/" in slice or len(slice) > MOST_NAME or not LETTERS.match(slice):
        raise InvalidArgument(f"invalid slice name: {slice[:80]!r} in linux.cgroupsPath; it ends with .slice")
    if name == "-":
        return ""
    parts = name.split("-")
    if not all(parts):
        raise InvalidArgument(f"invalid slice name: {slice[:80]!r} in linux.cgroupsPath; one dash is between two names")
    return "/".join(f"{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts)))


def hold() -> int:
    """Make a process that does nothing, and return its pid: systemd makes no scope without one.

    It ends with this process, and has nothing of it open. Call `release` once another process is in the scope.
    """
    parent = os.getpid()
    pid = clone(0)
    if pid:
        return pid
    try:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        keep_only(set(), 0)
        linux.set_name("windlass-scope")
        while os.getppid() == parent:
            signal.pause()
    finally:
        os._exit(0)


def release(pid: int) -> None:
    """End the process of `hold`; one that has ended is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return
