"""Limits of control groups of version 1: which file of which controller has what value."""

from __future__ import annotations

import os

from windlass.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from windlass_oci_runtime.json_types import Json

    Setting = tuple[str, str, str]
    """Controller, file, value."""

DEFAULT_DEVICES = (
    # What every container may use, whatever the rules say (runtime-spec, "Default Devices").
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
)
THROTTLES = {
    "throttleReadBpsDevice": "read_bps_device",
    "throttleWriteBpsDevice": "write_bps_device",
    "throttleReadIOPSDevice": "read_iops_device",
    "throttleWriteIOPSDevice": "write_iops_device",
}


def settings(resources: Json, read: Callable[[str, str], str]) -> Iterator[Setting]:
    """Yield what to write, in the order in which Linux takes it.

    ``read`` returns the present value of a controller's file, "" where there is none. Raises InvalidArgument.
    """
    if resources.get("unified"):
        raise InvalidArgument("linux.resources.unified needs control groups of version 2, and this host has version 1")
    yield from _devices(resources.get("devices") or [])
    yield from _memory(resources.get("memory") or {}, read)
    yield from _cpu(resources.get("cpu") or {}, read)
    yield from _others(resources)
    yield from _block_io(resources.get("blockIO") or {}, read)


def _devices(rules: Sequence[Json]) -> Iterator[Setting]:
    if not rules:
        return
    for rule in rules:
        kind = rule.get("type") or "a"
        numbers = [str(rule[name]) if rule.get(name, -1) >= 0 else "*" for name in ("major", "minor")]
        text = f"{kind} {':'.join(numbers)} {rule.get('access') or 'rwm'}"
        yield "devices", "devices.allow" if rule.get("allow") else "devices.deny", text
    for text in DEFAULT_DEVICES:
        yield "devices", "devices.allow", text


def _memory(memory: Json, read: Callable[[str, str], str]) -> Iterator[Setting]:
    yield from _memory_and_swap(memory.get("limit", 0), memory.get("swap", 0), read)
    for key, file in (("reservation", "memory.soft_limit_in_bytes"), ("kernelTCP", "memory.kmem.tcp.limit_in_bytes")):
        if memory.get(key):
            yield "memory", file, str(memory[key])
    if (swappiness := memory.get("swappiness", -1)) != -1:
        if not 0 <= swappiness <= 100:
            raise InvalidArgument(f"linux.resources.memory.swappiness is 0 to 100, not {swappiness}")
        yield "memory", "memory.swappiness", str(swappiness)
    if memory.get("disableOOMKiller"):
        yield "memory", "memory.oom_control", "1"


def _memory_and_swap(limit: int, swap: int, read: Callable[[str, str], str]) -> Iterator[Setting]:
    """The sum of memory and swap is never below memory, so what grows comes first."""
    if limit == -1 and not swap and read("memory", "memory.memsw.limit_in_bytes"):
        swap = -1
    both = [("memory", "memory.limit_in_bytes", str(limit))] if limit else []
    if swap:
        present = read("memory", "memory.limit_in_bytes")
        grows = swap == -1 or not limit or not present or swap > int(present)
        both.insert(0 if grows else len(both), ("memory", "memory.memsw.limit_in_bytes", str(swap)))
    yield from both


def _cpu(cpu: Json, read: Callable[[str, str], str]) -> Iterator[Setting]:
    if cpu.get("shares"):
        yield "cpu", "cpu.shares", str(cpu["shares"])
    if cpu.get("idle") is not None:
        yield "cpu", "cpu.idle", str(cpu["idle"])
    for period, quota in (("period", "quota"), ("realtimePeriod", "realtimeRuntime")):
        kind = "rt" if period.startswith("real") else "cfs"
        files = {period: f"cpu.{kind}_period_us", quota: f"cpu.{kind}_{'runtime' if kind == 'rt' else 'quota'}_us"}
        pair = [(name, files[name]) for name in (period, quota) if cpu.get(name)]
        # Linux refuses a share of time above the parent's at each moment: a shorter period comes second.
        if len(pair) == 2 and cpu[period] < int(read("cpu", files[period]) or 0):
            pair.reverse()
        for name, file in pair:
            yield "cpu", file, str(cpu[name])
    if cpu.get("burst") is not None:
        yield "cpu", "cpu.cfs_burst_us", str(cpu["burst"])
    for name in ("cpus", "mems"):
        if cpu.get(name):
            yield "cpuset", f"cpuset.{name}", cpu[name]


def _others(resources: Json) -> Iterator[Setting]:
    pids = resources.get("pids") or {}
    if pids.get("limit"):
        yield "pids", "pids.max", "max" if pids["limit"] < 0 else str(pids["limit"])
    for each in resources.get("hugepageLimits") or ():
        yield "hugetlb", f"hugetlb.{page_size(each)}.limit_in_bytes", str(each.get("limit", 0))
    network = resources.get("network") or {}
    if network.get("classID"):
        yield "net_cls", "net_cls.classid", str(network["classID"])
    for each in network.get("priorities") or ():
        yield "net_prio", "net_prio.ifpriomap", f"{each.get('name', '')} {each.get('priority', 0)}"
    for name, each in (resources.get("rdma") or {}).items():
        yield "rdma", "rdma.max", rdma(name, each)


def _block_io(limits: Json, read: Callable[[str, str], str]) -> Iterator[Setting]:
    weight = "blkio.bfq.weight" if read("blkio", "blkio.bfq.weight") else "blkio.weight"
    if limits.get("weight"):
        yield "blkio", weight, str(limits["weight"])
    if limits.get("leafWeight"):
        yield "blkio", "blkio.leaf_weight", str(limits["leafWeight"])
    for each in limits.get("weightDevice") or ():
        for key, file in (("weight", f"{weight}_device"), ("leafWeight", "blkio.leaf_weight_device")):
            if each.get(key):
                yield "blkio", file, f"{device(each)} {each[key]}"
    for key, file in THROTTLES.items():
        for each in limits.get(key) or ():
            yield "blkio", f"blkio.throttle.{file}", f"{device(each)} {each.get('rate', 0)}"


def device(each: Json) -> str:
    """Return a device as control groups name it."""
    return f"{each.get('major', 0)}:{each.get('minor', 0)}"


def page_size(each: Json) -> str:
    """Return the size of a huge page as files are named by it. Raises InvalidArgument."""
    size = str(each.get("pageSize", ""))
    if not size.isalnum():
        raise InvalidArgument(f"linux.resources.hugepageLimits: {size[:40]!r} is not a page size such as 2MB")
    return size


def rdma(name: str, each: Json) -> str:
    """Return the limits of an RDMA device as both versions take them."""
    words = [
        f"{word}={each[key]}"
        for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
        if key in each
    ]
    return f"{name} {' '.join(words)}"


def inherit_cpuset(place: str) -> None:
    """Give a new group of `cpuset` the processors and nodes of the one above: without them no process can join."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        path = f"{place}/{name}"
        if not _read(path).strip():
            above = os.path.dirname(place)
            if not _read(f"{above}/{name}").strip():
                inherit_cpuset(above)
            with open(path, "w", encoding="ascii") as file:
                file.write(_read(f"{above}/{name}"))


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
