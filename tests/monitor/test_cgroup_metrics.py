"""What the monitor makes of the values that shims tell."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import Descriptor

from windlass.contracts.metrics import Family, Kind
from windlass.contracts.namespaces import Namespace
from windlass.contracts.tasks import Metric
from windlass.contracts.values import Payload
from windlass.errors import Unavailable
from windlass_api.io.containerd.cgroups.v1 import metrics_pb2 as v1_pb
from windlass_api.io.containerd.cgroups.v2 import metrics_pb2 as v2_pb
from windlass_monitor.cgroups import CgroupMetrics
from windlass_monitor.names import V1, V2
from windlass_monitor.plugin import migrate


class World:
    """As much of a metadata store and a runtime as the monitor uses."""

    def __init__(self, **metrics: list[Metric]) -> None:
        self.found = metrics
        self.asked = 0

    def namespaces(self) -> World:
        return self

    async def metrics(self, namespace: str) -> list[Metric]:
        self.asked += 1
        if namespace == "sick":
            raise Unavailable("no")
        return self.found[namespace]

    def list(self) -> list[Namespace]:
        return [Namespace(name) for name in self.found]


async def measure(world: World, wanted: bool = True) -> dict[str, Family]:
    source = CgroupMetrics(world, world, wanted)  # type: ignore[arg-type] # as much as it uses
    return {family.name: family for family in await source.measure()}


def metric(message: v1_pb.Metrics | v2_pb.Metrics, id: str = "box") -> Metric:
    return Metric(1, id, Payload(message.DESCRIPTOR.full_name, message.SerializeToString()))


def value(families: dict[str, Family], name: str, **labels: str) -> float:
    (found,) = [each.value for each in families[name].samples if labels.items() <= each.labels.items()]
    return found


async def test_a_v2_cgroup_has_containerds_names() -> None:
    """Each with the task it belongs to."""
    message = v2_pb.Metrics(
        pids=v2_pb.PidsStat(current=3, limit=7),
        cpu=v2_pb.CPUStat(usage_usec=11, nr_throttled=2),
        memory=v2_pb.MemoryStat(usage=4096, usage_limit=2**64 - 1, pgfault=5),
        memory_events=v2_pb.MemoryEvents(oom=1),
        io=v2_pb.IOStat(usage=[v2_pb.IOEntry(major=8, minor=1, rbytes=512), v2_pb.IOEntry(major=8, minor=2, rbytes=1)]),
    )
    families = await measure(World(default=[metric(message)], other=[metric(message, "there")]))
    assert value(families, "container_cpu_usage_usec_microseconds", container_id="box", namespace="default") == 11
    assert value(families, "container_cpu_nr_throttled_total", container_id="there", namespace="other") == 2
    for name, expected in {
        "pids_current": 3,
        "pids_limit": 7,
        "memory_usage_bytes": 4096,
        "memory_usage_limit_bytes": 2**64 - 1,
        "memory_pgfault_bytes": 5,
        "memory_oom_total": 1,
    }.items():
        assert value(families, f"container_{name}", container_id="box") == expected
    assert value(families, "container_io_rbytes_bytes", container_id="box", major="8", minor="1") == 512
    assert {family.kind for family in families.values()} == {Kind.GAUGE}


async def test_a_v1_cgroup_has_containerds_names() -> None:
    """With its processors, page sizes and devices."""
    message = v1_pb.Metrics(
        cpu=v1_pb.CPUStat(usage=v1_pb.CPUUsage(total=9, per_cpu=[4, 5]), throttling=v1_pb.Throttle(throttled_time=6)),
        memory=v1_pb.MemoryStat(
            cache=1,
            pg_maj_fault=2,
            total_pg_pg_in=3,
            usage=v1_pb.MemoryEntry(failcnt=4),
            kernel_tcp=v1_pb.MemoryEntry(max=5),
        ),
        hugetlb=[v1_pb.HugetlbStat(pagesize="2MB", max=8)],
        blkio=v1_pb.BlkIOStat(
            io_serviced_recursive=[v1_pb.BlkIOEntry(op="Read", device="/dev/sda", major=8, value=12)]
        ),
        memory_oom_control=v1_pb.MemoryOomControl(oom_kill=1),
    )
    families = await measure(World(default=[metric(message)]))
    for name, expected in {
        "cpu_total_nanoseconds": 9,
        "cpu_throttled_time_nanoseconds": 6,
        "memory_cache_bytes": 1,
        "memory_pgmajfault_bytes": 2,
        "memory_total_pgpgin_bytes": 3,
        "memory_usage_failcnt_total": 4,
        "memory_kerneltcp_max_bytes": 5,
        "memory_oom_total": 1,
        "hugetlb_max_bytes": 8,
        "blkio_io_serviced_recursive_total": 12,
    }.items():
        assert value(families, f"container_{name}") == expected
    assert value(families, "container_per_cpu_nanoseconds", cpu="1") == 5
    assert "container_pids_current" not in families, "a controller that is not there has no value"


def test_every_row_names_a_field_of_the_wire() -> None:
    """All of them, as many as the reference counts (4.12)."""
    for rows, message in ((V1, v1_pb.Metrics), (V2, v2_pb.Metrics)):
        for _, _, path in rows:
            descriptor: Descriptor | None = message.DESCRIPTOR
            *outer, last = path.split(".")
            for name in outer:
                assert descriptor is not None
                descriptor = descriptor.fields_by_name[name].message_type
            assert descriptor is not None and last in descriptor.fields_by_name
        names = [f"{name}_{unit}" for name, unit, _ in rows]
        assert len(names) == len(set(names))
    assert sum(name.startswith("memory_") and name != "memory_oom" for name, _, _ in V1) == 48


async def test_what_cannot_be_measured_is_left_out() -> None:
    """A namespace, a message of another kind, one that is damaged."""
    good = metric(v2_pb.Metrics(pids=v2_pb.PidsStat(current=1)), "good")
    odd = [Metric(1, "odd", Payload("example.Metrics", b"x")), Metric(1, "bad", Payload(good.data.type_url, b"\xff"))]
    families = await measure(World(sick=[], default=[good, *odd]))
    assert {each.labels["container_id"] for family in families.values() for each in family.samples} == {"good"}


async def test_nobody_is_asked_when_no_metrics_are_wanted() -> None:
    """The switch is containerd's."""
    world = World(default=[])
    assert await measure(world, wanted=False) == {}
    assert world.asked == 0


@pytest.mark.parametrize("version", [2, 3])
def test_the_old_name_of_the_block_still_counts(version: int) -> None:
    """In files of version 2 and 3."""
    plugins = {"io.containerd.monitor.v1.cgroups": {"no_prometheus": True}}
    migrate(version, plugins)
    assert plugins == {"io.containerd.monitor.task.v1.cgroups": {"no_prometheus": True}}
