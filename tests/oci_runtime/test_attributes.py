"""What few specifications ask for of a process: scheduling, I/O, memory, personality, keys, clocks, labels."""

from __future__ import annotations

import os
from typing import Any

import pytest
from oci_runtime.bundles import Runtime, Spec, spec

from windlass.errors import FailedPrecondition, InvalidArgument, Unimplemented


def process(document: Spec, **more: object) -> Spec:
    document["process"].update(more)
    return document


def test_a_scheduler_and_an_io_priority(runtime: Runtime) -> None:
    """As /proc shows them: the policy is field 41 of stat, nice field 19."""
    document = spec("sh", "-c", "cat /proc/self/stat")
    process(
        document, scheduler={"policy": "SCHED_BATCH", "nice": 7}, ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 3}
    )
    code, output = runtime.run(document)
    fields = output.rpartition(")")[2].split()
    assert (code, fields[16], fields[38]) == (0, "7", "3")


def test_a_personality(runtime: Runtime) -> None:
    document = spec("cat", "/proc/self/personality", personality={"domain": "LINUX32"})
    assert runtime.run(document) == (0, "00000008\n")


def test_a_memory_policy(runtime: Runtime) -> None:
    document = spec("grep", "heap", "/proc/self/numa_maps", memoryPolicy={"mode": "MPOL_BIND", "nodes": "0"})
    code, output = runtime.run(document)
    if not os.path.exists("/proc/self/numa_maps"):
        pytest.skip("this Linux has no NUMA")
    assert code == 0 and " bind:0 " in output


def test_an_oom_score(runtime: Runtime) -> None:
    assert runtime.run(process(spec("cat", "/proc/self/oom_score_adj"), oomScoreAdj=321)) == (0, "321\n")


def test_clocks_of_a_time_namespace(runtime: Runtime) -> None:
    document = spec("cat", "/proc/uptime", timeOffsets={"boottime": {"secs": 1_000_000_000, "nanosecs": 0}})
    document["linux"]["namespaces"].append({"type": "time"})
    code, output = runtime.run(document)
    assert code == 0 and float(output.split()[0]) > 1_000_000_000


def test_an_exec_on_one_processor(runtime: Runtime) -> None:
    box = runtime.create(spec("sleep", "1000"))
    try:
        box.start()
        allowed = ["grep", "Cpus_allowed_list", "/proc/self/status"]
        assert box.exec(allowed, execCPUAffinity={"final": "0"})[1].split() == ["Cpus_allowed_list:", "0"]
    finally:
        box.kill()


def test_a_user_owns_the_streams(runtime: Runtime) -> None:
    """So that /dev/stdout can be opened, whoever writes there."""
    document = spec("sh", "-c", "echo x > /dev/stdout; umask")
    document["process"]["user"] = {"uid": 1000, "gid": 1000, "umask": 0o27, "additionalGids": [5, 6]}
    assert runtime.run(document) == (0, "x\n0027\n")


# Any: JSON.
@pytest.mark.parametrize(
    ("where", "asked", "words"),
    [
        ("process", {"scheduler": {"policy": "SCHED_MINE"}}, "process.scheduler.policy 'SCHED_MINE' is not one of"),
        ("process", {"scheduler": {"policy": "SCHED_OTHER", "nice": 99}}, "nice is -20 to 19"),
        ("process", {"ioPriority": {"class": "FAST"}}, "process.ioPriority.class 'FAST' is not one of"),
        ("process", {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}, "priority is 0 to 7, not 8"),
        ("process", {"apparmorProfile": "p"}, "process.apparmorProfile is set, and this host has no AppArmor"),
        ("process", {"selinuxLabel": "l"}, "process.selinuxLabel is set, and this host has no SELinux"),
        ("linux", {"mountLabel": "l"}, "linux.mountLabel is set, and this host has no SELinux"),
        ("linux", {"personality": {"domain": "BSD"}}, "linux.personality.domain 'BSD' is not one of"),
        ("linux", {"personality": {"domain": "LINUX", "flags": ["X"]}}, "linux.personality.flags is not supported"),
        ("linux", {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-x"}}, "is not a list such as 0-3,7"),
        ("linux", {"timeOffsets": {"boottime": {"secs": 1}}}, "need a new time namespace"),
        ("linux", {"intelRdt": {"closID": "x"}}, "linux.intelRdt is not supported"),
        ("linux", {"netDevices": {"eth0": {}}}, "linux.netDevices is not supported"),
        ("", {"vm": {"kernel": {}}}, "vm is not supported"),
        ("", {"windows": {"layerFolders": []}}, "windows is not supported"),
    ],
)
def test_what_cannot_be_is_refused_by_name(runtime: Runtime, where: str, asked: dict[str, Any], words: str) -> None:
    if where == "process" and "apparmorProfile" in asked and os.path.exists("/sys/module/apparmor"):
        pytest.skip("this host has AppArmor")
    document = spec("true")
    (document[where] if where else document).update(asked)
    with pytest.raises((InvalidArgument, FailedPrecondition, Unimplemented), match=words):
        runtime.create(document)
