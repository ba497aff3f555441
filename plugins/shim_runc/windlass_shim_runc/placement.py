"""Puts a shim into the cgroup of the option ShimCgroup, so that its own use is counted where an operator wants it."""

# ruff: noqa: PTH112
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import os

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_shim_runc import cgroups, disk

PROCS = "cgroup.procs"


def join(group: str, pid: int) -> None:
    """Move a process into an existing cgroup, in version 1 into that of every controller that has it."""
    if ".." in group.split("/"):
        raise InvalidArgument(f"option ShimCgroup {group[:200]!r} leads out of the cgroup file system")
    unified, controllers = cgroups.mount_points()
    tops = sorted(set(controllers.values())) or [unified]
    found = [path for top in tops if top and os.path.isdir(path := f"{top}/{group.strip('/')}")]
    if not found:
        raise FailedPrecondition(f"cgroup {group[:200]} of option ShimCgroup does not exist; make it first")
    for path in found:
        disk.write(f"{path}/{PROCS}", b"%d" % pid, 0)
