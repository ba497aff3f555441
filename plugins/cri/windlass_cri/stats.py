"""How much containers and pods use: their control groups, networks and snapshots (docs/containerd 5.11)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import Error, Unavailable, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.cgroups import Memory, Pressure, Usage, groups, measure, of_pod
from windlass_cri.containers import Containers
from windlass_cri.diskusage import DiskUsage, Measured
from windlass_cri.record import Container, Pod
from windlass_linux import netns

INTERFACE = "eth0"
SHORTEST = 100_000_000
"""Nanoseconds between two samples whose difference says how busy a processor is."""


@dataclass(frozen=True)
class Sample:
    """Processor time at a time, both in nanoseconds, and how busy it was before."""

    at: int
    used: int
    rate: int | None = None

    def next(self, at: int, used: int) -> Sample:
        """Return the sample after this one; too soon after it, or when the counter began anew, what was known."""
        if at - self.at < SHORTEST:
            return self
        rate = (used - self.used) * 1_000_000_000 // (at - self.at)
        return Sample(at, used, rate if used >= self.used else None)


class Stats:
    """Measures on demand; all groups that one call wants are read in one go, in a thread."""

    def __init__(self, containers: Containers, disk: DiskUsage) -> None:
        """Have no samples yet."""
        self._containers = containers
        self._disk = disk
        self._samples: dict[str, Sample] = {}
        self._groups: dict[str, list[str]] = {}

    async def of_container(self, container: Container) -> cri.ContainerStats:
        """Measure one that runs. Raises Unknown for one that does not."""
        usages = await self._usages([container])
        if container.id not in usages:
            raise Unknown("unexpected metrics response: []")
        return self._container(container, usages, await self._disk.total())

    async def of_containers(self, wanted: Iterable[Container]) -> list[cri.ContainerStats]:
        """Measure many; those that do not run have their snapshot's size alone."""
        chosen = list(wanted)
        usages, disk = await self._usages(chosen), await self._disk.total()
        there = {each.id for each in self._containers.index}
        self._samples = {id: sample for id, sample in self._samples.items() if id in there or id.startswith("pod ")}
        self._groups = {id: found for id, found in self._groups.items() if id in there}
        return [self._container(each, usages, disk) for each in chosen if each.id in there]

    async def of_pod(self, pod: Pod) -> cri.PodSandboxStats:
        """Measure a pod. Raises Unavailable for one that is not ready, Unknown for one without a group of its own."""
        if not pod.ready:
            raise Unavailable(
                f'failed to get pod sandbox stats since sandbox container "{pod.id}" is not in ready state'
            )
        if not pod.config.linux.cgroup_parent:
            raise Unknown(f"failed getting metrics for sandbox {pod.id}: sandbox {pod.id} has no cgroup parent")
        return (await self.of_pods([pod]))[0]

    async def of_pods(self, wanted: Iterable[Pod]) -> list[cri.PodSandboxStats]:
        """Measure many; those that are not ready or have no group of their own are left out."""
        pods = [each for each in wanted if each.ready and each.config.linux.cgroup_parent]
        inside = {pod.id: self._containers.of_pod(pod.id) for pod in pods}
        usages = await self._usages([each for found in inside.values() for each in found])
        disk = await self._disk.total()
        measured = await asyncio.to_thread(lambda: [_of_pod(pod) for pod in pods])
        found = []
        for pod, (usage, interfaces) in zip(pods, measured, strict=True):
            item = cri.PodSandboxStats()
            _attributes(item.attributes, pod)
            if usage is not None:
                self._fill(item.linux, f"pod {pod.id}", usage)
            if pod.data.netns:
                _network(item.linux.network, interfaces)
            item.linux.containers.extend(self._container(each, usages, disk) for each in inside[pod.id])
            item.linux.process.timestamp = time.time_ns()
            item.linux.process.process_count.value = sum(
                usages[each.id].pids for each in inside[pod.id] if each.id in usages
            )
            found.append(item)
        ready = {f"pod {pod.id}" for pod in pods}
        if len(pods) > 1:
            self._samples = {id: each for id, each in self._samples.items() if id in ready or not id.startswith("pod ")}
        return found

    async def _usages(self, containers: Sequence[Container]) -> dict[str, Usage]:
        """Measure those that run, by ID."""
        running = [each for each in containers if each.status.state == cri.CONTAINER_RUNNING]
        for each in running:
            if each.id not in self._groups:
                try:
                    self._groups[each.id] = groups(each.id, await self._containers.spec(each))
                except Error:
                    continue  # it was removed meanwhile
        places = {each.id: self._groups[each.id] for each in running if each.id in self._groups}
        found = await asyncio.to_thread(_each, measure, places)
        return {id: usage for id, usage in found.items() if usage is not None}

    def _container(self, container: Container, usages: Mapping[str, Usage], disk: Measured) -> cri.ContainerStats:
        item = cri.ContainerStats()
        _attributes(item.attributes, container)
        layer, used = item.writable_layer, disk.snapshots.get(container.id)
        layer.timestamp = disk.at
        layer.fs_id.mountpoint = self._disk.root
        layer.used_bytes.value = used.size if used else 0
        layer.inodes_used.value = used.inodes if used else 0
        if container.id in usages:
            self._fill(item, container.id, usages[container.id])
        return item

    def _fill(self, item: cri.ContainerStats | cri.LinuxPodSandboxStats, id: str, usage: Usage) -> None:
        if usage.cpu is not None:
            sample = self._samples.get(id)
            sample = self._samples[id] = sample.next(usage.at, usage.cpu) if sample else Sample(usage.at, usage.cpu)
            item.cpu.timestamp = usage.at
            item.cpu.usage_core_nano_seconds.value = usage.cpu
            if sample.rate is not None:
                item.cpu.usage_nano_cores.value = sample.rate
            _psi(item.cpu.psi, usage.cpu_pressure)
        if usage.memory is not None:
            _memory(item.memory, usage.at, usage.memory)
        if usage.io_pressure is not None:
            item.io.timestamp = usage.at
            _psi(item.io.psi, usage.io_pressure)


def _each(call: Callable[[list[str]], Usage | None], places: Mapping[str, list[str]]) -> dict[str, Usage | None]:
    return {id: call(directories) for id, directories in places.items()}


def _attributes(shown: cri.ContainerAttributes | cri.PodSandboxAttributes, of: Container | Pod) -> None:
    shown.id = of.id
    shown.metadata.MergeFrom(of.config.metadata)  # type: ignore[arg-type] # each has its own kind of both
    shown.labels.update(of.config.labels)
    shown.annotations.update(of.config.annotations)


def _memory(shown: cri.MemoryUsage, at: int, memory: Memory) -> None:
    shown.timestamp = at
    shown.working_set_bytes.value = memory.working_set
    shown.available_bytes.value = max(0, memory.available)
    shown.usage_bytes.value = memory.usage
    shown.rss_bytes.value = memory.rss
    shown.page_faults.value = memory.faults
    shown.major_page_faults.value = memory.major_faults
    _psi(shown.psi, memory.pressure)


def _psi(shown: cri.PsiStats, found: Pressure | None) -> None:
    for kind, target in (("full", shown.Full), ("some", shown.Some)):
        if found is not None and kind in found:
            values = found[kind]
            target.Total = int(values.get("total", 0)) * 1000
            target.Avg10, target.Avg60, target.Avg300 = (values.get(f"avg{each}", 0) for each in (10, 60, 300))


def _of_pod(pod: Pod) -> tuple[Usage | None, Sequence[Interface]]:
    usage = measure(of_pod(pod.config.linux.cgroup_parent))
    try:
        found = netns.within(Path(pod.data.netns), read_interfaces) if pod.data.netns else ()
    except OSError:  # it was stopped meanwhile
        found = ()
    return usage, found


@dataclass(frozen=True)
class Interface:
    """What has gone through a network interface."""

    name: str
    received: int
    receive_errors: int
    sent: int
    send_errors: int


def read_interfaces(path: str = "/proc/thread-self/net/dev") -> list[Interface]:
    """Return the interfaces of this thread's network namespace but for loopback."""
    found = []
    for line in Path(path).read_text().splitlines()[2:]:
        name, _, values = line.partition(":")
        numbers = [int(each) for each in values.split()]
        if name.strip() != "lo":
            found.append(Interface(name.strip(), numbers[0], numbers[2], numbers[8], numbers[10]))
    return found


def _network(shown: cri.NetworkUsage, interfaces: Sequence[Interface]) -> None:
    shown.timestamp = time.time_ns()
    for each in interfaces:
        item = shown.interfaces.add(name=each.name)
        item.rx_bytes.value, item.rx_errors.value = each.received, each.receive_errors
        item.tx_bytes.value, item.tx_errors.value = each.sent, each.send_errors
    named = next((each for each in shown.interfaces if each.name == INTERFACE), None)
    if named is not None or shown.interfaces:
        shown.default_interface.CopyFrom(named or shown.interfaces[0])
