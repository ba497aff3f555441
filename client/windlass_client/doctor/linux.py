"""What Linux offers: its version, control groups, namespaces, filesystems, security modules, limits and time."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from windlass_client.doctor.findings import Area, Finding

LEAST = (5, 6)
"""The version that brought openat2(2), which unpacking layers needs."""
IDMAPPED = (5, 12)
CONTROLLERS = ("cpu", "io", "memory", "pids")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
NEEDED_NAMESPACES = frozenset({"ipc", "mnt", "net", "pid", "uts"})
DESCRIPTORS = 65536
INSTANCES = 128
BUILT = 1_764_000_000
"""A moment, in seconds since the epoch, that was over when this was written: an earlier clock is wrong."""
TIME_ERROR = 5
"""What adjtimex(2) returns of a clock that nothing synchronizes."""


@dataclass(frozen=True)
class Machine:
    """Where this machine shows itself; tests have directories of their own."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    release: str = platform.release()

    def read(self, path: Path) -> str:
        """Return a file's text, empty if there is none that can be read."""
        try:
            return path.read_text().strip()
        except OSError:
            return ""

    @property
    def version(self) -> tuple[int, int]:
        """Linux' version."""
        found = re.match(r"(\d+)\.(\d+)", self.release)
        return (int(found[1]), int(found[2])) if found else (0, 0)


HERE = Machine()


def findings(machine: Machine = HERE) -> Iterator[Finding]:
    """Yield what there is to say about Linux."""
    area = Area("linux")
    yield _version(area, machine)
    yield _user(area)
    yield from _control_groups(area, machine)
    yield from _namespaces(area, machine)
    yield from _filesystems(area, machine)
    yield from _security(area, machine)
    yield from _limits(area, machine)
    yield _clock(area, time.time(), synchronized())


def _version(area: Area, machine: Machine) -> Finding:
    if machine.version < LEAST:
        need = ".".join(map(str, LEAST))
        return area.error("version", f"Linux {machine.release} is older than {need}", f"boot Linux {need} or later")
    if machine.version < IDMAPPED:
        detail = f"Linux {machine.release} has no ID-mapped mounts, so no pods with user namespaces"
        return area.note("version", detail, f"boot Linux {'.'.join(map(str, IDMAPPED))} or later")
    return area.ok("version", f"Linux {machine.release}, {platform.machine()}")


def _user(area: Area) -> Finding:
    if os.geteuid() == 0:
        return area.ok("user", "root")
    return area.warning(
        "user", f"user {os.geteuid()} is not root, so part of this cannot be seen", "run it again as root, with sudo"
    )


def _control_groups(area: Area, machine: Machine) -> Iterator[Finding]:
    top = machine.sys / "fs/cgroup"
    offered = machine.read(top / "cgroup.controllers").split()
    if not offered:
        mounted = sorted(each.name for each in top.iterdir()) if top.is_dir() else []
        if not mounted:
            yield area.error("control groups", f"nothing is mounted at {top}", f"mount -t cgroup2 none {top}")
            return
        detail = "version 1: it works, but a rootless daemon cannot set limits"
        yield area.note("control groups", detail, "boot with systemd.unified_cgroup_hierarchy=1")
        offered = mounted
    else:
        yield area.ok("control groups", f"version 2: {' '.join(offered)}")
    names = {part for name in offered for part in name.split(",")}
    for missing in [name for name in CONTROLLERS if name not in names | ({"io"} if "blkio" in names else set())]:
        remedy = f"boot without cgroup_disable={missing}"
        yield area.warning(f"controller {missing}", "is off, so limits of it cannot be set", remedy)


def _namespaces(area: Area, machine: Machine) -> Iterator[Finding]:
    present = {name for name in NAMESPACES if (machine.proc / "self/ns" / name).exists()}
    for missing in sorted(NEEDED_NAMESPACES - present):
        yield area.error(f"namespace {missing}", "Linux was built without it", "use a kernel of a distribution")
    yield area.ok("namespaces", " ".join(sorted(present)))
    most = machine.read(machine.proc / "sys/user/max_user_namespaces")
    if "user" not in present or most == "0":
        remedy = "sysctl -w user.max_user_namespaces=15000"
        yield area.note("user namespaces", "are off: no pods with user namespaces, no rootless daemon", remedy)


def _filesystems(area: Area, machine: Machine) -> Iterator[Finding]:
    known = set(machine.read(machine.proc / "filesystems").split()) - {"nodev"}
    if "overlay" in known:
        yield area.ok("overlay")
    else:
        remedy = "modprobe overlay, and name it in /etc/modules-load.d; or use --snapshotter native"
        yield area.warning("overlay", "is not loaded, so the snapshotter overlayfs does not start", remedy)
    if "erofs" in known:
        yield area.ok("erofs")
    else:
        yield area.note("erofs", "is not loaded: no snapshotter erofs", "modprobe erofs")
    if not Path("/dev/fuse").exists():
        yield area.note("fuse", "/dev/fuse is not there: no fuse-overlayfs for a rootless daemon", "modprobe fuse")


def _security(area: Area, machine: Machine) -> Iterator[Finding]:
    if machine.read(machine.proc / "sys/kernel/seccomp/actions_avail"):
        yield area.ok("seccomp")
    else:
        remedy = "use a kernel with CONFIG_SECCOMP_FILTER"
        yield area.warning("seccomp", "is not there, so no profile limits containers' system calls", remedy)
    modules = machine.read(machine.sys / "kernel/security/lsm").split(",")
    for name in ("apparmor", "selinux"):
        if name in modules:
            yield area.ok(name)
    if not {"apparmor", "selinux"} & set(modules):
        yield area.note("AppArmor, SELinux", "are off: no profile of theirs confines containers")


def _limits(area: Area, machine: Machine) -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < DESCRIPTORS:
        detail = f"at most {hard} for a process; each container takes two or three of the daemon's"
        yield area.warning("open files", detail, "set LimitNOFILE=524288 in the daemon's unit")
    else:
        yield area.ok("open files", "no limit" if hard < 0 else f"up to {hard}")
    instances = machine.read(machine.proc / "sys/fs/inotify/max_user_instances")
    if instances.isdigit() and int(instances) < INSTANCES:
        remedy = "sysctl -w fs.inotify.max_user_instances=1024"
        yield area.warning("inotify", f"at most {instances} instances for a user", remedy)


def _clock(area: Area, now: float, is_synchronized: bool) -> Finding:
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < BUILT:
        return area.error("clock", f"it is {shown} here, so no registry's certificate is valid", "set the clock")
    if not is_synchronized:
        remedy = "apt-get install systemd-timesyncd, or chrony"
        return area.note("clock", f"{shown}, which nothing synchronizes", remedy)
    return area.ok("clock", f"{shown}, synchronized")


def synchronized() -> bool:
    """Return whether something keeps the clock right (adjtimex(2))."""
    state = ctypes.create_string_buffer(512)  # struct timex, whose first member says that nothing is to be set
    return ctypes.CDLL(None, use_errno=True).adjtimex(state) not in (-1, TIME_ERROR)
