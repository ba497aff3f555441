"""What a container uses, as the document of runc's `events`."""

from __future__ import annotations

import os

from windlass_oci_runtime import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MICROSECONDS = 1000
TICKS = 100
CPUSET = (
    "cpu_exclusive",
    "mem_exclusive",
    "mem_hardwall",
    "memory_migrate",
    "memory_pressure",
    "memory_spread_page",
    "memory_spread_slab",
    "sched_load_balance",
    "sched_relax_domain_level",
)


def measure(places: Sequence[str]) -> dict[str, object]:
    """Return the usage of a container's control groups; files that are not there count as nothing."""
    return _unified(places[0]) if cgroups.is_unified(places) else _separate(places)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _number(path: str) -> int:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else 0


def _pairs(path: str) -> Mapping[str, int]:
    found = {}
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isdecimal():
            found[key] = int(value)
    return found


def _place(places: Sequence[str], file: str) -> str:
    return next((f"{place}/{file}" for place in places if os.path.exists(f"{place}/{file}")), "")


def _separate(places: Sequence[str]) -> dict[str, object]:
    cpu, throttling = _pairs(_place(places, "cpuacct.stat")), _pairs(_place(places, "cpu.stat"))
    per_cpu = _read(_place(places, "cpuacct.usage_percpu")).split()
    stat = _pairs(_place(places, "memory.stat"))
    return {
        "cpu": {
            "usage": {
                "total": _number(_place(places, "cpuacct.usage")),
                "percpu": [int(each) for each in per_cpu],
                **_split(_read(_place(places, "cpuacct.usage_all"))),
                "kernel": cpu.get("system", 0) * 10**9 // TICKS,
                "user": cpu.get("user", 0) * 10**9 // TICKS,
            },
            "throttling": {
                "periods": throttling.get("nr_periods", 0),
                "throttledPeriods": throttling.get("nr_throttled", 0),
                "throttledTime": throttling.get("throttled_time", 0),
            },
        },
        "memory": {
            "cache": stat.get("cache", 0),
            "usage": _memory(places, "memory"),
            "swap": _memory(places, "memory.memsw"),
            "kernel": _memory(places, "memory.kmem"),
            "kernelTCP": _memory(places, "memory.kmem.tcp"),
            "raw": stat,
        },
        "pids": _pids(places),
        "cpuset": _cpuset(os.path.dirname(_place(places, "cpuset.cpus"))),
        "hugetlb": _huge_pages(os.path.dirname(_place(places, "hugetlb.2MB.usage_in_bytes"))),
        "blkio": {
            "ioServiceBytesRecursive": _devices(_place(places, "blkio.throttle.io_service_bytes_recursive")),
            "ioServicedRecursive": _devices(_place(places, "blkio.throttle.io_serviced_recursive")),
        },
    }


def _split(table: str) -> dict[str, object]:
    """Return what each processor has spent in the kernel and outside, from lines of `processor user system`."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return {"percpu_kernel": [int(row[2]) for row in rows], "percpu_user": [int(row[1]) for row in rows]}


def _cpuset(place: str) -> dict[str, object]:
    if not place:
        return {}
    numbers: dict[str, object] = {}
    for name in CPUSET:
        text = _read(f"{place}/cpuset.{name}").strip()
        numbers[name] = int(text) if text else 0
    return {**{name: _listed(_read(f"{place}/cpuset.{name}")) for name in ("cpus", "mems")}, **numbers}


def _listed(text: str) -> list[int]:
    """Return the numbers of a list such as `0-2,5`."""
    found: list[int] = []
    for part in text.strip().split(",") if text.strip() else ():
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def _huge_pages(place: str) -> dict[str, dict[str, int]]:
    names = os.listdir(place) if place else []
    sizes = [name.split(".")[1] for name in names if name.endswith("B.usage_in_bytes") and name.startswith("hugetlb.")]
    files = {"usage": "usage_in_bytes", "max": "max_usage_in_bytes", "failcnt": "failcnt"}
    return {
        size: {key: _number(f"{place}/hugetlb.{size}.{file}") for key, file in files.items()} for size in sorted(sizes)
    }


def _memory(places: Sequence[str], name: str) -> dict[str, int]:
    return {
        "limit": _number(_place(places, f"{name}.limit_in_bytes")),
        "usage": _number(_place(places, f"{name}.usage_in_bytes")),
        "max": _number(_place(places, f"{name}.max_usage_in_bytes")),
        "failcnt": _number(_place(places, f"{name}.failcnt")),
    }


def _pids(places: Sequence[str]) -> dict[str, int]:
    return {"current": _number(_place(places, "pids.current")), "limit": _number(_place(places, "pids.max"))}


def _devices(path: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for line in _read(path).splitlines():
        words = line.split()
        if len(words) == 3 and ":" in words[0]:
            major, _, minor = words[0].partition(":")
            found.append({"major": int(major), "minor": int(minor), "op": words[1], "value": int(words[2])})
    return found


def _unified(place: str) -> dict[str, object]:
    cpu, stat = _pairs(f"{place}/cpu.stat"), _pairs(f"{place}/memory.stat")
    events = _pairs(f"{place}/memory.events")
    return {
        "cpu": {
            "usage": {
                "total": cpu.get("usage_usec", 0) * MICROSECONDS,
                "kernel": cpu.get("system_usec", 0) * MICROSECONDS,
                "user": cpu.get("user_usec", 0) * MICROSECONDS,
            },
            "throttling": {
                "periods": cpu.get("nr_periods", 0),
                "throttledPeriods": cpu.get("nr_throttled", 0),
                "throttledTime": cpu.get("throttled_usec", 0) * MICROSECONDS,
            },
        },
        "memory": {
            "cache": stat.get("file", 0),
            "usage": {
                "limit": _number(f"{place}/memory.max"),
                "usage": _number(f"{place}/memory.current"),
                "max": _number(f"{place}/memory.peak"),
                "failcnt": events.get("max", 0),
            },
            "swap": {"limit": _number(f"{place}/memory.swap.max"), "usage": _number(f"{place}/memory.swap.current")},
            "raw": stat,
        },
        "pids": _pids([place]),
    }
