"""Metrics of both versions of control groups, and what the table makes of two samples."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from windlass.errors import InvalidArgument, Unavailable
from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
from windlass_api.containerd.types.metrics_pb2 import Metric
from windlass_api.containerd.v1.types import task_pb2
from windlass_api.containerd.v1.types.task_pb2 import Process
from windlass_api.io.containerd.cgroups.v1 import metrics_pb2 as v1
from windlass_api.io.containerd.cgroups.v2 import metrics_pb2 as v2
from windlass_client import limits, processes
from windlass_client.limits import Limits
from windlass_client.stats import reading, rows, watch
from windlass_client.stats.reading import Reading, decode
from windlass_client.stats.rows import Named, row
from windlass_client.streams import pack
from windlass_oci.runtime_spec import Resources

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def metric(message: Message, at: int = 5) -> Metric:
    return Metric(id="box", timestamp=Timestamp(seconds=at, nanos=500_000_000), data=pack(message))


def test_the_second_version() -> None:
    """Pages of files that are not in use do not count, nor does the loopback; no limit is the machine's memory."""
    found = v2.Metrics(
        pids=v2.PidsStat(current=3),
        cpu=v2.CPUStat(usage_usec=7),
        memory=v2.MemoryStat(usage=100, inactive_file=40, usage_limit=1000),
        io=v2.IOStat(usage=[v2.IOEntry(rbytes=1, wbytes=2), v2.IOEntry(rbytes=10, wbytes=20)]),
        network=[v2.NetworkStat(name="lo", rx_bytes=9), v2.NetworkStat(name="eth0", rx_bytes=5, tx_bytes=6)],
    )
    assert decode(metric(found)) == Reading(5.5, 7000, 60, 1000, 5, 6, 11, 22, 3)
    found.memory.usage_limit = (1 << 64) - 1
    assert (decode(metric(found)) or Reading()).limit == MACHINE


def test_the_first_version() -> None:
    """The same, by its other names."""
    found = v1.Metrics(
        pids=v1.PidsStat(current=3),
        cpu=v1.CPUStat(usage=v1.CPUUsage(total=7000)),
        memory=v1.MemoryStat(total_inactive_file=40, usage=v1.MemoryEntry(usage=100, limit=1000)),
        blkio=v1.BlkIOStat(
            io_service_bytes_recursive=[
                v1.BlkIOEntry(op="Read", value=11),
                v1.BlkIOEntry(op="Write", value=22),
                v1.BlkIOEntry(op="Total", value=33),
            ]
        ),
        network=[v1.NetworkStat(name="eth0", rx_bytes=5, tx_bytes=6)],
    )
    assert decode(metric(found)) == Reading(5.5, 7000, 60, 1000, 5, 6, 11, 22, 3)
    found.memory.usage.limit = 9223372036854771712
    assert (decode(metric(found)) or Reading()).limit == MACHINE


def test_metrics_of_another_kind() -> None:
    """Are none, as are broken ones; interfaces of the host's own network do not count for a container."""
    assert decode(Metric(id="box", data=pack(Timestamp()))) is None
    broken = metric(v2.Metrics())
    broken.data.value = b"\xff"
    assert decode(broken) is None
    assert reading._interfaces(os.getpid()) == []
    assert reading._interfaces(0) == []


def test_a_row() -> None:
    """As docker prints it; rates need two samples."""
    box = Named("0123456789abcdef", "box")
    before = Reading(10.0, cpu=1_000_000_000)
    now = Reading(12.0, 2_000_000_000, 3 << 19, 64 << 20, 1500, 2_000_000, 0, 4096, 2)
    assert row(box, before, now) == {
        "Container": "box", "ID": "0123456789ab", "Name": "box", "CPUPerc": "50.00%", "MemUsage": "1.5MiB / 64MiB",
        "MemPerc": "2.34%", "NetIO": "1.5kB / 2MB", "BlockIO": "0B / 4.1kB", "PIDs": "2",
    }  # fmt: skip
    assert row(box, None, now, truncate=False)["ID"] == box.id
    assert row(box, None, now)["CPUPerc"] == "--"
    assert row(box, before, None)["MemUsage"] == "-- / --"
    assert rows.processor(now, Reading(13.0, 0)) == 0  # started again


class Tasks:
    """A container that runs, on a daemon that is away now and then."""

    def __init__(self, away: Sequence[bool]) -> None:
        self.away = list(away)
        self.samples = 0

    async def metrics(self, *filters: str) -> list[Metric]:
        raise AssertionError("a process without a number has no sample")

    async def list(self) -> Sequence[Process]:
        if self.away and self.away.pop(0):
            raise Unavailable("the daemon is not running")
        return [Process(id="box", status=task_pb2.RUNNING, pid=0)]


class Containers:
    """Its record."""

    async def list(self, *filters: str) -> list[Container]:
        return [Container(id="box"), Container(id="ended")]


class FakeClient:
    namespace = "default"

    def __init__(self, away: Sequence[bool] = ()) -> None:
        self.tasks, self.containers = Tasks(away), Containers()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL", 0.01)
    monkeypatch.setattr(watch, "PATIENCE", 0.05)


async def test_stats_outlast_a_restart_of_the_daemon() -> None:
    """The last rows stay meanwhile; a daemon that does not come back ends it."""
    seen = []
    following = watch.Watch(FakeClient([False, True, True, False]), (), False, True)  # type: ignore[arg-type]
    async for found in following.rows():
        seen.append([each["Name"] for each in found])
        if len(seen) == 4:
            break
    assert seen == [["box"]] * 4
    gone = watch.Watch(FakeClient([True] * 1000), (), False, True)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        async for _ in gone.rows():
            pass


async def test_all_containers_are_those_that_do_not_run_too() -> None:
    """With zeros, as docker has it."""
    found = await watch.Watch(FakeClient(), (), True, True).once()  # type: ignore[arg-type]
    assert {str(each["Name"]): each["PIDs"] for each in found} == {"box": "--", "ended": "0"}


def test_top_takes_lines_by_their_numbers() -> None:
    """Wherever the column is; a last column with spaces stays whole."""
    output = "UID   PID  CMD\nroot    1  init\nroot   77  sh -c sleep 5\nroot 7  x\n"
    assert processes.select(output, {77}) == [["UID", "PID", "CMD"], ["root", "77", "sh -c sleep 5"]]
    with pytest.raises(InvalidArgument, match="no column PID"):
        processes.select("CMD\nsh\n", {1})


def test_update_changes_what_is_asked_for() -> None:
    """And leaves the rest; rules for devices stay in the record, and the runtime does not get them."""
    resources: Resources = {"devices": [{"allow": False}], "cpu": {"shares": 5}, "memory": {"limit": 1 << 20}}
    changed = limits.change(resources, Limits(cpus=1.5, memory="2M", memory_swap="4M", pids=0))
    assert "devices" not in changed and resources["devices"] == [{"allow": False}]
    assert resources["cpu"] == {"shares": 5, "quota": 150_000, "period": 100_000}
    assert resources["memory"] == {"limit": 2 << 20, "swap": 4 << 20}
    assert resources["pids"] == {"limit": -1}
    for bad in (Limits(memory="8M"), Limits(cpus=0), Limits(cpus=1, cpu_quota=5), Limits(memory="x")):
        with pytest.raises(InvalidArgument):
            limits.change(resources, bad)
    assert not Limits().any() and Limits(pids=5).any()
