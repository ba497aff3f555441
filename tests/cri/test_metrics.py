"""Metrics: their descriptors, and their values from control groups of both versions, specs and interfaces."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from windlass.contracts.snapshots import Usage
from windlass_cri.images.diskusage import Measured
from windlass_cri.stats.cgroups import Group, locate, processor_time
from windlass_cri.stats.descriptors import ALL, BASE, is_counter
from windlass_cri.stats.figures import Value, block_devices, limits_of, of_group, of_interface
from windlass_cri.stats.interfaces import Interface
from windlass_cri.stats.metrics import disk_values
from windlass_cri.stats.sampler import Sampler
from windlass_cri.stats.turns import Turns
from windlass_oci.defaults import default_spec


def written(directory: Path, files: dict[str, str]) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    return str(directory)


def values(found: list[Value]) -> dict[tuple[str, ...], int]:
    return {(each.name.removeprefix("container_"), *each.labels): each.value for each in found}


def test_the_descriptors_are_containerds() -> None:
    assert len({each.name for each in ALL}) == len(ALL) == 49
    labels = {each.name: each.labels for each in ALL}
    assert labels["container_processes"] == BASE == ("pod", "namespace", "container", "id", "image")
    assert labels["container_network_receive_packets_dropped_total"][5:] == ("interface",)
    assert labels["container_memory_failures_total"][5:] == ("failure_type", "scope")
    assert labels["container_blkio_device_usage_total"][5:] == ("device", "major", "minor", "operation")
    assert all(each.help.endswith(".") for each in ALL)


def test_what_grows_is_a_counter() -> None:
    gauges = {"container_fs_inodes_total", "container_memory_rss", "container_last_seen"}
    assert not any(is_counter(each) for each in gauges)
    assert is_counter("container_cpu_usage_seconds_total")
    assert is_counter("container_memory_failcnt")


def test_version_1(tmp_path: Path) -> None:
    cpuacct = written(tmp_path / "cpuacct", {"cpuacct.usage": "5000000000\n", "cpuacct.stat": "user 300\nsystem 100\n"})
    throttled = "nr_periods 7\nnr_throttled 2\nthrottled_time 3000000000\n"
    cpu = written(tmp_path / "cpu", {"cpu.shares": "2\n", "cpu.stat": throttled})
    memory = written(
        tmp_path / "memory",
        {
            "memory.usage_in_bytes": "1000\n",
            "memory.max_usage_in_bytes": "3000\n",
            "memory.memsw.usage_in_bytes": "1100\n",
            "memory.kmem.usage_in_bytes": "50\n",
            "memory.failcnt": "4\n",
            "memory.stat": "pgfault 7\npgmajfault 1\ntotal_rss 20\ntotal_cache 600\ntotal_inactive_file 300\n",
            "memory.oom_control": "oom_kill_disable 0\noom_kill 2\n",
        },
    )
    bytes_of = "8:0 Read 4096\n8:0 Write 0\n8:0 Total 4096\nTotal 4096\n"
    counts = "8:0 Read 1\n8:0 Write 0\nTotal 1\n"
    blkio = written(
        tmp_path / "blkio", {"blkio.throttle.io_service_bytes": bytes_of, "blkio.throttle.io_serviced": counts}
    )
    pids = written(tmp_path / "pids", {"pids.current": "3\n", "pids.max": "max\n", "cgroup.procs": f"{os.getpid()}\n"})
    group = locate([cpuacct, cpu, memory, blkio, pids, str(tmp_path / "absent")])
    assert group == Group(cpu, cpuacct, memory, pids, blkio)
    found = values(of_group(group, {"8:0": "/dev/sda"}))
    assert {key[0] for key in found} <= {each.name.removeprefix("container_") for each in ALL}
    assert (found[("cpu_usage_seconds_total",)], found[("cpu_cfs_throttled_seconds_total",)]) == (5, 3)
    assert (found[("memory_working_set_bytes",)], found[("memory_swap",)]) == (700, 1100)
    assert found[("memory_failures_total", "pgmajfault", "container")] == 1
    assert found[("oom_events_total",)] == 2
    assert found[("blkio_device_usage_total", "/dev/sda", "8", "0", "Total")] == 4096
    assert (found[("fs_reads_bytes_total", "/dev/sda")], found[("fs_reads_total", "/dev/sda")]) == (4096, 1)
    assert (found[("processes",)], found[("threads",)], found[("threads_max",)]) == (3, 3, 0)
    assert found[("file_descriptors",)] > 0


def test_version_2(tmp_path: Path) -> None:
    place = written(
        tmp_path / "group",
        {
            "cgroup.controllers": "cpu memory pids io\n",
            "cgroup.procs": "",
            "cpu.stat": "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 7\n",
            "memory.current": "1000\n",
            "memory.peak": "3000\n",
            "memory.swap.current": "9\n",
            "memory.stat": "anon 60\nfile 500\ninactive_file 200\npgfault 7\n",
            "memory.events": "oom 1\noom_kill 3\n",
            "io.stat": "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
            "pids.current": "4\n",
            "pids.max": "100\n",
        },
    )
    group = locate([place])
    assert group == Group(unified=place)
    assert processor_time(group) == 5_000_000_000
    found = values(of_group(group, {}))
    assert found[("cpu_user_seconds_total",)] == 3
    assert (found[("memory_working_set_bytes",)], found[("memory_max_usage_bytes",)]) == (800, 3000)
    assert found[("fs_reads_bytes_total", "8:0")] == 4096
    assert (found[("threads",)], found[("threads_max",)]) == (4, 100)
    assert found[("oom_events_total",)] == 3


def test_a_group_that_is_gone_has_no_values(tmp_path: Path) -> None:
    assert locate([str(tmp_path / "absent")]) is None
    assert processor_time(Group(cpuacct=str(tmp_path / "absent"))) is None


def test_limits_of_a_spec() -> None:
    spec = default_spec("k8s.io", "id")
    spec["linux"]["resources"] = {"cpu": {"shares": 5}, "memory": {"limit": 100, "swap": -1}}
    spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 9, "soft": 8}]
    assert list(limits_of(spec)) == [
        Value("container_ulimits_soft", 8, ("RLIMIT_NOFILE",)),
        Value("container_spec_cpu_shares", 5),
        Value("container_spec_memory_limit_bytes", 100),
        Value("container_spec_memory_swap_limit_bytes", 0),
    ]


def test_one_interface_counts() -> None:
    interfaces = [Interface("eth0", received=5, receive_drops=1, send_errors=2), Interface("eth1", received=9)]
    found = values(list(of_interface(interfaces, "eth0")))
    assert found[("network_receive_bytes_total", "eth0")] == 5
    assert found[("network_receive_packets_dropped_total", "eth0")] == 1
    assert found[("network_transmit_errors_total", "eth0")] == 2
    assert len(found) == 8


def test_names_of_devices(tmp_path: Path) -> None:
    table = tmp_path / "partitions"
    table.write_text("major minor  #blocks  name\n\n 254        0    1024 vda\n 254        0    1024 other\n")
    assert block_devices(str(table)) == {"254:0": "/dev/vda"}


def test_samples_are_taken_only_while_somebody_asks(tmp_path: Path) -> None:
    place = written(tmp_path / "cpuacct", {"cpuacct.usage": "0\n"})
    asked = 0

    async def groups() -> dict[str, Group]:
        nonlocal asked
        asked += 1
        return {"one": Group(cpuacct=place)}

    async def scenario() -> None:
        sampler = Sampler(groups, period=0.01, patience=0.2)
        await asyncio.sleep(0.05)
        assert not asked
        sampler.ask()
        assert sampler.rate("one") is None
        while asked < 3:
            await asyncio.sleep(0.01)
        while sampler.running:
            await asyncio.sleep(0.01)
        before = asked
        await asyncio.sleep(0.05)
        assert (asked, sampler.rate("one")) == (before, None)
        sampler.ask()
        await sampler.stop()
        assert not sampler.running

    asyncio.run(scenario())


def test_a_rate_is_what_the_last_two_samples_say(tmp_path: Path) -> None:
    place = written(tmp_path / "cpuacct", {"cpuacct.usage": "0\n"})

    async def groups() -> dict[str, Group]:
        return {"one": Group(cpuacct=place), "gone": Group(cpuacct=str(tmp_path / "absent"))}

    async def scenario() -> None:
        sampler = Sampler(groups, period=1, patience=1)
        await sampler.sample()
        assert sampler.rate("one") is None
        began = time.monotonic()
        await asyncio.sleep(0.15)
        written(tmp_path / "cpuacct", {"cpuacct.usage": "100000000\n"})
        await sampler.sample()
        took = time.monotonic() - began
        rate = sampler.rate("one")
        assert rate is not None
        assert 0.09e9 / took <= rate <= 0.1e9 / 0.14
        assert sampler.rate("gone") is None

    asyncio.run(scenario())


def test_calls_take_turns() -> None:
    async def scenario() -> None:
        turns, began = Turns(2), []

        async def one() -> None:
            async with turns.next():
                began.append(time.monotonic())

        await asyncio.gather(*(one() for _ in range(3)))
        assert began[2] - began[0] >= 0.99

    asyncio.run(scenario())


def test_a_container_that_was_not_measured_yet_has_a_file_system() -> None:
    """Sizes are measured now and then; the file system is there from the start."""
    none = Measured(0, 0, 0, {})
    found = values(list(disk_values("new", os.statvfs("/"), none)))
    assert (found["fs_usage_bytes", "/"], found["fs_inodes_total", "/"]) == (0, 0)
    assert found["fs_limit_bytes", "/"] > 0 and ("fs_inodes_free", "/") in found
    known = Measured(0, 0, 0, {"old": Usage(3, 4096)})
    assert (
        values(list(disk_values("old", os.statvfs("/"), known)))["fs_usage_bytes", "/"] == known.snapshots["old"].size
    )
