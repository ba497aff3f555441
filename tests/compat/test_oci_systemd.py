"""`windlass-oci` and runc with control groups by a real systemd, which is process 1 of a host of its own."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat import systemd_host
from compat.cri_daemon import CriDaemon, require_cri_tools
from compat.machines import Machine
from compat.scratch_daemon import WINDLASSD
from compat.systemd_host import SystemdHost
from oci_runtime.bundles import Spec, rootfs, spec

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_conformance.boxes import BUSYBOX

pytestmark = [
    pytest.mark.skipif(bool(systemd_host.reason()), reason=systemd_host.reason() or "-"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed; apt-get install runc"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox is not installed; apt-get install busybox-static"),
]
PROGRAMS = {"runc": ["runc"], "windlass-oci": [sys.executable, "-m", "windlass_oci_runtime.cli.main"]}
SLICE = "kubepods-burstable-pod1.slice"
INNER = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"
RESOURCES: Spec = {
    "memory": {"limit": 64 << 20},
    "cpu": {"shares": 512, "quota": 12_345, "period": 50_000},
    "pids": {"limit": 40},
    "devices": [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
    ],
}
PROPERTIES = (
    *("Slice", "Delegate", "DefaultDependencies", "MemoryAccounting", "CPUAccounting", "TasksAccounting", "Transient"),
    *("BlockIOAccounting", "IOAccounting", "MemoryLimit", "CPUShares", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec"),
    *("TasksMax", "DevicePolicy", "ActiveState", "SubState", "ControlGroup", "TimeoutStopUSec", "CollectMode"),
)
FILES = {
    "memory": ("memory.limit_in_bytes",),
    "cpu": ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "pids": ("pids.max",),
    "devices": ("devices.list",),
}
LIMITS = ("--memory", "32m", "--cpu-share", "300", "--cpu-quota", "23456", "--pids-limit", "9")
TUN = "c 10:200 rwm"
"""runc 1.1 allows it; the specification does not."""


@pytest.fixture(scope="module", params=[1, 2], ids=["version 1", "version 2"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdHost]:
    directory = tmp_path_factory.mktemp("systemd")
    rootfs(directory / "b/rootfs")
    try:
        host = SystemdHost(directory, request.param)
    except RuntimeError as error:
        pytest.skip(str(error))
    yield host
    host.stop()
    assert host.left("*") == []


class Side:
    """A runtime's program on the host."""

    def __init__(self, host: SystemdHost, name: str) -> None:
        self.host = host
        self.name = name
        self.unit = f"test-{name}.scope"

    def run(self, verb: str, *words: str) -> str:
        """Run a command, which must succeed, and return what it prints."""
        done = self.attempt(verb, *words)
        assert done[0] == 0, done
        return done[1]

    def attempt(self, verb: str, *words: str) -> tuple[int, str, str]:
        program = [*PROGRAMS[self.name], "--root", f"/run/{self.name}", "--systemd-cgroup", verb]
        done = self.host.run(*program, *words)
        return done.returncode, done.stdout, done.stderr

    def start(self, annotations: dict[str, str] | None = None) -> None:
        self.write(annotations)
        self.run("run", "-d", "-b", str(self.bundle), self.name)

    def write(self, annotations: dict[str, str] | None = None, path: str = "") -> None:
        resources = RESOURCES if self.host.version == 1 else {"devices": RESOURCES["devices"], "cpu": {}}
        document = spec("sleep", "1000", resources=resources, cgroupsPath=path or f"{SLICE}:test:{self.name}")
        document["annotations"] = annotations or {}
        (self.bundle / "config.json").write_text(json.dumps(document))

    @property
    def bundle(self) -> Path:
        return self.host.directory / "b"

    def files(self) -> dict[str, set[str]]:
        return {
            name: {*(self.host.group(controller, f"{INNER}/{self.unit}") / name).read_text().splitlines()} - {TUN}
            for controller, names in FILES.items()
            for name in names
        }

    def end(self) -> None:
        self.attempt("delete", "-f", self.name)


@pytest.fixture
def ours(host: SystemdHost) -> Iterator[Side]:
    side = Side(host, "windlass-oci")
    yield side
    side.end()
    assert host.left(side.unit) == []


@pytest.fixture
def runc(host: SystemdHost) -> Iterator[Side]:
    side = Side(host, "runc")
    yield side
    side.end()


def test_a_scope_is_what_runc_makes_of_it(ours: Side, runc: Side) -> None:
    annotations = {"org.systemd.property.TimeoutStopSec": "uint64 7", "org.systemd.property.CollectMode": "'inactive'"}
    shown = []
    for side in (ours, runc):
        side.start(annotations)
        found = side.host.show(side.unit, *PROPERTIES)
        shown.append({name: text.replace(side.name, "NAME") for name, text in found.items()})
    assert shown[0] == shown[1]
    assert shown[0]["SubState"] == "running"
    assert shown[0]["Delegate"] == "yes"
    assert shown[0]["ControlGroup"].endswith(f"/{INNER}/test-NAME.scope")
    if ours.host.version == 1:
        assert ours.files() == runc.files()


def test_an_update_reaches_systemd_and_the_files(ours: Side, runc: Side) -> None:
    if ours.host.version == 2:
        pytest.skip("version 2 has no controller of these limits on this machine")
    shown = []
    for side in (ours, runc):
        side.start()
        side.run(
            "update", "--memory", "32m", "--cpu-share", "300", "--cpu-quota", "23456", "--pids-limit", "9", side.name
        )
        shown.append(side.host.show(side.unit, "MemoryLimit", "CPUShares", "CPUQuotaPerSecUSec", "TasksMax"))
    assert shown[0] == shown[1]
    assert shown[0]["MemoryLimit"] == str(32 << 20)
    assert ours.files() == runc.files()
    assert ours.files()["cpu.cfs_quota_us"] == {"23456"}


def test_limits_survive_a_reload_of_systemd(ours: Side) -> None:
    if ours.host.version == 2:
        pytest.skip("version 2 has no controller of these limits on this machine")
    ours.start()
    before = ours.files()
    assert ours.host.run("systemctl", "daemon-reload").returncode == 0
    after = ours.files()
    assert after["memory.limit_in_bytes"] == before["memory.limit_in_bytes"]
    assert after["pids.max"] == before["pids.max"]


def test_a_deleted_container_leaves_no_unit(ours: Side) -> None:
    ours.start()
    ours.run("exec", ours.name, "true")
    ours.run("pause", ours.name)
    assert json.loads(ours.run("state", ours.name))["status"] == "paused"
    ours.run("resume", ours.name)
    assert json.loads(ours.run("events", "--stats", ours.name))["type"] == "stats"
    ours.run("delete", "-f", ours.name)
    assert ours.host.show(ours.unit, "LoadState") == {"LoadState": "not-found"}
    assert ours.host.left(ours.unit) == []


def test_all_processes_are_in_the_scope(ours: Side) -> None:
    ours.start()
    ours.run("exec", "-d", ours.name, "sleep", "1000")
    pids = json.loads(ours.run("ps", "-f", "json", ours.name))
    assert len(pids) == 2
    for pid in pids:
        groups = ours.host.run("cat", f"/proc/{pid}/cgroup").stdout.splitlines()
        ending = f"/{INNER}/{ours.unit}"
        wanted = groups if ours.host.version == 1 else [each for each in groups if each.startswith("0::")]
        assert [each for each in wanted if not each.endswith(ending)] == []
    assert "windlass-scope" not in ours.host.run("ps", "-A", "-o", "comm").stdout


def test_the_default_is_the_system_slice(ours: Side) -> None:
    ours.write(path="::plain")
    ours.run("run", "-d", "-b", str(ours.bundle), ours.name)
    assert ours.host.show("-plain.scope", "Slice") == {"Slice": "system.slice"}


def test_a_unit_that_exists_is_another_containers(ours: Side) -> None:
    ours.start()
    code, _, error = ours.attempt("run", "-d", "-b", str(ours.bundle), "second")
    assert code == 1
    assert f"cannot start unit {ours.unit}: systemd says: Unit {ours.unit} was already loaded" in error
    assert error.count("\n") == 1
    assert json.loads(ours.run("state", ours.name))["status"] == "running"


def test_a_property_that_systemd_refuses_makes_no_container(ours: Side) -> None:
    ours.write({"org.systemd.property.CollectMode": "'sometimes'"})
    code, _, error = ours.attempt("run", "-d", "-b", str(ours.bundle), ours.name)
    assert (code, error.count("\n")) == (1, 1)
    assert f"cannot start unit {ours.unit}: systemd says: " in error
    assert ours.host.left(ours.unit) == []
    assert ours.run("list", "-q") == ""
    assert "windlass-scope" not in ours.host.run("ps", "-A", "-o", "comm").stdout


def test_a_systemd_that_does_not_answer_is_given_up(ours: Side) -> None:
    if ours.host.version == 2:
        pytest.skip("once is enough of 20 seconds")
    ours.write()
    ours.host.hold()
    try:
        code, _, error = ours.attempt("run", "-d", "-b", str(ours.bundle), ours.name)
    finally:
        ours.host.go_on()
    assert code == 1
    assert f"cannot start unit {ours.unit}: systemd did not answer in 20 s; try again" in error
    assert ours.run("list", "-q") == ""


def test_the_shim_puts_containers_into_scopes(host: SystemdHost) -> None:
    """As the kubelet has it: a pod's slice, our runtime in the shim, and the option SystemdCgroup."""
    if host.version == 2:
        pytest.skip("version 2 has no controller of ctr's limits on this machine")
    if shutil.which("ctr") is None:
        pytest.skip("ctr is not installed; apt-get install containerd")
    directory = host.directory / "daemon"
    directory.mkdir()
    machine = Machine("windlass", directory)
    machine.enter(*host.command())
    machine.start()

    def ctr(*words: str) -> None:
        # On the host, whose /run has the streams.
        done = host.run(*machine.command(*words))
        assert done.returncode == 0, done.stderr

    try:
        flags = ["--runc-binary", "windlass-oci", "--runc-systemd-cgroup", "--cgroup", f"{SLICE}:cri-containerd:pod"]
        root = ["--rootfs", str(host.directory / "b/rootfs"), "pod", "sleep", "1000"]
        ctr("run", "-d", "--memory-limit", str(64 << 20), *flags, *root)
        unit = "cri-containerd-pod.scope"
        found = host.show(unit, "Slice", "SubState", "ControlGroup")
        assert found == {"Slice": SLICE, "SubState": "running", "ControlGroup": f"/{INNER}/{unit}"}
        ctr("tasks", "exec", "--exec-id", "e", "pod", "true")
        ctr("tasks", "pause", "pod")
        ctr("tasks", "resume", "pod")
        ctr("tasks", "delete", "-f", "pod")
        assert host.show(unit, "LoadState") == {"LoadState": "not-found"}
        assert host.left(unit) == []
    finally:
        machine.stop()


HANDLER = """
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.own]
runtime_type = "io.windlass.v1"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.own.options]
SystemdCgroup = true
"""


def test_a_pod_of_the_kubelets_is_in_its_slice(host: SystemdHost) -> None:
    if host.version == 2:
        pytest.skip("version 2 has no controller of CRI's limits on this machine")
    require_cri_tools()
    scratch = host.directory / "cri"
    scratch.mkdir()
    daemon = CriDaemon(scratch, more=HANDLER)
    daemon.program = host.command(str(WINDLASSD))
    try:
        daemon.start()
        daemon.load_image()
        config = daemon.pod_config()
        config.linux.cgroup_parent = SLICE
        options = config.linux.security_context.namespace_options
        options.network, options.pid = cri.NODE, cri.CONTAINER
        with daemon.pod(config, "own") as pod:
            settings = daemon.container_config()
            settings.linux.security_context.namespace_options.network = cri.NODE
            settings.linux.resources.memory_limit_in_bytes = 64 << 20
            container = daemon.run_container(pod, settings)
            # A pod without namespaces to keep has no process of its own.
            unit = f"cri-containerd-{container}.scope"
            assert host.show(unit, "Slice", "SubState", "ControlGroup", "MemoryLimit") == {
                "Slice": SLICE,
                "SubState": "running",
                "ControlGroup": f"/{INNER}/{unit}",
                "MemoryLimit": str(64 << 20),
            }
            assert daemon.exec(container, "/bin/echo", "hello") == "hello\n"
        assert host.left("cri-containerd-*.scope") == []
    finally:
        daemon.close()
