"""What control groups say of containers and pods: usage, and kills for want of memory. Both versions (cgroups(7))."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from windlass.records import dataclass
from windlass_linux.cgroups import groups_at, hierarchies
from windlass_oci.runtime_spec import Spec

UNLIMITED = 1 << 62
"""A limit above it is none: Linux rounds what "no limit" is in version 1."""
FILES_1 = {
    "cpu": "cpu.shares",
    "cpuacct": "cpuacct.usage",
    "memory": "memory.usage_in_bytes",
    "pids": "pids.current",
    "blkio": "blkio.throttle.io_serviced",
}
"""A file that each controller of version 1 has, and no other."""
BLOCK = 16384
Pressure = dict[str, dict[str, float]]
"""Of ``some`` and ``full``: avg10, avg60, avg300, and total in microseconds."""


@dataclass(frozen=True, slots=True)
class Group:
    """Where a group is: its directory in the hierarchy of each controller of version 1, or the one of version 2."""

    cpu: str = ""
    cpuacct: str = ""
    memory: str = ""
    pids: str = ""
    blkio: str = ""
    unified: str = ""


@dataclass(frozen=True)
class Usage:
    """What a group uses now; None for what its controllers do not say."""

    at: int
    """Nanoseconds since the epoch."""
    cpu: int | None = None
    """Nanoseconds of one processor."""
    memory: Memory | None = None
    pids: int = 0
    cpu_pressure: Pressure | None = None
    io_pressure: Pressure | None = None


@dataclass(frozen=True)
class Memory:
    """Memory of a group, in bytes, and its page faults."""

    usage: int
    inactive_file: int
    rss: int
    limit: int
    faults: int
    major_faults: int
    pressure: Pressure | None = None

    @property
    def working_set(self) -> int:
        """What cannot be had back without effort."""
        return max(0, self.usage - self.inactive_file)

    @property
    def available(self) -> int:
        """What is left below the limit, 0 without one."""
        return self.limit - self.working_set if self.limit <= UNLIMITED else 0


def groups(id: str, spec: Spec) -> list[str]:
    """Return the directories of a container's group, one in each hierarchy; they need not be there."""
    path = spec["linux"].get("cgroupsPath", "")
    parts = path.split(":")
    if len(parts) == 3 and parts[0].endswith(".slice"):
        return of_pod(f"{slice_path(parts[0])}/{parts[1]}-{parts[2]}.scope")
    return groups_at(path, id)


def of_pod(parent: str) -> list[str]:
    """Return the directories of a pod's own group, which the kubelet makes; none for a pod without one."""
    if not parent:
        return []
    name = parent.rstrip("/").rpartition("/")[2]
    inner = slice_path(name) if name.endswith(".slice") else os.path.normpath(f"/{parent}").strip("/")
    return [f"{place}/{inner}" for place, _, _ in hierarchies()]


def slice_path(name: str) -> str:
    """Return where systemd has a slice: a.slice/a-b.slice for a-b.slice."""
    words = name.removesuffix(".slice").split("-")
    return "/".join(f"{'-'.join(words[:count])}.slice" for count in range(1, len(words) + 1))


def locate(directories: Sequence[str]) -> Group | None:
    """Find out which controllers have a group; None when it is not there. Blocks shortly."""
    found: dict[str, str] = {}
    for each in directories:
        if os.access(f"{each}/cgroup.controllers", os.F_OK):
            found.setdefault("unified", each)
            continue  # version 2 has a pids.current too
        for name, file in FILES_1.items():
            if os.access(f"{each}/{file}", os.F_OK):
                found.setdefault(name, each)
    unified = found.pop("unified", "")
    return Group(**found) if found else Group(unified=unified) if unified else None


def measure(directories: Sequence[str]) -> Usage | None:
    """Measure a group by its directories; None when it is not there. Blocks shortly."""
    group = locate(directories)
    return measure_group(group) if group else None


def measure_group(group: Group) -> Usage | None:
    """Measure a group; None when it is there no longer. Blocks shortly."""
    return _measure_2(group.unified) if group.unified else _measure_1(group)


def processor_time(group: Group) -> int | None:
    """Return how many nanoseconds a group had of one processor; None when it is there no longer."""
    if not group.unified:
        text = read(f"{group.cpuacct}/cpuacct.usage") if group.cpuacct else b""
        return int(text) if text else None
    microseconds = table(f"{group.unified}/cpu.stat").get("usage_usec")
    return None if microseconds is None else microseconds * 1000


def _measure_1(group: Group) -> Usage | None:
    at = time.time_ns()
    cpu = processor_time(group)
    memory = _memory_1(group.memory) if group.memory else None
    if cpu is None and memory is None:
        return None
    return Usage(at, cpu, memory, number(f"{group.pids}/pids.current") if group.pids else 0)


def _memory_1(group: str) -> Memory | None:
    usage = read(f"{group}/memory.usage_in_bytes")
    if not usage:
        return None
    stat = table(f"{group}/memory.stat")
    return Memory(
        usage=int(usage),
        inactive_file=stat.get("total_inactive_file", 0),
        rss=stat.get("total_rss", 0),
        limit=number(f"{group}/memory.limit_in_bytes", UNLIMITED + 1),
        faults=stat.get("total_pgfault", 0),
        major_faults=stat.get("total_pgmajfault", 0),
    )


def _measure_2(group: str) -> Usage | None:
    at = time.time_ns()
    microseconds = table(f"{group}/cpu.stat").get("usage_usec")
    memory = _memory_2(group)
    if microseconds is None and memory is None:
        return None
    return Usage(
        at,
        microseconds * 1000 if microseconds is not None else None,
        memory,
        number(f"{group}/pids.current"),
        pressure(f"{group}/cpu.pressure"),
        pressure(f"{group}/io.pressure"),
    )


def _memory_2(group: str) -> Memory | None:
    usage = read(f"{group}/memory.current")
    if not usage:
        return None
    stat = table(f"{group}/memory.stat")
    return Memory(
        usage=int(usage),
        inactive_file=stat.get("inactive_file", 0),
        rss=stat.get("anon", 0),
        limit=number(f"{group}/memory.max", UNLIMITED + 1),
        faults=stat.get("pgfault", 0),
        major_faults=stat.get("pgmajfault", 0),
        pressure=pressure(f"{group}/memory.pressure"),
    )


def oom_kills(directories: Sequence[str]) -> int:
    """Return how many processes of a group Linux has killed because its memory was short; 0 when it is not there."""
    files = [f"{each}/{name}" for each in directories for name in ("memory.oom_control", "memory.events")]
    return max((table(each).get("oom_kill", 0) for each in files), default=0)


def number(path: str, unlimited: int = 0) -> int:
    """Return a file's number; ``unlimited`` for "max", 0 where there is no such file."""
    text = read(path).strip()
    return int(text) if text.isdigit() else unlimited if text == b"max" else 0


def table(path: str) -> dict[str, int]:
    """Return a file of lines "key number"; empty where there is none."""
    words = read(path).decode().split()
    try:
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))
    except ValueError:
        return {}  # it is some other file


def pressure(path: str) -> Pressure | None:
    """Return what a pressure file says, None where there is none."""
    found: Pressure = {}
    for line in read(path).decode().splitlines():
        kind, *pairs = line.split()
        found[kind] = {key: float(value) for key, _, value in (pair.partition("=") for pair in pairs)}
    return found or None


def read(path: str) -> bytes:
    """Return a file; empty where there is none. A hundred containers have a thousand: this is a quarter of pathlib."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = part = os.read(descriptor, BLOCK)
        while len(part) == BLOCK:
            part = os.read(descriptor, BLOCK)
            data += part
        return data
    except OSError:  # ENODEV: the group was removed meanwhile
        return b""
    finally:
        os.close(descriptor)
