"""Control groups: limits of both versions, changes of a running container, pause and resume."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci_runtime.bundles import Box, Runtime, spec

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_linux import cgroups as host
from windlass_oci_runtime import cgroup_v1, cgroup_v2, cgroups, changing, device_filter, ending, state
from windlass_oci_runtime.cgroup_journal import previous
from windlass_oci_runtime.report import Failure

UNIFIED = Path("/sys/fs/cgroup/unified")
version_1 = pytest.mark.skipif(
    all(kind != "cgroup" for _, kind, _ in host.hierarchies()), reason="this host has no control groups of version 1"
)


def nothing(_controller: str, _file: str) -> str:
    return ""


def value(box: Box, controller: str, file: str) -> str:
    place = next(each for each in box.container.read()["cgroups"] if controller in each.split("/")[4].split(","))
    return Path(place, file).read_text().strip()


@pytest.fixture
def box(runtime: Runtime) -> Iterator[Box]:
    box = runtime.create(spec("sleep", "1000", resources={"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}))
    box.start()
    yield box
    box.kill()


@version_1
def test_limits_are_set_and_changed(box: Box) -> None:
    assert value(box, "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert value(box, "pids", "pids.max") == "50"
    changing.update(box.container, {"memory": {"limit": 128 << 20}, "cpu": {"shares": 512, "quota": 20000}})
    assert value(box, "memory", "memory.limit_in_bytes") == str(128 << 20)
    assert (value(box, "cpu", "cpu.shares"), value(box, "cpu", "cpu.cfs_quota_us")) == ("512", "20000")
    assert value(box, "pids", "pids.max") == "50"


@version_1
@pytest.mark.parametrize(
    "wrong",
    [{"cpu": {"shares": 1}}, {"cpu": {"cpus": "0-9999"}}, {"unified": {"memory.max": "1"}}, {"cpu": {"quota": 5}}],
)
def test_limits_that_linux_refuses_change_nothing(box: Box, wrong: dict[str, dict[str, object]]) -> None:
    with pytest.raises((OSError, InvalidArgument)):
        changing.update(box.container, {"pids": {"limit": 70}, **wrong})
    assert value(box, "pids", "pids.max") == "50"
    assert box.container.read()["resources"]["pids"] == {"limit": 50}


@version_1
def test_a_refused_change_also_takes_back_what_was_never_set_before(box: Box) -> None:
    shares, quota = value(box, "cpu", "cpu.shares"), value(box, "cpu", "cpu.cfs_quota_us")
    disk = os.stat("/").st_dev
    throttle = {"major": os.major(disk), "minor": os.minor(disk), "rate": 1 << 20}
    with pytest.raises(OSError, match="cpuset"):
        changing.update(
            box.container,
            {
                "memory": {"limit": 32 << 20, "reservation": 16 << 20, "swappiness": 10},
                "cpu": {"shares": 100, "quota": 30000, "cpus": "0-9999"},
                "blockIO": {"throttleReadBpsDevice": [throttle]},
            },
        )
    assert value(box, "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert int(value(box, "memory", "memory.soft_limit_in_bytes")) > 1 << 50
    assert (value(box, "cpu", "cpu.shares"), value(box, "cpu", "cpu.cfs_quota_us")) == (shares, quota)
    assert "cpu" not in box.container.read()["resources"]


@version_1
def test_a_change_leaves_the_devices_alone_as_runc_does(box: Box) -> None:
    """Kubernetes sends them with each change; to set them anew would take even /dev/null away for a moment."""
    before = value(box, "devices", "devices.list")
    changing.update(box.container, {"devices": [{"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]})
    assert value(box, "devices", "devices.list") == before


@version_1
def test_a_limit_below_what_is_used_says_how_much_that_is(box: Box) -> None:
    with pytest.raises(FailedPrecondition, match=r"unable to set memory limit to 4096 \(current usage: \d+, peak"):
        changing.update(box.container, {"memory": {"limit": 4096}})
    assert value(box, "memory", "memory.limit_in_bytes") == str(64 << 20)


@version_1
def test_too_little_memory_for_init_is_named(runtime: Runtime) -> None:
    with pytest.raises(Failure, match=r"container init was OOM-killed \(memory limit too low\?\)"):
        runtime.create(spec("true", resources={"memory": {"limit": 4096}}))


@pytest.mark.skipif(not (UNIFIED / "cgroup.procs").exists() or os.geteuid() != 0, reason="needs root and version 2")
def test_a_hierarchy_that_is_full_leaves_no_group_in_the_others(runtime: Runtime) -> None:
    above = UNIFIED / f"windlass-oci-{os.getpid()}"
    above.mkdir()
    (above / "cgroup.max.descendants").write_text("0")
    with pytest.raises(OSError, match=r"cannot make a control group for linux\.cgroupsPath") as caught:
        runtime.create(spec("true"), id="full")
    assert caught.value.filename == f"{above}/full"
    assert [place for place, _, _ in host.hierarchies() if os.path.exists(f"{place}/{above.name}/full")] == []


@pytest.mark.parametrize(
    ("file", "text", "new", "expected"),
    [
        ("pids.max", "max\n", "70", "max"),
        ("cpuset.cpus", "\n", "0-1", "\n"),
        ("cpu.max", "max 100000\n", "5000 20000", "max 100000"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "1", "0"),
        ("blkio.throttle.read_bps_device", "8:0 5\n8:16 7\n", "8:16 9", "8:16 7"),
        ("blkio.throttle.read_bps_device", "8:0 5\n", "8:16 9", "8:16 0"),
        ("io.max", "", "8:16 rbps=9", "8:16 rbps=max wbps=max riops=max wiops=max"),
        ("io.weight", "default 100\n8:0 50\n", "200", "100"),
        ("io.bfq.weight", "default 100\n", "8:0 200", "8:0 default"),
        ("net_prio.ifpriomap", "lo 0\neth0 3\n", "eth0 5", "eth0 3"),
    ],
)
def test_what_makes_up_for_a_change(file: str, text: str, new: str, expected: str) -> None:
    assert previous(file, text, new) == expected


def test_wrong_types_are_refused_by_name(box: Box) -> None:
    with pytest.raises(InvalidArgument, match=r"resources\.memory\.limit must be a whole number, not a string"):
        changing.update(box.container, {"memory": {"limit": "64m"}})


def test_who_is_paused_stands_still_and_goes_on(runtime: Runtime) -> None:
    box = runtime.create(spec("sh", "-c", "while true; do echo x >> /ticks; sleep 0.02; done"))
    try:
        box.start()
        ticks = runtime.rootfs / "ticks"
        while not ticks.exists():
            time.sleep(0.01)
        list(changing.pausing(box.container, True))
        assert box.container.status(box.container.read()) == state.PAUSED
        before = ticks.stat().st_size
        time.sleep(0.2)
        assert ticks.stat().st_size == before
        with pytest.raises(FailedPrecondition, match="is paused; resume it first"):
            box.exec(["true"])
        with pytest.raises(FailedPrecondition, match="it is paused, not running"):
            list(changing.pausing(box.container, True))
        list(changing.pausing(box.container, False))
        while ticks.stat().st_size == before:
            time.sleep(0.01)
    finally:
        box.kill()


def test_who_is_paused_is_killed(runtime: Runtime) -> None:
    box = runtime.create(spec("sleep", "1000"))
    box.start()
    list(changing.pausing(box.container, True))
    box.kill()


def test_all_processes_of_a_container_are_killed(runtime: Runtime) -> None:
    """Also where they have no PID namespace that ends with the first."""
    document = spec("sh", "-c", "sleep 1000 & sleep 1000 & wait", namespaces=[{"type": "mount"}])
    box = runtime.create(document)
    box.start()
    while len(cgroups.processes(box.container.read()["cgroups"])) < 3:
        time.sleep(0.01)
    ending.kill(box.container, 9, everybody=True)
    assert box.end() == -9
    assert cgroups.processes(box.container.read()["cgroups"]) == [] if os.path.exists(box.container.directory) else True


@version_1
def test_an_exec_runs_in_a_group_below(box: Box) -> None:
    from windlass.errors import NotFound
    from windlass_oci_runtime.entry import Entry

    with pytest.raises(NotFound, match="control group 'sub' does not exist"):
        Entry(box.container, spec("true")["process"], group="sub")


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"memory": {"limit": -1}}, [("memory.limit_in_bytes", "-1")]),
        (
            {"blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1024}]}},
            [("blkio.weight", "500"), ("blkio.throttle.read_bps_device", "8:0 1024")],
        ),
        ({"network": {"classID": 1048577}}, [("net_cls.classid", "1048577")]),
        ({"network": {"priorities": [{"name": "eth0", "priority": 5}]}}, [("net_prio.ifpriomap", "eth0 5")]),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, [("hugetlb.2MB.limit_in_bytes", "0")]),
        ({"rdma": {"mlx5_1": {"hcaHandles": 3}}}, [("rdma.max", "mlx5_1 hca_handle=3")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"memory": {"swappiness": -1, "disableOOMKiller": True}}, [("memory.oom_control", "1")]),
        (
            {"devices": [{"allow": False}, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}]},
            [("devices.deny", "a *:* rwm"), ("devices.allow", "c 1:3 r")],
        ),
    ],
)
def test_files_of_version_1(resources: dict[str, object], expected: list[tuple[str, str]]) -> None:
    found = [(file, text) for _, file, text in cgroup_v1.settings(resources, nothing)]
    assert found[: len(expected)] == expected


def test_a_host_that_does_not_count_swap_takes_all_of_it_or_none(tmp_path: Path) -> None:
    """As runc: Kubernetes asks for no swap with each container."""
    (tmp_path / "memory.max").touch()
    asked = [cgroup_v2.is_without_swap(str(tmp_path), "memory.swap.max", text) for text in ("0", "max", "4096")]
    assert asked == [True, True, False]


def test_no_limit_of_memory_is_none_of_swap_where_swap_is_counted() -> None:
    found = [(file, text) for _, file, text in cgroup_v1.settings({"memory": {"limit": -1}}, lambda *_: "1000")]
    assert found == [("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "-1")]


def test_the_larger_of_memory_and_swap_is_set_first() -> None:
    """Linux refuses a sum below memory at each moment."""

    def files(limit: int) -> list[str]:
        wanted = {"memory": {"limit": limit, "swap": limit * 2}}
        return [file for _, file, _ in cgroup_v1.settings(wanted, lambda *_: "1000")]

    both = ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
    assert (files(2000), files(100)) == (both, both[::-1])


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (
            {"memory": {"limit": 100, "swap": 300, "reservation": 50}},
            ["memory.swap.max 200", "memory.max 100", "memory.low 50"],
        ),
        ({"memory": {"limit": -1}}, ["memory.swap.max max", "memory.max max"]),
        ({"cpu": {"shares": 1024, "quota": 50000}}, ["cpu.weight 100", "cpu.max 50000 100000"]),
        ({"cpu": {"shares": 2}}, ["cpu.weight 1"]),
        ({"cpu": {"shares": 262144}}, ["cpu.weight 10000"]),
        ({"cpu": {"quota": -1, "period": 20000}}, ["cpu.max max 20000"]),
        ({"cpu": {"idle": 1, "shares": 100}}, ["cpu.idle 1"]),
        ({"cpu": {"cpus": "0-1", "mems": "0"}}, ["cpuset.cpus 0-1", "cpuset.mems 0"]),
        ({"blockIO": {"weight": 1000}}, ["io.weight 10000"]),
        (
            {"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 9}]}},
            ["io.max 8:16 wiops=9"],
        ),
        (
            {"unified": {"memory.high": "max", "io.max": "8:0 rbps=1\n8:16 rbps=2"}},
            ["memory.high max", "io.max 8:0 rbps=1", "io.max 8:16 rbps=2"],
        ),
    ],
)
def test_files_of_version_2(resources: dict[str, object], expected: list[str]) -> None:
    assert [f"{file} {text}" for file, text in cgroup_v2.settings(resources)] == expected


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"network": {"classID": 5}}, "network.classID needs control groups of version 1"),
        ({"memory": {"limit": 100, "swap": 50}}, "memory.swap 50 is memory and swap together"),
        ({"unified": {"../memory.max": "1"}}, "is not a file of a control group"),
    ],
)
def test_what_version_2_cannot_limit_is_refused(resources: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        list(cgroup_v2.settings(resources))


@pytest.mark.skipif(not (UNIFIED / "cgroup.procs").exists() or os.geteuid() != 0, reason="needs root and version 2")
def test_a_device_filter_lets_only_what_is_allowed_through() -> None:
    """The last rule counts; a second filter takes the place of the first."""
    group = UNIFIED / f"windlass-oci-{os.getpid()}"
    group.mkdir()
    program = f"""
import os
open("{group}/cgroup.procs", "w").write("0")
for path, flags in (("/dev/null", os.O_RDWR), ("/dev/kmsg", os.O_RDONLY), ("/dev/kmsg", os.O_RDWR)):
    try:
        os.close(os.open(path, flags)); print("yes", end=" ")
    except PermissionError:
        print("no", end=" ")
"""
    nothing_else = [{"allow": False, "access": "rwm"}]
    reading = [*nothing_else, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]
    try:
        found = []
        for rules in (nothing_else, reading):
            device_filter.attach(str(group), rules)
            found.append(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.split())
        assert found == [["yes", "no", "no"], ["yes", "yes", "no"]]
    finally:
        group.rmdir()


def test_a_group_with_processes_is_refused_and_stays(runtime: Runtime) -> None:
    place = Path(host.groups_at(f"/windlass-oci-{os.getpid()}/taken", "")[0])
    place.mkdir(parents=True)
    stranger = subprocess.Popen(["sleep", "100"])
    try:
        (place / "cgroup.procs").write_text(str(stranger.pid))
        with pytest.raises(FailedPrecondition, match=r"container's cgroup is not empty: 1 process\(es\) found"):
            runtime.create(spec("true", cgroupsPath=f"/windlass-oci-{os.getpid()}/taken"))
        assert place.is_dir()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        place.rmdir()


def test_a_group_that_has_gone_meanwhile_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cgroups.join([str(tmp_path / "gone")])
