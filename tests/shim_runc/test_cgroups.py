"""What a cgroup's metrics look like to those who read them without looking."""

from __future__ import annotations

from pathlib import Path

from windlass_api.io.containerd.cgroups.v1 import metrics_pb2 as v1
from windlass_api.io.containerd.cgroups.v2 import metrics_pb2 as v2
from windlass_shim_runc import cgroups


def test_messages_are_there_when_all_in_them_is_zero(tmp_path: Path) -> None:
    """As containerd's are; without `throttling`, `docker stats` ends dockerd 20.10."""
    names = ("pids", "cpu", "cpuacct", "memory", "blkio")
    first = v1.Metrics.FromString(cgroups.metrics_v1(dict.fromkeys(names, str(tmp_path))))
    assert all(first.HasField(name) for name in ("pids", "cpu", "memory", "blkio", "memory_oom_control"))
    assert first.cpu.HasField("usage") and first.cpu.HasField("throttling")
    assert all(first.memory.HasField(name) for name in ("usage", "swap", "kernel", "kernel_tcp"))

    second = v2.Metrics.FromString(cgroups.metrics_v2(str(tmp_path)))
    assert all(second.HasField(name) for name in ("pids", "cpu", "memory", "io", "memory_events"))
