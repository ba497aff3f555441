"""A sample of what a task uses, from the metrics of either version of control groups."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from windlass_api.containerd.types.metrics_pb2 import Metric
from windlass_api.io.containerd.cgroups.v1 import metrics_pb2 as v1
from windlass_api.io.containerd.cgroups.v2 import metrics_pb2 as v2

NO_LIMIT = 1 << 60
"""Version 1 writes a number near 2⁶³ where there is no limit, version 2 one near 2⁶⁴."""


@dataclass(frozen=True)
class Reading:
    """One sample; counters since the start of the container, bytes and nanoseconds."""

    at: float = 0
    """Seconds since 1970."""
    cpu: int = 0
    memory: int = 0
    """In use, without the files' pages that can go at any time."""
    limit: int = 0
    received: int = 0
    sent: int = 0
    read: int = 0
    written: int = 0
    pids: int = 0


def decode(metric: Metric, pid: int = 0) -> Reading | None:
    """Return a sample, None for one of a kind that we do not know.

    Where the metrics have no interfaces, those of the network namespace of ``pid`` are counted.
    """
    at = metric.timestamp.seconds + metric.timestamp.nanos / 1e9
    kind = metric.data.type_url.rpartition("/")[2]
    try:
        if kind == v2.Metrics.DESCRIPTOR.full_name:
            return _second(metric.data, at, pid)
        if kind == v1.Metrics.DESCRIPTOR.full_name:
            return _first(metric.data, at, pid)
    except DecodeError:
        pass
    return None


def _second(data: AnyMessage, at: float, pid: int) -> Reading:
    found = v2.Metrics.FromString(data.value)
    memory = found.memory
    received, sent = _network([(each.name, each.rx_bytes, each.tx_bytes) for each in found.network], pid)
    return Reading(
        at,
        found.cpu.usage_usec * 1000,
        max(memory.usage - memory.inactive_file, 0),
        _limit(memory.usage_limit),
        received,
        sent,
        sum(each.rbytes for each in found.io.usage),
        sum(each.wbytes for each in found.io.usage),
        found.pids.current,
    )


def _first(data: AnyMessage, at: float, pid: int) -> Reading:
    found = v1.Metrics.FromString(data.value)
    memory = found.memory
    received, sent = _network([(each.name, each.rx_bytes, each.tx_bytes) for each in found.network], pid)
    transfers = found.blkio.io_service_bytes_recursive
    return Reading(
        at,
        found.cpu.usage.total,
        max(memory.usage.usage - memory.total_inactive_file, 0),
        _limit(memory.usage.limit),
        received,
        sent,
        sum(each.value for each in transfers if each.op.lower() == "read"),
        sum(each.value for each in transfers if each.op.lower() == "write"),
        found.pids.current,
    )


def _limit(limit: int) -> int:
    """Return a limit; without one, what the machine has."""
    if 0 < limit < NO_LIMIT:
        return limit
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _network(interfaces: Iterable[tuple[str, int, int]], pid: int) -> tuple[int, int]:
    """Return the bytes received and sent; the loopback does not count, nor does the host's own network."""
    found = list(interfaces) or _interfaces(pid)
    received = sum(each[1] for each in found if each[0] != "lo")
    return received, sum(each[2] for each in found if each[0] != "lo")


def _interfaces(pid: int) -> list[tuple[str, int, int]]:
    try:
        if not pid or os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:  # noqa: PTH116
            return []
        with open(f"/proc/{pid}/net/dev", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            lines = file.read().splitlines()[2:]
    except OSError:
        return []  # it has ended, or it is not for this user to see
    found = []
    for line in lines:
        name, _, counters = line.partition(":")
        words = counters.split()
        found.append((name.strip(), int(words[0]), int(words[8])))
    return found
