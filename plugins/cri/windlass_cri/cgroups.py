"""What control groups say of containers and pods: usage, and kills for want of memory. Both versions (cgroups(7))."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass_linux.cgroups import groups_of, hierarchies
from windlass_oci.runtime_spec import Spec

UNLIMITED = 1 << 62
"""A limit above it is none: Linux rounds what "no limit" is in version 1."""
Pressure = dict[str, dict[str, float]]
"""Of ``some`` and ``full``: avg10, avg60, avg300, and total in microseconds."""


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
    return groups_of(json.dumps({"linux": {"cgroupsPath": path}}).encode(), id)


def of_pod(parent: str) -> list[str]:
    """Return the directories of a pod's own group, which the kubelet makes; none for a pod without one."""
    if not parent:
        return []
    name = parent.rstrip("/").rpartition("/")[2]
    inner = slice_path(name) if name.endswith(".slice") else parent.strip("/")
    return [f"{place}/{inner}" for place, _, _ in hierarchies()]


def slice_path(name: str) -> str:
    """Return where systemd has a slice: a.slice/a-b.slice for a-b.slice."""
    words = name.removesuffix(".slice").split("-")
    return "/".join(f"{'-'.join(words[:count])}.slice" for count in range(1, len(words) + 1))


def measure(directories: Sequence[str]) -> Usage | None:
    """Measure a group by its directories; None when it is not there. Blocks shortly."""
    there = [Path(each) for each in directories if Path(each).is_dir()]
    if not there:
        return None
    unified = next((each for each in there if (each / "cgroup.controllers").exists()), None)
    if unified is not None and len(there) == 1:
        return _measure_2(unified)
    return _measure_1(there)


def _measure_1(there: Sequence[Path]) -> Usage:
    at = time.time_ns()
    cpu = next((number(each / "cpuacct.usage") for each in there if (each / "cpuacct.usage").exists()), None)
    memory = next((_memory_1(each) for each in there if (each / "memory.usage_in_bytes").exists()), None)
    return Usage(at, cpu, memory, next((n for each in there if (n := number(each / "pids.current"))), 0))


def _memory_1(group: Path) -> Memory:
    stat = table(group / "memory.stat")
    return Memory(
        usage=number(group / "memory.usage_in_bytes"),
        inactive_file=stat.get("total_inactive_file", 0),
        rss=stat.get("total_rss", 0),
        limit=number(group / "memory.limit_in_bytes", UNLIMITED + 1),
        faults=stat.get("total_pgfault", 0),
        major_faults=stat.get("total_pgmajfault", 0),
    )


def _measure_2(group: Path) -> Usage:
    at = time.time_ns()
    microseconds = table(group / "cpu.stat").get("usage_usec")
    return Usage(
        at,
        microseconds * 1000 if microseconds is not None else None,
        _memory_2(group) if (group / "memory.current").exists() else None,
        number(group / "pids.current"),
        pressure(group / "cpu.pressure"),
        pressure(group / "io.pressure"),
    )


def _memory_2(group: Path) -> Memory:
    stat = table(group / "memory.stat")
    return Memory(
        usage=number(group / "memory.current"),
        inactive_file=stat.get("inactive_file", 0),
        rss=stat.get("anon", 0),
        limit=number(group / "memory.max", UNLIMITED + 1),
        faults=stat.get("pgfault", 0),
        major_faults=stat.get("pgmajfault", 0),
        pressure=pressure(group / "memory.pressure"),
    )


def oom_kills(directories: Sequence[str]) -> int:
    """Return how many processes of a group Linux has killed because its memory was short; 0 when it is not there."""
    files = [Path(each) / name for each in directories for name in ("memory.oom_control", "memory.events")]
    return max((table(each).get("oom_kill", 0) for each in files), default=0)


def number(path: Path, unlimited: int = 0) -> int:
    """Return a file's number; ``unlimited`` for "max", 0 where there is no such file."""
    text = _read(path).strip()
    return int(text) if text.isdigit() else unlimited if text == "max" else 0


def table(path: Path) -> dict[str, int]:
    """Return a file of lines "key number"; empty where there is none."""
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def pressure(path: Path) -> Pressure | None:
    """Return what a pressure file says, None where there is none."""
    found: Pressure = {}
    for line in _read(path).splitlines():
        kind, *pairs = line.split()
        found[kind] = {key: float(value) for key, _, value in (pair.partition("=") for pair in pairs)}
    return found or None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
