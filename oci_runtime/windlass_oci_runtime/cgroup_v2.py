"""Limits of a control group of version 2: files and values, which the specification writes as version 1 has them."""

from __future__ import annotations

import math
import os

from windlass.errors import InvalidArgument
from windlass_oci_runtime.cgroup_v1 import device, page_size, rdma

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from windlass_oci_runtime.json_types import Json

THROTTLES = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}
NOT_THERE = (
    ("memory", "kernelTCP"),
    ("memory", "swappiness"),
    ("memory", "disableOOMKiller"),
    ("cpu", "realtimeRuntime"),
    ("cpu", "realtimePeriod"),
    ("network", "classID"),
    ("network", "priorities"),
    ("blockIO", "leafWeight"),
)
"""Limits that version 2 does not have; those that are 0 or empty ask for nothing."""


def settings(resources: Json, has_bfq: bool = False) -> Iterator[tuple[str, str]]:
    """Yield file and value. Raises InvalidArgument for what version 2 cannot limit."""
    for group, name in NOT_THERE:
        value = (resources.get(group) or {}).get(name)
        if value and not (name == "swappiness" and value == -1):
            raise InvalidArgument(
                f"linux.resources.{group}.{name} needs control groups of version 1; leave it out here"
            )
    yield from _memory(resources.get("memory") or {})
    yield from _cpu(resources.get("cpu") or {})
    pids = resources.get("pids") or {}
    if pids.get("limit"):
        yield "pids.max", _or_max(pids["limit"])
    yield from _io(resources.get("blockIO") or {}, has_bfq)
    for each in resources.get("hugepageLimits") or ():
        yield f"hugetlb.{page_size(each)}.max", str(each.get("limit", 0))
    for name, each in (resources.get("rdma") or {}).items():
        yield "rdma.max", rdma(name, each)
    for name, value in (resources.get("unified") or {}).items():
        if "/" in name or "." not in name:
            raise InvalidArgument(f"linux.resources.unified: {name[:80]!r} is not a file of a control group")
        for line in value.splitlines() or [""]:
            yield name, line


def _or_max(number: int) -> str:
    return "max" if number < 0 else str(number)


def _memory(memory: Json) -> Iterator[tuple[str, str]]:
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if limit == -1 and not swap:
        swap = -1
    if swap:
        if swap > 0 and limit <= 0:
            raise InvalidArgument("linux.resources.memory.swap is memory and swap together, so it needs memory.limit")
        if 0 < swap < limit:
            raise InvalidArgument(
                f"linux.resources.memory.swap {swap} is memory and swap together, and below memory.limit"
            )
        yield "memory.swap.max", "max" if swap < 0 else str(swap - limit)
    if limit:
        yield "memory.max", _or_max(limit)
    if memory.get("reservation"):
        yield "memory.low", _or_max(memory["reservation"])


def _cpu(cpu: Json) -> Iterator[tuple[str, str]]:
    if cpu.get("idle") is not None:
        yield "cpu.idle", str(cpu["idle"])
    if cpu.get("shares") and not cpu.get("idle"):
        yield "cpu.weight", str(weight(cpu["shares"]))
    if cpu.get("quota") or cpu.get("period"):
        quota = cpu.get("quota", 0)
        yield "cpu.max", f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100_000}"
    if cpu.get("burst") is not None:
        yield "cpu.max.burst", str(cpu["burst"])
    for name in ("cpus", "mems"):
        if cpu.get(name):
            yield f"cpuset.{name}", cpu[name]


def weight(shares: int) -> int:
    """Return the weight, 1 to 10,000, of shares, 2 to 262,144: 1024, the default there, is 100, the default here.

    runc and crun have this curve since 2025; the straight line before gave containers with few shares almost nothing.
    """
    if shares <= 2:
        return 1
    if shares >= 262_144:
        return 10_000
    length = math.log2(shares)
    return math.ceil(10 ** ((length**2 + 125 * length) / 612 - 7 / 34))


def _io(limits: Json, has_bfq: bool) -> Iterator[tuple[str, str]]:
    if limits.get("weight"):
        value = limits["weight"]
        yield ("io.bfq.weight", str(value)) if has_bfq else ("io.weight", str(1 + (value - 10) * 9999 // 990))
    for each in limits.get("weightDevice") or ():
        if each.get("weight"):
            yield "io.bfq.weight", f"{device(each)} {each['weight']}"
    for key, word in THROTTLES.items():
        for each in limits.get(key) or ():
            yield "io.max", f"{device(each)} {word}={each.get('rate', 0) or 'max'}"


def enable(root: str, place: str) -> None:
    """Pass all controllers on from the root of the hierarchy to the parent of a group; those that cannot stay out."""
    inner = place.removeprefix(root).strip("/").split("/")[:-1]
    paths = [root, *(f"{root}/{'/'.join(inner[: number + 1])}" for number in range(len(inner)))]
    for path in paths:
        with open(f"{path}/cgroup.controllers", encoding="ascii") as file:
            available = file.read().split()
        with open(f"{path}/cgroup.subtree_control", encoding="ascii") as file:
            missing = set(available) - set(file.read().split())
        for name in sorted(missing):
            _pass_on(path, name)


def _pass_on(path: str, controller: str) -> None:
    try:
        with open(f"{path}/cgroup.subtree_control", "w", encoding="ascii") as file:
            file.write(f"+{controller}")
    except OSError:
        pass  # a limit that needs it says so


def missing(place: str, file: str) -> str:
    """Return the controller that a file of a group would need, "" if it is there."""
    return "" if os.path.exists(f"{place}/{file}") else file.partition(".")[0]


def is_without_swap(place: str, file: str, value: str) -> bool:
    """Return whether a limit asks for what is so already: no swap, or all, where Linux does not count it."""
    return file == "memory.swap.max" and value in ("0", "max") and os.path.exists(f"{place}/memory.max")
