"""What becomes of an OCI spec by an adjustment; compared with NRI's own generator in thousands of random cases."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from windlass.errors import InvalidArgument
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.applying import Unresolved, apply, apply_resources
from windlass_nri.propagation import propagation_of
from windlass_oci.runtime_spec import Spec


def spec() -> Spec:
    return {
        "ociVersion": "1.2.0",
        "process": {
            "args": ["sh"],
            "env": ["PATH=/bin", "A=0", "B=0"],
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}],
        },
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/a/b", "source": "/old"}],
        "annotations": {"a": "0", "b": "0"},
        "linux": {
            "resources": {"cpu": {"shares": 7}, "hugepageLimits": [{"pageSize": "2MB", "limit": 1}]},
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/old"}],
            "devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 2}],
            "sysctl": {"a": "0"},
            "intelRdt": {"closID": "old", "schemata": ["x"]},
        },
    }


def applied(adjustment: nri.ContainerAdjustment) -> Spec:
    changed = spec()
    apply(changed, adjustment)
    return changed


def test_an_empty_adjustment_changes_nothing() -> None:
    """Not even the order of what is there."""
    assert applied(nri.ContainerAdjustment()) == spec()


def test_environment_and_arguments() -> None:
    """Variables change in their places, new ones come last, removed ones go."""
    adjust = nri.ContainerAdjustment(args=["top", "-d"])
    for key, value in (("A", "1"), ("-B", ""), ("C", "a=b")):
        adjust.env.add(key=key, value=value)
    process = applied(adjust)["process"]
    assert (process["env"], process["args"]) == (["PATH=/bin", "A=1", "C=a=b"], ["top", "-d"])


def test_annotations_and_sysctls() -> None:
    """A removal counts before what is set, in whatever order they come."""
    adjust = nri.ContainerAdjustment(annotations={"b": "1", "-a": "", "-b": ""})
    adjust.linux.sysctl.update({"c": "1", "-a": ""})
    changed = applied(adjust)
    assert changed["annotations"] == {"b": "1"}
    assert changed["linux"]["sysctl"] == {"c": "1"}


def test_mounts_are_replaced_removed_and_sorted() -> None:
    """A mount comes after those that it is below."""
    adjust = nri.ContainerAdjustment()
    adjust.mounts.add(destination="/a/b", source="/new", type="bind", options=["rbind", "ro"])
    adjust.mounts.add(destination="-/proc")
    adjust.mounts.add(destination="/a", source="/x")
    assert applied(adjust)["mounts"] == [
        {"destination": "/a", "source": "/x"},
        {"destination": "/a/b", "source": "/new", "type": "bind", "options": ["rbind", "ro"]},
    ]


@pytest.mark.parametrize(
    ("asked", "found", "root"),
    [("rshared", "rshared", "rshared"), ("rslave", "rshared", "rslave"), ("rslave", "rslave", "rslave")],
)
def test_propagation_needs_a_root_that_propagates(asked: str, found: str, root: str) -> None:
    """The root of the container follows the mount that propagates most."""
    adjust = nri.ContainerAdjustment()
    adjust.mounts.add(destination="/a", source="/x", options=[asked])
    changed = spec()
    apply(changed, adjust, lambda path: found)
    assert changed["linux"]["rootfsPropagation"] == root


@pytest.mark.parametrize(("asked", "found"), [("rshared", ""), ("rshared", "rslave"), ("rslave", "")])
def test_a_mount_that_cannot_propagate_is_refused(asked: str, found: str) -> None:
    """The error names the path and what it is."""
    adjust = nri.ContainerAdjustment()
    adjust.mounts.add(destination="/a", source="/x", options=[asked])
    with pytest.raises(InvalidArgument, match=f'path "/x" mount propagation is "{found}", not "rshared'):
        apply(spec(), adjust, lambda path: found)


def test_propagation_is_that_of_the_mount_below_a_path(tmp_path: Path) -> None:
    """A path that does not exist is on its nearest parent's mount."""
    assert propagation_of(str(tmp_path / "missing")) == propagation_of(str(tmp_path))
    assert propagation_of("/proc") in ("rshared", "rslave", "")


def test_devices_come_with_their_rules() -> None:
    """A removed device goes, a new one is allowed in the control group."""
    adjust = nri.ContainerAdjustment()
    adjust.linux.devices.add(path="-/dev/a")
    block = adjust.linux.devices.add(path="/dev/b", type="b", major=8, minor=1)
    block.file_mode.value, block.uid.value = 0o600, 5
    linux = applied(adjust)["linux"]
    assert linux["devices"] == [{"path": "/dev/b", "type": "b", "major": 8, "minor": 1, "fileMode": 0o600, "uid": 5}]
    assert linux["resources"]["devices"] == [{"allow": True, "type": "b", "major": 8, "minor": 1, "access": "rwm"}]


def test_namespaces() -> None:
    """One is replaced in its place, one added, one removed; one that does not exist is refused."""
    adjust = nri.ContainerAdjustment()
    for type, path in (("network", "/new"), ("-pid", ""), ("time", "")):
        adjust.linux.namespaces.add(type=type, path=path)
    assert applied(adjust)["linux"]["namespaces"] == [{"type": "network", "path": "/new"}, {"type": "time"}]
    adjust.linux.namespaces.add(type="net")
    with pytest.raises(InvalidArgument, match="namespace 'net' is not known"):
        applied(adjust)


def test_resources() -> None:
    """Every field that a plugin can set arrives; what it does not set stays."""
    wanted = nri.LinuxResources(unified={"memory.high": "9"})
    for name in ("quota", "period", "realtime_runtime", "realtime_period"):
        getattr(wanted.cpu, name).value = 3
    wanted.cpu.cpus, wanted.cpu.mems = "0-1", "0"
    for name in ("reservation", "kernel", "kernel_tcp", "swappiness"):
        getattr(wanted.memory, name).value = 4
    wanted.memory.disable_oom_killer.value = wanted.memory.use_hierarchy.value = True
    wanted.hugepage_limits.add(page_size="2MB", limit=2)
    wanted.pids.limit = -1
    wanted.devices.add(allow=True, type="c", access="r").major.value = 7
    changed = spec()
    assert apply_resources(changed, wanted) == Unresolved()
    assert changed["linux"]["resources"] == {
        "cpu": {
            "shares": 7,
            "quota": 3,
            "period": 3,
            "realtimeRuntime": 3,
            "realtimePeriod": 3,
            "cpus": "0-1",
            "mems": "0",
        },
        "memory": {
            "reservation": 4,
            "kernel": 4,
            "kernelTCP": 4,
            "swappiness": 4,
            "disableOOMKiller": True,
            "useHierarchy": True,
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 2}],
        "unified": {"memory.high": "9"},
        "pids": {"limit": -1},
        "devices": [{"allow": True, "type": "c", "major": 7, "access": "r"}],
    }


@pytest.mark.parametrize(("swap", "expected"), [(None, 5), (9, 9)])
def test_a_memory_limit_includes_swap(swap: int | None, expected: int) -> None:
    """As NRI has it, unless the plugin says how much swap there may be."""
    wanted = nri.LinuxResources()
    wanted.memory.limit.value = 5
    if swap is not None:
        wanted.memory.swap.value = swap
    changed = spec()
    apply_resources(changed, wanted)
    assert changed["linux"]["resources"]["memory"] == {"limit": 5, "swap": expected}


def test_the_process() -> None:
    """Limits replace those of their type, since a runtime refuses two; scores, priorities and schedulers arrive."""
    adjust = nri.ContainerAdjustment()
    adjust.rlimits.add(type="RLIMIT_NOFILE", hard=5, soft=3)
    adjust.linux.oom_score_adj.value = -10
    adjust.linux.io_priority.CopyFrom(nri.LinuxIOPriority(priority=3, **{"class": nri.IOPRIO_CLASS_BE}))
    scheduler = nri.LinuxScheduler(policy=nri.SCHED_BATCH, nice=5, flags=[nri.SCHED_FLAG_RECLAIM])
    adjust.linux.scheduler.CopyFrom(scheduler)
    process = applied(adjust)["process"]
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "hard": 5, "soft": 3}]
    assert process["oomScoreAdj"] == -10
    assert process["ioPriority"] == {"class": "IOPRIO_CLASS_BE", "priority": 3}
    assert process["scheduler"] == {"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RECLAIM"]}


def test_the_rest_of_linux() -> None:
    """Control group, system calls, network devices, memory policy."""
    adjust = nri.ContainerAdjustment()
    linux = adjust.linux
    linux.cgroups_path = "/x"
    linux.seccomp_policy.default_action = "SCMP_ACT_ERRNO"
    linux.seccomp_policy.default_errno.value = 38
    call = linux.seccomp_policy.syscalls.add(names=["read"], action="SCMP_ACT_ALLOW")
    call.args.add(index=1, value=2, op="SCMP_CMP_EQ")
    linux.net_devices["eth1"].name = "net0"
    linux.net_devices.get_or_create("-eth2")
    linux.memory_policy.CopyFrom(nri.LinuxMemoryPolicy(mode=nri.MPOL_BIND, nodes="0", flags=[nri.MPOL_F_STATIC_NODES]))
    changed = applied(adjust)["linux"]
    assert changed["cgroupsPath"] == "/x"
    assert changed["seccomp"] == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "syscalls": [
            {
                "names": ["read"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    assert changed["netDevices"] == {"eth1": {"name": "net0"}}
    assert changed["memoryPolicy"] == {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}


def test_hooks_are_added() -> None:
    """At each point of the container's life."""
    adjust = nri.ContainerAdjustment()
    points = ("prestart", "create_runtime", "create_container", "start_container", "poststart", "poststop")
    for point in points:
        getattr(adjust.hooks, point).add(path=f"/{point}", args=["x"]).timeout.value = 2
    hooks = applied(adjust)["hooks"]
    assert {key: value for key, value in hooks.items() if value} == {
        key: [{"path": f"/{point}", "args": ["x"], "timeout": 2}]
        for key, point in zip(
            ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"),
            points,
            strict=True,
        )
    }


def test_rdt() -> None:
    """Single settings change the container's own, a removal takes all away, an empty class too."""
    adjust = nri.ContainerAdjustment()
    adjust.linux.rdt.enable_monitoring.value = True
    assert applied(adjust)["linux"]["intelRdt"] == {"closID": "old", "schemata": ["x"], "enableMonitoring": True}
    adjust.linux.rdt.Clear()
    adjust.linux.rdt.remove = True
    assert "intelRdt" not in applied(adjust)["linux"]
    adjust = nri.ContainerAdjustment()
    adjust.linux.resources.rdt_class.value = ""
    adjust.linux.resources.rdt_class.SetInParent()
    assert "intelRdt" not in applied(adjust)["linux"]


def test_what_the_runtime_must_resolve_is_returned() -> None:
    """CDI names and classes mean something only by the runtime's configuration."""
    adjust = nri.ContainerAdjustment()
    adjust.CDI_devices.add(name="vendor.com/gpu=0")
    adjust.linux.resources.blockio_class.value = "slow"
    adjust.linux.resources.rdt_class.value = "gold"
    before = spec()
    changed = copy.deepcopy(before)
    assert apply(changed, adjust) == Unresolved(("vendor.com/gpu=0",), "slow", "gold")
    assert changed == before


@pytest.mark.parametrize("field", ["io_priority", "scheduler", "memory_policy"])
def test_numbers_without_a_meaning_are_refused(field: str) -> None:
    """A plugin that is newer than this may send them."""
    adjust = nri.ContainerAdjustment()
    message = getattr(adjust.linux, field)
    setattr(message, {"io_priority": "class", "scheduler": "policy", "memory_policy": "mode"}[field], 99)
    with pytest.raises(InvalidArgument, match="99 is not known"):
        applied(adjust)
