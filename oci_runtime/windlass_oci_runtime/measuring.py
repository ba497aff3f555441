"""What a container uses, as the document of runc's `events`."""

from __future__ import annotations

import os

from windlass_oci_runtime import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MICROSECONDS = 1000
TICKS = 100


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
        "blkio": {
            "ioServiceBytesRecursive": _devices(_place(places, "blkio.throttle.io_service_bytes_recursive")),
            "ioServicedRecursive": _devices(_place(places, "blkio.throttle.io_serviced_recursive")),
        },
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
