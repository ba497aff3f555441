"""A container's control groups of version 1: one directory in each hierarchy, and the files that limit it."""

from __future__ import annotations

import json
import os

from windlass.errors import InvalidArgument
from windlass_linux.cgroups import groups_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    Json = Mapping[str, Any]

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


def places(linux: Json, id: str) -> list[str]:
    """Return the directories of a container's groups, which need not be there."""
    return groups_of(json.dumps({"linux": {"cgroupsPath": linux.get("cgroupsPath", "")}}).encode(), id)


def make(places: Sequence[str]) -> list[str]:
    """Make the directories, and return those that are new."""
    made = []
    for place in places:
        try:
            os.makedirs(place, 0o755)
            made.append(place)
        except FileExistsError:
            pass
        if "/cpuset/" in place or place.endswith("/cpuset"):
            _inherit_cpuset(place)
    return made


def _inherit_cpuset(place: str) -> None:
    """Give a new group of `cpuset` the processors and nodes of the one above: without them no process can join."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        path = f"{place}/{name}"
        if not _read(path).strip():
            above = os.path.dirname(place)
            if not _read(f"{above}/{name}").strip():
                _inherit_cpuset(above)
            _write(path, _read(f"{above}/{name}"))


def join(places: Sequence[str]) -> None:
    """Move this process into the groups."""
    for place in places:
        _write(f"{place}/cgroup.procs", "0")


def limit(places: Sequence[str], resources: Json) -> None:
    """Set limits. Raises OSError with the file, InvalidArgument for what no controller here can do."""
    found = {name: place for place in places for name in _controllers(place)}
    for controller, file, value in settings(resources):
        if controller not in found:
            raise InvalidArgument(f"limit {file} needs the control group controller {controller}, which is not mounted")
        _write(f"{found[controller]}/{file}", value)


def _controllers(place: str) -> list[str]:
    # /sys/fs/cgroup/cpu,cpuacct/…: the hierarchy's directory is named after its controllers.
    parts = place.split("/")
    return parts[4].split(",") if len(parts) > 4 else []


def settings(resources: Json) -> Iterator[tuple[str, str, str]]:
    """Yield controller, file and value, in the order in which Linux wants them."""
    yield from _devices(resources.get("devices") or [])
    yield from _memory(resources.get("memory") or {})
    yield from _cpu(resources.get("cpu") or {})
    pids = resources.get("pids") or {}
    if pids.get("limit"):
        yield "pids", "pids.max", "max" if pids["limit"] < 0 else str(pids["limit"])
    for each in resources.get("hugepageLimits") or ():
        yield "hugetlb", f"hugetlb.{each['pageSize']}.limit_in_bytes", str(each["limit"])


def _memory(memory: Json) -> Iterator[tuple[str, str, str]]:
    for key, file in (
        ("limit", "memory.limit_in_bytes"),
        ("swap", "memory.memsw.limit_in_bytes"),
        ("reservation", "memory.soft_limit_in_bytes"),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
    ):
        if memory.get(key):
            yield "memory", file, str(memory[key])
    if "swappiness" in memory:
        yield "memory", "memory.swappiness", str(memory["swappiness"])
    if memory.get("disableOOMKiller"):
        yield "memory", "memory.oom_control", "1"


def _cpu(cpu: Json) -> Iterator[tuple[str, str, str]]:
    for key, file in (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("burst", "cpu.cfs_burst_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    ):
        if cpu.get(key):
            yield "cpu", file, str(cpu[key])
    for key in ("cpus", "mems"):
        if cpu.get(key):
            yield "cpuset", f"cpuset.{key}", cpu[key]


def _devices(rules: Sequence[Json]) -> Iterator[tuple[str, str, str]]:
    if not rules:
        return
    for rule in rules:
        kind = rule.get("type") or "a"
        numbers = [str(rule[name]) if rule.get(name, -1) >= 0 else "*" for name in ("major", "minor")]
        text = f"{kind} {':'.join(numbers)} {rule.get('access') or 'rwm'}"
        yield "devices", "devices.allow" if rule.get("allow") else "devices.deny", text
    for text in DEFAULT_DEVICES:
        yield "devices", "devices.allow", text


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _write(path: str, value: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {value.strip()[:80]!r}: {error.strerror}", path) from error
