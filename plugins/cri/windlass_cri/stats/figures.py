"""The values of metrics: of control groups of both versions, of specs, and of processes (docs/containerd 5.11)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from windlass_cri.stats.cgroups import Group, number, read, table
from windlass_cri.stats.interfaces import Interface
from windlass_linux.cgroups import processes_in
from windlass_oci.runtime_spec import Spec

SECOND = 1_000_000_000
TICKS = os.sysconf("SC_CLK_TCK")


class Value(NamedTuple):
    """A metric's value, and those of its labels beyond the ones of all."""

    name: str
    value: int
    labels: tuple[str, ...] = ()


def limits_of(spec: Spec) -> Iterator[Value]:
    """Yield what a spec allows."""
    resources = spec["linux"].get("resources") or {}
    cpu, memory = resources.get("cpu") or {}, resources.get("memory") or {}
    for each in spec["process"].get("rlimits") or ():
        yield Value("container_ulimits_soft", each["soft"], (each["type"],))
    for name, value in (
        ("cpu_period", cpu.get("period")),
        ("cpu_shares", cpu.get("shares")),
        ("memory_limit_bytes", memory.get("limit")),
        ("memory_reservation_limit_bytes", memory.get("reservation")),
        ("memory_swap_limit_bytes", memory.get("swap")),
    ):
        if value is not None:
            yield Value(f"container_spec_{name}", max(0, value))


def of_group(group: Group, devices: Mapping[str, str]) -> list[Value]:
    """Read all of a group; empty when it is gone. ``devices`` are names of block devices by "major:minor"."""
    found = [*_of_2(group.unified)] if group.unified else [*_of_1(group, devices)]
    return [*found, *_open_files(group.unified or group.pids or group.cpuacct)] if found else []


def _of_1(group: Group, devices: Mapping[str, str]) -> Iterator[Value]:
    if group.cpuacct:
        ticks = table(f"{group.cpuacct}/cpuacct.stat")
        yield Value("container_cpu_usage_seconds_total", number(f"{group.cpuacct}/cpuacct.usage") // SECOND)
        yield Value("container_cpu_user_seconds_total", ticks.get("user", 0) // TICKS)
        yield Value("container_cpu_system_seconds_total", ticks.get("system", 0) // TICKS)
    if group.cpu:
        stat = table(f"{group.cpu}/cpu.stat")
        yield from _throttling(stat, stat.get("throttled_time", 0) // SECOND)
    if group.memory:
        yield from _memory_1(group.memory)
    if group.blkio:
        yield from _block_io_1(group.blkio, devices)
    if group.pids:
        tasks = number(f"{group.pids}/pids.current")
        yield Value("container_processes", tasks)
        yield Value("container_threads_max", number(f"{group.pids}/pids.max"))
        yield Value("container_threads", tasks)


def _of_2(group: str) -> Iterator[Value]:
    stat = table(f"{group}/cpu.stat")
    for name, key in (("usage", "usage_usec"), ("user", "user_usec"), ("system", "system_usec")):
        yield Value(f"container_cpu_{name}_seconds_total", stat.get(key, 0) // 1_000_000)
    yield from _throttling(stat, stat.get("throttled_usec", 0) // 1_000_000)
    yield from _memory_2(group)
    yield from _block_io_2(group)
    processes = number(f"{group}/pids.current")
    yield Value("container_processes", processes)
    yield Value("container_threads_max", number(f"{group}/pids.max"))
    yield Value("container_threads", processes)


def _throttling(stat: Mapping[str, int], seconds: int) -> Iterator[Value]:
    yield Value("container_cpu_cfs_periods_total", stat.get("nr_periods", 0))
    yield Value("container_cpu_cfs_throttled_periods_total", stat.get("nr_throttled", 0))
    yield Value("container_cpu_cfs_throttled_seconds_total", seconds)


def _memory_1(group: str) -> Iterator[Value]:
    stat, usage = table(f"{group}/memory.stat"), number(f"{group}/memory.usage_in_bytes")
    yield from _memory(
        usage_bytes=usage,
        working_set_bytes=max(0, usage - stat.get("total_inactive_file", 0)),
        max_usage_bytes=number(f"{group}/memory.max_usage_in_bytes"),
        rss=stat.get("total_rss", 0),
        cache=stat.get("total_cache", 0),
        mapped_file=stat.get("total_mapped_file", 0),
        total_active_file_bytes=stat.get("total_active_file", 0),
        total_inactive_file_bytes=stat.get("total_inactive_file", 0),
        kernel_usage=number(f"{group}/memory.kmem.usage_in_bytes"),
        swap=number(f"{group}/memory.memsw.usage_in_bytes"),
        failcnt=number(f"{group}/memory.failcnt"),
    )
    yield from _faults(stat.get("pgfault", 0), stat.get("pgmajfault", 0))
    yield Value("container_oom_events_total", table(f"{group}/memory.oom_control").get("oom_kill", 0))


def _memory_2(group: str) -> Iterator[Value]:
    stat, usage = table(f"{group}/memory.stat"), number(f"{group}/memory.current")
    yield from _memory(
        usage_bytes=usage,
        working_set_bytes=max(0, usage - stat.get("inactive_file", 0)),
        max_usage_bytes=number(f"{group}/memory.peak"),
        rss=stat.get("anon", 0),
        cache=stat.get("file", 0),
        mapped_file=stat.get("file_mapped", 0),
        total_active_file_bytes=stat.get("active_file", 0),
        total_inactive_file_bytes=stat.get("inactive_file", 0),
        kernel_usage=stat.get("kernel_stack", 0),
        swap=number(f"{group}/memory.swap.current"),
        failcnt=0,
    )
    yield from _faults(stat.get("pgfault", 0), stat.get("pgmajfault", 0))
    yield Value("container_oom_events_total", table(f"{group}/memory.events").get("oom_kill", 0))


def _memory(**values: int) -> Iterator[Value]:
    for name, value in values.items():
        yield Value(f"container_memory_{name}", value)


def _faults(all: int, major: int) -> Iterator[Value]:
    yield Value("container_memory_failures_total", all, ("pgfault", "container"))
    yield Value("container_memory_failures_total", major, ("pgmajfault", "container"))


def _block_io_1(group: str, devices: Mapping[str, str]) -> Iterator[Value]:
    prefix = "io" if os.access(f"{group}/blkio.io_serviced_recursive", os.F_OK) else "throttle.io"
    suffix = "_recursive" if prefix == "io" else ""
    for device, operation, value in _lines_1(f"{group}/blkio.{prefix}_service_bytes{suffix}"):
        path, (major, _, minor) = devices.get(device, ""), device.partition(":")
        yield Value("container_blkio_device_usage_total", value, (path, major, minor, operation))
        if operation in ("Read", "Write"):
            yield Value(f"container_fs_{operation.lower()}s_bytes_total", value, (path,))
    for device, operation, value in _lines_1(f"{group}/blkio.{prefix}_serviced{suffix}"):
        if operation in ("Read", "Write"):
            yield Value(f"container_fs_{operation.lower()}s_total", value, (devices.get(device, ""),))


def _lines_1(path: str) -> Iterator[tuple[str, str, int]]:
    """Yield device, operation and value of lines such as "8:0 Read 4096"; the sum of all devices is none."""
    for line in read(path).decode().splitlines():
        parts = line.split()
        if len(parts) == 3:
            yield parts[0], parts[1], int(parts[2])


def _block_io_2(group: str) -> Iterator[Value]:
    for line in read(f"{group}/io.stat").decode().splitlines():
        device, *pairs = line.split()
        counts = {key: int(value) for key, _, value in (pair.partition("=") for pair in pairs) if value.isdigit()}
        for name, key in (
            ("reads_bytes", "rbytes"),
            ("writes_bytes", "wbytes"),
            ("reads", "rios"),
            ("writes", "wios"),
        ):
            yield Value(f"container_fs_{name}_total", counts.get(key, 0), (device,))


def _open_files(group: str) -> Iterator[Value]:
    descriptors = sockets = 0
    for pid in processes_in(group):
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                names = [entry.name for entry in entries]
        except OSError:  # it has ended
            continue
        descriptors += len(names)
        sockets += sum(_is_socket(f"/proc/{pid}/fd/{name}") for name in names)
    yield Value("container_file_descriptors", descriptors)
    yield Value("container_sockets", sockets)


def _is_socket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket")  # noqa: PTH115 - a path is made of thousands here
    except OSError:
        return False


def block_devices(partitions: str = "/proc/partitions") -> dict[str, str]:
    """Return the paths of block devices by "major:minor"."""
    rows = [line.split() for line in read(partitions).decode().splitlines()[2:]]
    return {f"{row[0]}:{row[1]}": f"/dev/{row[3]}" for row in reversed(rows) if len(row) == 4}


def of_interface(interfaces: Sequence[Interface], name: str) -> Iterator[Value]:
    """Yield what has gone through an interface, if it is there."""
    for each in interfaces:
        if each.name == name:
            received = (each.received, each.received_packets, each.receive_drops, each.receive_errors)
            sent = (each.sent, each.sent_packets, each.send_drops, each.send_errors)
            for way, counts in (("receive", received), ("transmit", sent)):
                for what, count in zip(("bytes", "packets", "packets_dropped", "errors"), counts, strict=True):
                    yield Value(f"container_network_{way}_{what}_total", count, (name,))
