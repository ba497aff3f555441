"""The metrics of a cgroup: each number in its field, whatever of the files is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from windlass.errors import NotFound
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


V2 = {
    "pids.current": "3\n",
    "pids.max": "max\n",
    "cpu.stat": "usage_usec 700\nuser_usec 400\nsystem_usec 300\nnr_periods 9\nnr_throttled 2\nthrottled_usec 50\n",
    "memory.stat": "anon 4096\nfile 8192\nslab 12\nthp_collapse_alloc 5\nof_a_later_linux 1\nbroken line\n",
    "memory.current": "20480\n",
    "memory.max": "max\n",
    "memory.swap.current": "1\n",
    "memory.swap.max": "2\n",
    "memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=7\nnonsense\n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.max": "max\n",
    "hugetlb.2MB.events": "max 6\n",
}
V1 = {
    "pids.current": "3\n",
    "pids.max": "max\n",
    "cpuacct.stat": "user 200\nsystem 100\n",
    "cpuacct.usage": "123456789\n",
    "cpuacct.usage_percpu": "7 0 9 \n",
    "cpu.stat": "nr_periods 9\nnr_throttled 2\nthrottled_time 50\n",
    "memory.stat": "cache 1\nrss 4096\ntotal_unevictable 33\n",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.usage_in_bytes": "20480\n",
    "memory.max_usage_in_bytes": "40960\n",
    "memory.failcnt": "8\n",
    "memory.memsw.usage_in_bytes": "20481\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
    "blkio.throttle.io_serviced_recursive": "8:0 Read 5\n8:0 Write 6\nTotal 11\n",
}
HUGETLB_V1 = {
    "hugetlb.2MB.usage_in_bytes": "2097152\n",
    "hugetlb.2MB.max_usage_in_bytes": "4194304\n",
    "hugetlb.2MB.failcnt": "6\n",
}


def write(directory: Path, files: dict[str, str]) -> None:
    """Write a cgroup's files."""
    for name, text in files.items():
        (directory / name).write_text(text)


def test_version_2_has_each_number_in_its_field(tmp_path: Path) -> None:
    """Keys of a later Linux, and lines that are none, do not disturb the others; "max" is the largest number."""
    write(tmp_path, V2)
    found = v2.Metrics.FromString(cgroups.metrics_v2(str(tmp_path)))
    assert (found.pids.current, found.pids.limit) == (3, cgroups.UNLIMITED)
    cpu = found.cpu
    assert (cpu.usage_usec, cpu.user_usec, cpu.system_usec, cpu.nr_periods, cpu.nr_throttled) == (700, 400, 300, 9, 2)
    memory = found.memory
    assert (memory.anon, memory.file, memory.slab, memory.thp_collapse_alloc) == (4096, 8192, 12, 5)
    assert (memory.usage, memory.usage_limit) == (20480, cgroups.UNLIMITED)
    assert (memory.swap_usage, memory.swap_limit) == (1, 2)
    assert (found.memory_events.high, found.memory_events.oom, found.memory_events.oom_kill) == (1, 3, 4)
    assert [(each.major, each.minor, each.rbytes, each.wios) for each in found.io.usage] == [
        (8, 0, 10, 2),
        (8, 16, 7, 0),
    ]
    (huge,) = found.hugetlb
    assert (huge.pagesize, huge.current, huge.max, huge.failcnt) == ("2MB", 2097152, cgroups.UNLIMITED, 6)


def test_version_1_has_each_number_in_its_field(tmp_path: Path) -> None:
    """Times are nanoseconds, a processor that was idle counts, and no limit of pids is 0."""
    write(tmp_path, V1)
    pages = tmp_path / "hugetlb"
    pages.mkdir()
    write(pages, HUGETLB_V1)
    places = dict.fromkeys(("pids", "cpu", "cpuacct", "memory", "blkio"), str(tmp_path))
    found = v1.Metrics.FromString(cgroups.metrics_v1({**places, "hugetlb": str(pages)}))
    assert (found.pids.current, found.pids.limit) == (3, 0)
    tick = 10**9 // os.sysconf("SC_CLK_TCK")
    usage = found.cpu.usage
    assert (usage.total, usage.user, usage.kernel, list(usage.per_cpu)) == (
        123456789,
        200 * tick,
        100 * tick,
        [7, 0, 9],
    )
    assert found.cpu.throttling.throttled_periods == 2
    memory = found.memory
    assert (memory.cache, memory.rss, memory.total_unevictable) == (1, 4096, 33)
    assert (memory.usage.limit, memory.usage.usage, memory.usage.max, memory.usage.failcnt) == (
        9223372036854771712,
        20480,
        40960,
        8,
    )
    assert memory.swap.usage == 20481
    assert found.memory_oom_control.oom_kill == 4
    serviced = found.blkio.io_serviced_recursive
    assert [(each.op, each.major, each.value) for each in serviced] == [("Read", 8, 5), ("Write", 8, 6)]
    (huge,) = found.hugetlb
    assert (huge.usage, huge.max, huge.failcnt, huge.pagesize) == (2097152, 4194304, 6, "2MB")


@pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")
def test_a_process_is_in_its_own_cgroup() -> None:
    """And one that has ended is in none."""
    assert os.getpid() in cgroups.pids(os.getpid())
    with pytest.raises(NotFound, match="cgroup of process 4194303 is gone"):
        cgroups.pids(4194303)


def test_processes_of_cgroups_below_are_the_containers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may have made some for itself."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    for place, text in ((tmp_path, "5\n"), (tmp_path / "a", ""), (tmp_path / "a" / "b", "3\n4\n")):
        (place / "cgroup.procs").write_text(text)
    monkeypatch.setattr(cgroups, "directories", lambda _pid: (str(tmp_path), {}))
    assert cgroups.pids(5) == [3, 4, 5]
