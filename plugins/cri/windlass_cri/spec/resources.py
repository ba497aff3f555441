"""Limits of a container, from CRI's message to a spec and back (docs/containerd 5.7; cri-facts, 30)."""

from __future__ import annotations

import os

from windlass.errors import Unknown
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_linux.cgroups import hierarchies
from windlass_oci.runtime_spec import CPU, Memory, Resources, Spec


@dataclass(frozen=True)
class Host:
    """What this machine's control groups can limit."""

    swap: bool
    huge_pages: bool

    @classmethod
    def read(cls) -> Host:
        """Look at the control groups."""
        found = hierarchies()
        swap = ("memory.memsw.limit_in_bytes", "memory.swap.max")
        huge = [os.path.basename(place) == "hugetlb" or _has(own, "hugetlb") for place, _, own in found]  # noqa: PTH119
        return cls(any(os.path.exists(f"{own}/{name}") for _, _, own in found for name in swap), any(huge))  # noqa: PTH110


def _has(group: str, controller: str) -> bool:
    try:
        with open(f"{group}/cgroup.controllers", encoding="ascii") as file:  # noqa: PTH123 - the file of a group
            return controller in file.read().split()
    except OSError:
        return False


def set_resources(spec: Spec, wanted: cri.LinuxContainerResources, host: Host, *, huge_pages: bool) -> None:
    """Set what is not zero over what the spec has; limits for huge pages only if ``huge_pages``.

    Raises Unknown for huge pages that this machine cannot limit.
    """
    if huge_pages and wanted.hugepage_limits and not host.huge_pages:
        raise Unknown("huge pages limits are specified but hugetlb cgroup controller is missing")
    old, new = spec["linux"]["resources"], resources(wanted, host)
    merged: Resources = {**old, **new}
    if "cpu" in old and "cpu" in new:
        merged["cpu"] = {**old["cpu"], **new["cpu"]}
    if "memory" in old and "memory" in new:
        merged["memory"] = {**old["memory"], **new["memory"]}
    if "unified" in old and "unified" in new:
        merged["unified"] = {**old["unified"], **new["unified"]}
    if huge_pages and wanted.hugepage_limits:
        merged["hugepageLimits"] = [
            {"pageSize": each.page_size, "limit": each.limit} for each in wanted.hugepage_limits
        ]
    spec["linux"]["resources"] = merged


def resources(wanted: cri.LinuxContainerResources, host: Host) -> Resources:
    """Return the limits that are not zero; swap has the memory's limit unless it has its own."""
    cpu: CPU = {}
    if wanted.cpu_shares:
        cpu["shares"] = wanted.cpu_shares
    if wanted.cpu_quota:
        cpu["quota"] = wanted.cpu_quota
    if wanted.cpu_period:
        cpu["period"] = wanted.cpu_period
    if wanted.cpuset_cpus:
        cpu["cpus"] = wanted.cpuset_cpus
    if wanted.cpuset_mems:
        cpu["mems"] = wanted.cpuset_mems
    memory: Memory = {}
    if wanted.memory_limit_in_bytes:
        memory["limit"] = wanted.memory_limit_in_bytes
    swap = wanted.memory_swap_limit_in_bytes or wanted.memory_limit_in_bytes
    if swap and host.swap:
        memory["swap"] = swap
    found: Resources = {}
    if cpu:
        found["cpu"] = cpu
    if memory:
        found["memory"] = memory
    if wanted.unified:
        found["unified"] = dict(wanted.unified)
    return found


def resources_of(spec: Spec) -> cri.LinuxContainerResources:
    """Return the limits that a spec has, as a container's status shows them."""
    found = spec["linux"].get("resources") or {}
    cpu, memory = found.get("cpu") or {}, found.get("memory") or {}
    shown = cri.LinuxContainerResources(
        cpu_period=cpu.get("period", 0),
        cpu_quota=cpu.get("quota", 0),
        cpu_shares=cpu.get("shares", 0),
        cpuset_cpus=cpu.get("cpus", ""),
        cpuset_mems=cpu.get("mems", ""),
        memory_limit_in_bytes=memory.get("limit", 0),
        memory_swap_limit_in_bytes=memory.get("swap", 0),
        oom_score_adj=spec["process"].get("oomScoreAdj", 0),
        unified=found.get("unified") or {},
    )
    for each in found.get("hugepageLimits") or []:
        shown.hugepage_limits.add(page_size=each["pageSize"], limit=each["limit"])
    return shown


def cgroups_path(parent: str, id: str, default: str) -> str:
    """Return where a container's control group is: below the pod's, which may be a slice of systemd."""
    name = os.path.basename(parent.rstrip("/"))  # noqa: PTH119 - a text, with no file behind it
    if name.endswith(".slice"):
        return f"{name}:cri-containerd:{id}"
    return os.path.normpath(f"{parent}/{id}") if parent else default
