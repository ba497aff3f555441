"""Which field of a specification a file of a control group is, for errors alone."""

from __future__ import annotations

FIELDS = {
    "memory.limit_in_bytes": "memory.limit",
    "memory.max": "memory.limit",
    "memory.memsw.limit_in_bytes": "memory.swap",
    "memory.swap.max": "memory.swap",
    "memory.soft_limit_in_bytes": "memory.reservation",
    "memory.low": "memory.reservation",
    "memory.kmem.tcp.limit_in_bytes": "memory.kernelTCP",
    "memory.swappiness": "memory.swappiness",
    "memory.oom_control": "memory.disableOOMKiller",
    "cpu.shares": "cpu.shares",
    "cpu.weight": "cpu.shares",
    "cpu.idle": "cpu.idle",
    "cpu.cfs_period_us": "cpu.period",
    "cpu.cfs_quota_us": "cpu.quota",
    "cpu.max": "cpu.quota",
    "cpu.cfs_burst_us": "cpu.burst",
    "cpu.max.burst": "cpu.burst",
    "cpu.rt_period_us": "cpu.realtimePeriod",
    "cpu.rt_runtime_us": "cpu.realtimeRuntime",
    "cpuset.cpus": "cpu.cpus",
    "cpuset.mems": "cpu.mems",
    "pids.max": "pids.limit",
    "net_cls.classid": "network.classID",
    "net_prio.ifpriomap": "network.priorities",
    "rdma.max": "rdma",
}
FAMILIES = {"hugetlb": "hugepageLimits", "blkio": "blockIO", "io": "blockIO", "devices": "devices"}


def field(file: str) -> str:
    """Return the name of the field; what no other field is for was named in `unified`."""
    name = FIELDS.get(file) or FAMILIES.get(file.partition(".")[0]) or f"unified[{file[:80]!r}]"
    return f"linux.resources.{name}"
