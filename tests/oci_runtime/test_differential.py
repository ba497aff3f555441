"""Random specifications: what a probe inside a container sees is the same under runc, our runtime, and crun.

A few examples by default; WINDLASS_DIFFERENTIAL=1000 runs so many.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oci_runtime.bundles import CAPABILITIES, DEFAULT_MOUNTS, Box, Runtime, Spec, spec

from windlass.errors import Error
from windlass_conformance.boxes import BUSYBOX
from windlass_linux import cgroups
from windlass_oci_runtime.report import Failure

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: apt install runc"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="a static busybox is missing: apt install busybox-static"),
]

EXAMPLES = int(os.environ.get("WINDLASS_DIFFERENTIAL", "15"))
PR_SET_CHILD_SUBREAPER = 36
TIMEOUT = 60

PROBE = """
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|SigIgn|SigBlk|Umask)' /proc/self/status
cat /proc/self/limits
echo M; cat /proc/self/mountinfo; echo N
pwd; env; hostname; cat /proc/self/oom_score_adj
for ns in pid net ipc uts mnt cgroup user; do
    [ "$(readlink /proc/self/ns/$ns)" = "$(eval echo \\$HOST_$ns)" ] && echo same $ns
done
cd /dev; ls -lan | grep -vE ' \\.\\.?$|[0-9]:[0-9]' ; ls -lan | grep -E '^[bcl]' | awk '{print $1,$3,$4,$5,$6,$NF}'
for file in kernel/shm_rmid_forced kernel/msgmax net/ipv4/ip_forward net/ipv4/ping_group_range; do
    cat /proc/sys/$file 2>/dev/null
done
for file in /etc/passwd /proc/keys /proc/timer_list /sys/firmware; do head -c 1 $file 2>&1 | wc -c; done
for file in /etc/passwd /proc/sys/kernel/shm_rmid_forced /tmp/x /t/x /b/x; do (: >> $file) 2>&1; done
ls -lan / /t /b 2>/dev/null | awk '{print $1,$3,$4,$NF}'
ls /proc/self/fd
"""

HOST_FILES = (
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "cpu.shares",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "pids.max",
    "cpuset.cpus",
    "cpuset.mems",
    "devices.list",
    "memory.max",
    "cpu.max",
    "cpu.weight",
)
"""Limits as the host sees them, of either version."""

IDS = st.sampled_from([0, 1, 1000, 65534])
FLAGS = ["nosuid", "nodev", "noexec", "ro", "noatime"]
LIMITS = {"NOFILE": 64, "CORE": 0, "NPROC": 1000, "FSIZE": 1 << 23, "STACK": 1 << 22, "MEMLOCK": 1 << 16}
PROPAGATION = st.sampled_from(["", "private", "rprivate", "slave", "rslave"])


def some(values: list[Any]) -> st.SearchStrategy[list[Any]]:
    """Return some of the values."""
    return st.lists(st.sampled_from(values), unique_by=json.dumps, max_size=len(values)).map(
        lambda found: sorted(found, key=values.index)
    )


@st.composite
def processes(draw: st.DrawFn) -> Spec:
    """Return members of a process."""
    permitted = draw(some(CAPABILITIES))
    inheritable = draw(some(permitted)) if permitted else []
    sets = {
        "bounding": sorted({*permitted, *draw(some(CAPABILITIES))}),
        "permitted": permitted,
        "effective": draw(some(permitted)) if permitted else [],
        "inheritable": inheritable,
        "ambient": draw(some(inheritable)) if inheritable else [],
    }
    user: Spec = {"uid": draw(IDS), "gid": draw(IDS), "additionalGids": draw(some([5, 1000, 4000]))}
    if draw(st.booleans()):
        user["umask"] = draw(st.sampled_from([0, 0o22, 0o77]))
    kinds = draw(some(list(LIMITS)))
    limits = [{"type": f"RLIMIT_{kind}", "soft": LIMITS[kind], "hard": 2 * LIMITS[kind]} for kind in kinds]
    process = {
        "user": user,
        "cwd": draw(st.sampled_from(["/", "/tmp", "/root", "/made/here"])),
        "noNewPrivileges": draw(st.booleans()),
        "capabilities": sets,
        "rlimits": limits,
    }
    if draw(st.booleans()):
        process["oomScoreAdj"] = draw(st.integers(0, 1000))
    return process


@st.composite
def mounts(draw: st.DrawFn) -> list[Spec]:
    """Return mounts besides the usual ones."""
    tmpfs = {"destination": "/t", "type": "tmpfs", "source": "tmpfs"}
    bind = {"destination": "/b", "type": "bind", "source": "SHARED"}
    sysfs = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
    queue = {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec"]}
    shm = {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "mode=1777", "size=64k"]}
    tmpfs["options"] = [*draw(some(FLAGS)), *draw(some(["size=1m"]))]  # type: ignore[assignment]
    bind["options"] = [draw(st.sampled_from(["bind", "rbind"])), *draw(some(FLAGS))]  # type: ignore[assignment]
    bind["options"] += [draw(PROPAGATION.filter(bool))]  # type: ignore[operator]
    return draw(some([tmpfs, bind, sysfs, queue, shm]))


@st.composite
def specifications(draw: st.DrawFn) -> Spec:
    """Return a specification whose probe ends with a code, or by a signal."""
    end = draw(st.sampled_from(["exit 0", "exit 7", "exit 255", "kill -9 $$", "kill -15 $$"]))
    kinds = ["mount", *draw(some(["pid", "network", "ipc", "uts", "cgroup"]))]
    sysctl: dict[str, str] = {}
    if "ipc" in kinds:
        sysctl |= draw(st.sampled_from([{}, {"kernel.shm_rmid_forced": "1"}, {"kernel.msgmax": "4096"}]))
    if "network" in kinds:
        sysctl |= draw(st.sampled_from([{}, {"net.ipv4.ip_forward": "1"}, {"net.ipv4.ping_group_range": "0 7"}]))
    memory = draw(st.sampled_from([{}, {"limit": 64 << 20}, {"limit": 64 << 20, "reservation": 32 << 20}]))
    cpu = draw(st.sampled_from([{}, {"shares": 512}, {"quota": 50000, "period": 100000}, {"cpus": "0"}]))
    rules = [{"allow": False, "access": "rwm"}]
    rules += draw(st.sampled_from([[], [{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}]]))
    devices = [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o620, "uid": 1, "gid": 5}]
    document = spec(
        "/bin/sh",
        "-c",
        f"{PROBE}\n{end}",
        namespaces=[{"type": each} for each in kinds],
        sysctl=sysctl,
        resources={
            "memory": memory,
            "cpu": cpu,
            "pids": {"limit": draw(st.sampled_from([50, 1000]))},
            "devices": rules,
        },
        devices=draw(st.sampled_from([[], devices])),
        maskedPaths=draw(some(["/proc/keys", "/proc/timer_list", "/sys/firmware", "/etc/passwd", "/none"])),
        readonlyPaths=draw(some(["/proc/sys", "/proc/bus", "/tmp", "/none"])),
        rootfsPropagation=draw(PROPAGATION),
    )
    document["process"] |= draw(processes())
    document["root"]["readonly"] = draw(st.booleans())
    document["mounts"] = [*DEFAULT_MOUNTS, *draw(mounts())]
    for name in ("pid", "net", "ipc", "uts", "mnt", "cgroup", "user"):
        document["process"]["env"] = [
            *document["process"]["env"],
            f"HOST_{name}={os.readlink(f'/proc/self/ns/{name}')}",
        ]
    return document


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Our runtime; this process adopts what the others leave behind."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    runtime = Runtime(tmp_path_factory.mktemp("oci"))
    for name in ("awk", "md5sum", "readlink", "cut"):
        (runtime.rootfs / "bin" / name).symlink_to("busybox")
    for name in ("t", "b", "shared"):
        (runtime.rootfs / name if name != "shared" else runtime.directory / name).mkdir()
    yield runtime
    runtime.close()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    places = [f"{place}/windlass-oci-{os.getpid()}" for place, _, _ in cgroups.hierarchies()]
    assert cgroups.remove_within(places) == []


class Other:
    """A runtime that is a program, called as ours."""

    def __init__(self, program: str, runtime: Runtime) -> None:
        self.id = f"{program}-{os.getpid()}"
        self._argv = [program, "--root", str(runtime.directory / program)]

    def create(self, runtime: Runtime, document: Spec, output: int) -> int:
        pid_file = runtime.directory / "pid"
        command = [*self._argv, "create", "-b", runtime.bundle(document), "--pid-file", str(pid_file), self.id]
        # What it says goes to a file: a pipe would be held by the container.
        with (runtime.directory / "said").open("wb") as said:
            log = ["--log", str(runtime.directory / "log")]
            done = subprocess.run(
                [command[0], *log, *command[1:]], stdin=subprocess.DEVNULL, stdout=output, stderr=said, timeout=TIMEOUT
            )
        if done.returncode:
            subprocess.run([*self._argv, "delete", "--force", self.id], capture_output=True, timeout=TIMEOUT)
            raise Error((runtime.directory / "said").read_text())
        return int(pid_file.read_text())

    def start(self) -> None:
        subprocess.run([*self._argv, "start", self.id], check=True, timeout=TIMEOUT)

    def delete(self) -> None:
        subprocess.run([*self._argv, "delete", "--force", self.id], check=True, capture_output=True, timeout=TIMEOUT)


def observed(kind: str, runtime: Runtime, document: Spec) -> dict[str, object]:
    """Return all that can be seen of a container's life: the same for all runtimes, or one of them is wrong."""
    document = json.loads(json.dumps(document).replace("SHARED", str(runtime.directory / "shared")))
    id = f"{kind}-{os.getpid()}"
    document["linux"]["cgroupsPath"] = f"/windlass-oci-{os.getpid()}/{id}"
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reader, "rb") as file:
        delete: Callable[[], None]
        try:
            if kind == "ours":
                box = runtime.create(document, writer, id)
                pid, start, delete = box.pid, box.start, functools.partial(ended, box)
            else:
                other = Other(kind, runtime)
                pid, start, delete = other.create(runtime, document, writer), other.start, other.delete
        except (Error, Failure, OSError) as error:
            return {"refused": True, "why": str(error)}
        finally:
            os.close(writer)
        groups = Path(f"/proc/{pid}/cgroup").read_text()
        limits = limits_of(id)
        try:
            start()
            output = file.read().decode(errors="replace")
            status = os.waitpid(pid, 0)[1]
        finally:
            delete()
    left = [place for place, _, _ in cgroups.hierarchies() if Path(f"{place}/windlass-oci-{os.getpid()}/{id}").exists()]
    return {
        "refused": False,
        "status": status,
        "groups": normal(groups, id).splitlines(),
        "limits": limits,
        "left": left,
        **parts(normal(output, id)),
    }


def ended(box: Box) -> None:
    """Delete one of ours."""
    from windlass_oci_runtime import ending

    ending.delete(box.container, force=True)


def limits_of(id: str) -> dict[str, str]:
    """Return a container's limits as the host sees them."""
    found = {}
    for place, _, _ in cgroups.hierarchies():
        for name in HOST_FILES:
            path = Path(f"{place}/windlass-oci-{os.getpid()}/{id}/{name}")
            if path.exists():
                # runc before 1.2 lets every container use /dev/net/tun.
                lines = {*path.read_text().splitlines()} - {"c 10:200 rwm"}
                found[name] = "\n".join(sorted(lines))
    return found


def normal(text: str, id: str) -> str:
    """Take names and numbers out that differ from one container to the next."""
    return re.sub(r"(shared|master|propagate_from):\d+", r"\1", text.replace(id, "ID"))


def parts(output: str) -> dict[str, object]:
    """Return mounts by their places, and the rest of what the probe says."""
    before, _, rest = output.partition("M\n")
    table, _, after = rest.partition("N\n")
    places = {}
    for line in table.splitlines():
        words = line.split()
        at = words.index("-")
        # Numbers of mounts and devices are new each time.
        places[words[4]] = [words[3], words[5], *words[6:at], *words[at + 1 :]]
        # runc before 1.2 changes the mode of a tmpfs when it is made; later ones give it the option, as ours.
        places[words[4]][-1] = re.sub(r",mode=755$", "", places[words[4]][-1]) if words[4] == "/t" else words[-1]
        if words[3] == "/null":
            # Ours is the host's, read-only; runc's the container's own.
            places[words[4]] = ["/null"]
    return {"before": before.splitlines(), "mounts": places, "after": sorted(after.splitlines())}


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return in which words two observations differ."""
    if first["refused"] or second["refused"]:
        same = first["refused"] == second["refused"]
        return [] if same else [f"refused: {first.get('why', 'no')} | {second.get('why', 'no')}"]
    found = []
    for name in first:
        if first[name] != second[name]:
            one, other = (items(each[name]) for each in (first, second))
            for each in one[:]:
                if each in other:
                    one.remove(each)
                    other.remove(each)
            found.append(f"{name}: {one} | {other}")
    return found


def items(value: object) -> list[object]:
    """Return what a value consists of."""
    if isinstance(value, dict):
        return list(value.items())
    return list(value) if isinstance(value, list) else [value]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="WINDLASS_DIFFERENTIAL" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(document=specifications())
def test_a_probe_sees_the_same_under_runc_and_ours(made: Runtime, document: Spec) -> None:
    """Identity, capabilities, limits, mounts, devices, namespaces, sysctls, masks, control groups, exit status."""
    assert differences(observed("runc", made, document), observed("ours", made, document)) == []
