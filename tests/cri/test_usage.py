"""Usage is read from control groups of both versions as containerd reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.containers.info import plain
from windlass_cri.stats import cgroups, stats
from windlass_cri.stats.cgroups import Usage, measure, of_pod, oom_kills, slice_path
from windlass_cri.stats.interfaces import Interface, read_interfaces
from windlass_cri.stats.sampler import Sample
from windlass_oci.defaults import default_spec


def written(directory: Path, files: dict[str, str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


V1_MEMORY = {
    "memory.usage_in_bytes": "1000\n",
    "memory.limit_in_bytes": "4000\n",
    "memory.stat": "total_inactive_file 300\ntotal_rss 50\ntotal_pgfault 7\ntotal_pgmajfault 2\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
}
V2 = {
    "cgroup.controllers": "cpu memory pids\n",
    "cpu.stat": "usage_usec 5\nuser_usec 3\n",
    "memory.current": "1000\n",
    "memory.max": "max\n",
    "memory.stat": "anon 60\ninactive_file 2000\npgfault 7\npgmajfault 2\n",
    "memory.events": "oom 1\noom_kill 3\n",
    "memory.pressure": "some avg10=1.50 avg60=0.20 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 total=5\n",
    "pids.current": "4\n",
}


def test_version_1(tmp_path: Path) -> None:
    places = [
        written(tmp_path / "memory", V1_MEMORY),
        written(tmp_path / "cpu", {"cpuacct.usage": "123456\n"}),
        written(tmp_path / "pids", {"pids.current": "4\n"}),
    ]
    usage = measure([*map(str, places), str(tmp_path / "absent")])
    assert usage is not None
    assert usage.memory is not None
    assert (usage.cpu, usage.pids) == (123456, 4)
    assert (usage.memory.usage, usage.memory.working_set, usage.memory.available) == (1000, 700, 3300)
    assert (usage.memory.rss, usage.memory.faults, usage.memory.major_faults) == (50, 7, 2)
    assert oom_kills([str(each) for each in places]) == 2


def test_version_2(tmp_path: Path) -> None:
    place = written(tmp_path / "group", V2)
    usage = measure([str(place)])
    assert usage is not None
    assert usage.memory is not None
    assert (usage.cpu, usage.pids) == (5000, 4)
    assert (usage.memory.working_set, usage.memory.available) == (0, 0)
    assert usage.memory.pressure is not None
    assert usage.memory.pressure["some"] == {"avg10": 1.5, "avg60": 0.2, "avg300": 0.0, "total": 77}
    assert usage.io_pressure is None
    assert oom_kills([str(place)]) == 3


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    assert measure([str(tmp_path / "absent")]) is None
    assert measure([]) is None
    assert oom_kills([str(tmp_path / "absent")]) == 0


def test_no_limit_of_version_1(tmp_path: Path) -> None:
    place = written(tmp_path / "memory", {**V1_MEMORY, "memory.limit_in_bytes": "9223372036854771712\n"})
    usage = measure([str(place)])
    assert usage is not None
    assert usage.memory is not None
    assert usage.memory.available == 0


def test_where_groups_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [("/sys/fs/cgroup/memory", "cgroup", "/sys/fs/cgroup/memory/own")]
    monkeypatch.setattr(cgroups, "hierarchies", lambda: found)
    assert slice_path("kubepods-burstable-pod1.slice") == (
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"
    )
    assert of_pod("/kubepods/pod1") == ["/sys/fs/cgroup/memory/kubepods/pod1"]
    assert of_pod("/x/kubepods-pod1.slice") == ["/sys/fs/cgroup/memory/kubepods.slice/kubepods-pod1.slice"]
    assert of_pod("/../../etc/x") == ["/sys/fs/cgroup/memory/etc/x"]
    assert of_pod("") == []
    spec = default_spec("k8s.io", "id")
    spec["linux"]["cgroupsPath"] = "kubepods-a.slice:cri-containerd:id"
    assert cgroups.groups("id", spec) == [
        "/sys/fs/cgroup/memory/kubepods.slice/kubepods-a.slice/cri-containerd-id.scope"
    ]


def test_how_busy_a_processor_is_needs_two_samples() -> None:
    first = Sample(0, 1_000)
    assert first.rate is None
    second = first.next(1_000_000_000, 500_001_000)
    assert second.rate == 500_000_000
    assert second.next(1_000_000_001, 500_001_000) is second
    assert second.next(2_000_000_000, 0).rate is None


def test_usage_as_messages(tmp_path: Path) -> None:
    usage = measure([str(written(tmp_path / "group", V2))])
    assert isinstance(usage, Usage)
    item = cri.ContainerStats()
    stats._memory(item.memory, 5, usage.memory)  # type: ignore[arg-type] # the group has a memory controller
    assert item.memory.timestamp == 5
    assert item.memory.usage_bytes.value == 1000
    assert item.memory.HasField("available_bytes")
    assert item.memory.rss_bytes.value == 60
    assert (item.memory.psi.Some.Total, item.memory.psi.Some.Avg10) == (77_000, 1.5)
    assert item.memory.psi.Full.Total == 5000


def test_interfaces_but_loopback(tmp_path: Path) -> None:
    table = tmp_path / "dev"
    table.write_text(
        "Inter-|   Receive  |  Transmit\n face |bytes ...\n"
        "    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
        "  eth0: 100 2 3 0 0 0 0 0 400 5 6 0 0 0 0 0\n"
    )
    assert read_interfaces(str(table)) == [
        Interface("eth0", received=100, received_packets=2, receive_errors=3, sent=400, sent_packets=5, send_errors=6)
    ]


def test_messages_as_go_writes_them() -> None:
    config = cri.ContainerConfig(labels={"a": "b"}, tty=True)
    config.envs.add(key="K", value=b"v")
    config.linux.security_context.run_as_user.value = 1 << 40
    config.linux.security_context.namespace_options.pid = cri.CONTAINER
    assert plain(config) == {
        "envs": [{"key": "K", "value": "dg=="}],
        "labels": {"a": "b"},
        "tty": True,
        "linux": {
            "security_context": {"run_as_user": {"value": 1 << 40}, "namespace_options": {"pid": 1}},
        },
    }
