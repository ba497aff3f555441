"""Measures every task's cgroup, as its shim sees it, and sorts the values into families."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from operator import attrgetter

from google.protobuf.message import DecodeError

from windlass.contracts.metadata import Metadata
from windlass.contracts.metrics import Family, Kind, MetricSource, Sample
from windlass.contracts.tasks import Metric, Tasks
from windlass.errors import Error
from windlass.gate import offload
from windlass.typing import override
from windlass_api.io.containerd.cgroups.v1 import metrics_pb2 as v1_pb
from windlass_api.io.containerd.cgroups.v2 import metrics_pb2 as v2_pb
from windlass_monitor.names import V1, V1_BLKIO, V1_HUGETLB, V2, V2_IO, Row

logger = logging.getLogger(__name__)

Value = tuple[str, str, dict[str, str], float]
"""Name and unit, the labels that a metric has besides its task's, and the value."""


class CgroupMetrics(MetricSource):
    """The source of tasks' metrics; each shim has a deadline of its own."""

    def __init__(self, metadata: Metadata, tasks: Tasks, wanted: bool) -> None:
        """Measure the tasks of every namespace; nothing if it is not ``wanted``."""
        self._metadata = metadata
        self._tasks = tasks
        self._wanted = wanted

    @override
    async def measure(self) -> list[Family]:
        if not self._wanted:
            return []
        namespaces = [each.name for each in await offload(self._metadata.namespaces().list)]
        found = await asyncio.gather(*(self._in(name) for name in namespaces))
        samples: dict[str, list[Sample]] = {}
        for namespace, metrics in zip(namespaces, found, strict=True):
            for metric in metrics:
                for name, unit, labels, value in _values(metric):
                    labels = {"container_id": metric.id, "namespace": namespace, **labels}
                    samples.setdefault(f"container_{name}_{unit}", []).append(Sample(labels, value))
        return [Family(name, _help(name), Kind.GAUGE, tuple(samples[name])) for name in sorted(samples)]

    async def _in(self, namespace: str) -> list[Metric]:
        try:
            return await self._tasks.metrics(namespace)
        except Error as error:
            logger.warning("tasks of namespace %s cannot be measured: %s", namespace, error)
            return []


def _help(name: str) -> str:
    return f"{name.removeprefix('container_').replace('_', ' ')} of the task's cgroup"


def _values(metric: Metric) -> Iterator[Value]:
    """Yield what a task's metrics say; of a type that is not known, or that cannot be read, nothing."""
    try:
        if metric.data.type_url == v2_pb.Metrics.DESCRIPTOR.full_name:
            yield from _of_v2(v2_pb.Metrics.FromString(metric.data.value))
        elif metric.data.type_url == v1_pb.Metrics.DESCRIPTOR.full_name:
            yield from _of_v1(v1_pb.Metrics.FromString(metric.data.value))
    except DecodeError as error:
        logger.warning("metrics of task %s cannot be read: %s", metric.id, error)


def _of_v2(metrics: v2_pb.Metrics) -> Iterator[Value]:
    yield from _rows(V2, metrics)
    for entry in metrics.io.usage:
        labels = {"major": str(entry.major), "minor": str(entry.minor)}
        for name, unit in V2_IO.items():
            yield f"io_{name}", unit, labels, getattr(entry, name)


def _of_v1(metrics: v1_pb.Metrics) -> Iterator[Value]:
    yield from _rows(V1, metrics)
    for number, used in enumerate(metrics.cpu.usage.per_cpu):
        yield "per_cpu", "nanoseconds", {"cpu": str(number)}, used
    for pages in metrics.hugetlb:
        for name, unit in V1_HUGETLB.items():
            yield f"hugetlb_{name}", unit, {"page": pages.pagesize}, getattr(pages, name)
    for name, unit in V1_BLKIO.items():
        for entry in getattr(metrics.blkio, name):
            labels = {"op": entry.op, "device": entry.device, "major": str(entry.major), "minor": str(entry.minor)}
            yield f"blkio_{name}", unit, labels, entry.value


def _rows(rows: tuple[Row, ...], metrics: v1_pb.Metrics | v2_pb.Metrics) -> Iterator[Value]:
    """Yield a table's values, leaving out the controllers that the cgroup does not have."""
    for name, unit, path in rows:
        if metrics.HasField(path.partition(".")[0]):  # type: ignore[arg-type] # one of the fields that the tables name
            yield name, unit, {}, attrgetter(path)(metrics)
