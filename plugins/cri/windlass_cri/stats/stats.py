"""How much containers and pods use: their control groups, networks and snapshots (docs/containerd 5.11)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from windlass.config import durations
from windlass.errors import Unavailable, Unknown
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import RuntimeConfig
from windlass_cri.containers.containers import Containers
from windlass_cri.ids import Index
from windlass_cri.images.diskusage import DiskUsage, Measured
from windlass_cri.record import Container, Pod
from windlass_cri.stats.cgroups import Group, Memory, Pressure, Usage, measure_group
from windlass_cri.stats.interfaces import Interface, of_namespaces
from windlass_cri.stats.places import Places
from windlass_cri.stats.sampler import Sampler

S = TypeVar("S", cri.ContainerStats, cri.PodSandboxStats)

INTERFACE = "eth0"
PERIOD, RETENTION = "1s", "2m"
"""What empty values of the configuration stand for."""


@dataclass(frozen=True)
class Usages:
    """What was measured in one go: usage of groups by the ID of their container or pod, interfaces by namespace."""

    groups: Mapping[str, Usage]
    interfaces: Mapping[str, Sequence[Interface]]
    disk: Measured


class Stats:
    """Measures on demand; all groups that one call wants are read in one go, in a thread."""

    def __init__(self, containers: Containers, pods: Index[Pod], disk: DiskUsage, config: RuntimeConfig) -> None:
        """Have no samples yet."""
        self._containers = containers
        self._pods = pods
        self._disk = disk
        self.places = Places(containers)
        period = durations.seconds(config.stats_collect_period or PERIOD)
        self.sampler = Sampler(self._all_groups, period, durations.seconds(config.stats_retention_period or RETENTION))

    async def stop(self) -> None:
        """Sample no longer."""
        await self.sampler.stop()

    async def of_container(self, container: Container) -> cri.ContainerStats:
        """Measure one that runs. Raises Unknown for one that does not."""
        usages = await self._measure([container], [])
        if container.id not in usages.groups:
            raise Unknown("unexpected metrics response: []")
        return self._container(container, usages)

    async def of_containers(self, wanted: Iterable[Container]) -> list[cri.ContainerStats]:
        """Measure many; those that do not run have their snapshot's size alone."""
        chosen = list(wanted)
        usages = await self._measure(chosen, [])
        return [self._container(each, usages) for each in chosen if each.id in self._containers.index]

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
        pods = [pod for pod in wanted if _has_group(pod)]
        inside = self._by_pod()
        usages = await self._measure([each for pod in pods for each in inside.get(pod.id, ())], pods)
        return [self._pod(pod, inside.get(pod.id, ()), usages) for pod in pods]

    def _by_pod(self) -> dict[str, list[Container]]:
        found: dict[str, list[Container]] = {}
        for each in self._containers.index:
            found.setdefault(each.data.pod, []).append(each)
        return found

    async def _measure(self, containers: Sequence[Container], pods: Sequence[Pod]) -> Usages:
        """Measure what runs of it."""
        self.sampler.ask()
        groups = await self.places.find((each for each in containers if runs(each)), pods)
        namespaces = [pod.data.netns for pod in pods if pod.data.netns]
        usages, interfaces = await asyncio.to_thread(_read, groups, namespaces)
        return Usages(usages, interfaces, await self._disk.total())

    async def _all_groups(self) -> dict[str, Group]:
        """Return the groups of all that runs, for the sampler."""
        containers, pods = list(self._containers.index), list(self._pods)
        self.places.keep({each.id for each in containers} | {each.id for each in pods})
        return await self.places.find(filter(runs, containers), filter(_has_group, pods))

    def _pod(self, pod: Pod, containers: Iterable[Container], usages: Usages) -> cri.PodSandboxStats:
        item = _begun(cri.PodSandboxStats, pod)
        if pod.id in usages.groups:
            self._fill(item.linux, pod.id, usages.groups[pod.id])
        if pod.data.netns:
            _network(item.linux.network, usages.interfaces.get(pod.data.netns, ()))
        item.linux.process.timestamp = time.time_ns()
        item.linux.process.process_count.value = 0
        for each in containers:
            item.linux.containers.append(self._container(each, usages))
            if each.id in usages.groups:
                item.linux.process.process_count.value += usages.groups[each.id].pids
        return item

    def _container(self, container: Container, usages: Usages) -> cri.ContainerStats:
        item = _begun(cri.ContainerStats, container)
        layer, used = item.writable_layer, usages.disk.snapshots.get(container.id)
        layer.timestamp = usages.disk.at
        layer.fs_id.mountpoint = self._disk.root
        layer.used_bytes.value = used.size if used else 0
        layer.inodes_used.value = used.inodes if used else 0
        if container.id in usages.groups:
            self._fill(item, container.id, usages.groups[container.id])
        return item

    def _fill(self, item: cri.ContainerStats | cri.LinuxPodSandboxStats, id: str, usage: Usage) -> None:
        if usage.cpu is not None:
            item.cpu.timestamp = usage.at
            item.cpu.usage_core_nano_seconds.value = usage.cpu
            rate = self.sampler.rate(id)
            if rate is not None:
                item.cpu.usage_nano_cores.value = rate
            _psi(item.cpu.psi, usage.cpu_pressure)
        if usage.memory is not None:
            _memory(item.memory, usage.at, usage.memory)
        if usage.io_pressure is not None:
            item.io.timestamp = usage.at
            _psi(item.io.psi, usage.io_pressure)


def runs(container: Container) -> bool:
    """Return whether a container runs."""
    return container.status.state == cri.CONTAINER_RUNNING


def _has_group(pod: Pod) -> bool:
    return pod.ready and bool(pod.config.linux.cgroup_parent)


def _read(
    groups: Mapping[str, Group], namespaces: Sequence[str]
) -> tuple[dict[str, Usage], Mapping[str, Sequence[Interface]]]:
    usages = {id: usage for id, group in groups.items() if (usage := measure_group(group)) is not None}
    return usages, of_namespaces(namespaces) if namespaces else {}


def _begun(kind: type[S], of: Container | Pod) -> S:
    """Return a message that says whose stats it has. That never changes, and is encoded once."""
    if not of.attributes:
        begun = kind()
        shown = begun.attributes
        shown.id = of.id
        shown.metadata.MergeFrom(of.config.metadata)  # type: ignore[arg-type] # each has its own kind
        shown.labels.update(of.config.labels)
        shown.annotations.update(of.config.annotations)
        of.attributes = begun.SerializeToString()
    return kind.FromString(of.attributes)


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


def _network(shown: cri.NetworkUsage, interfaces: Sequence[Interface]) -> None:
    shown.timestamp = time.time_ns()
    for each in interfaces:
        item = shown.interfaces.add(name=each.name)
        item.rx_bytes.value, item.rx_errors.value = each.received, each.receive_errors
        item.tx_bytes.value, item.tx_errors.value = each.sent, each.send_errors
    named = next((each for each in shown.interfaces if each.name == INTERFACE), None)
    if named is not None or shown.interfaces:
        shown.default_interface.CopyFrom(named or shown.interfaces[0])
