"""Metrics of pods and containers as the kubelet passes them on to Prometheus (docs/containerd 5.11)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping, Sequence

from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.containers.containers import Containers
from windlass_cri.ids import Index
from windlass_cri.images.diskusage import DiskUsage, Measured
from windlass_cri.record import Container, Pod
from windlass_cri.stats.cgroups import Group
from windlass_cri.stats.descriptors import is_counter
from windlass_cri.stats.figures import Value, block_devices, of_group, of_interface
from windlass_cri.stats.interfaces import Interface, of_namespaces
from windlass_cri.stats.places import Places
from windlass_cri.stats.turns import Turns

INTERFACE = "eth0"
CALLS = 10
"""That may be under way at once, and begin in a second: each reads some twenty files of every container."""
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Read:
    """What was read in one go."""

    groups: Mapping[str, Sequence[Value]]
    interfaces: Mapping[str, Sequence[Interface]]
    disk: os.statvfs_result | None


class Metrics:
    """Measures all pods that are ready."""

    def __init__(self, containers: Containers, pods: Index[Pod], disk: DiskUsage, places: Places) -> None:
        """Measure the containers and pods of both indices."""
        self._containers = containers
        self._pods = pods
        self._disk = disk
        self._places = places
        self._turns = Turns(CALLS)

    async def all(self) -> list[cri.PodSandboxMetrics]:
        """Measure; containers that do not run are left out."""
        async with self._turns.next():
            pods = [pod for pod in self._pods if pod.ready]
            inside: dict[str, list[Container]] = {pod.id: [] for pod in pods}
            for each in self._containers.index:
                if each.data.pod in inside and each.status.state == cri.CONTAINER_RUNNING:
                    inside[each.data.pod].append(each)
            groups = await self._places.find((each for found in inside.values() for each in found), ())
            namespaces = [pod.data.netns for pod in pods if pod.data.netns]
            taken = await asyncio.to_thread(_read, groups, namespaces, self._disk.root)
            usage = await self._disk.total()
        return [_of_pod(pod, inside[pod.id], taken, usage) for pod in pods]


def _read(groups: Mapping[str, Group], namespaces: Sequence[str], disk: str) -> Read:
    devices = block_devices()
    values = {id: of_group(group, devices) for id, group in groups.items()}
    return Read(values, of_namespaces(namespaces) if namespaces else {}, os.statvfs(disk) if disk else None)


def _of_pod(pod: Pod, containers: Iterable[Container], taken: Read, usage: Measured) -> cri.PodSandboxMetrics:
    item = cri.PodSandboxMetrics(pod_sandbox_id=pod.id)
    named = (pod.config.metadata.name, pod.config.metadata.namespace)
    interfaces = taken.interfaces.get(pod.data.netns, ())
    item.metrics.extend(_metrics((*named, "", pod.id, ""), of_interface(interfaces, INTERFACE)))
    for each in containers:
        values = taken.groups.get(each.id)
        if not values:
            continue  # it has ended meanwhile
        labels = (*named, each.config.metadata.name, each.id, each.config.image.user_specified_image)
        measured = [*_times(each), *values, *disk_values(each.id, taken.disk, usage), *each.limits]
        item.container_metrics.add(container_id=each.id, metrics=_metrics(labels, measured))
    return item


def _times(container: Container) -> Iterable[Value]:
    yield Value("container_last_seen", int(time.time()))
    yield Value("container_start_time_seconds", container.status.started_at // SECOND)


def disk_values(id: str, disk: os.statvfs_result | None, usage: Measured) -> Iterable[Value]:
    """Yield what a container takes of its file system, and how much there is."""
    used = usage.snapshots.get(id)
    if disk is None:
        return
    yield Value("container_fs_usage_bytes", used.size if used else 0, ("/",))
    yield Value("container_fs_limit_bytes", disk.f_blocks * disk.f_frsize, ("/",))
    yield Value("container_fs_inodes_total", used.inodes if used else 0, ("/",))
    yield Value("container_fs_inodes_free", disk.f_ffree, ("/",))


def _metrics(labels: tuple[str, ...], values: Iterable[Value]) -> list[cri.Metric]:
    at = time.time_ns()
    return [
        cri.Metric(
            name=each.name,
            timestamp=at,
            metric_type=cri.COUNTER if is_counter(each.name) else cri.GAUGE,
            label_values=labels + each.labels,
            value=cri.UInt64Value(value=each.value),
        )
        for each in values
    ]
