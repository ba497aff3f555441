"""The spec that every container starts from: containerd's defaults (docs/containerd 6.7, 7.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Capabilities, DeviceRule, Linux, Mount, Process, Spec


CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
MOUNTS = (
    ("/proc", "proc", "nosuid noexec nodev"),
    ("/dev", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/shm", "tmpfs", "nosuid noexec nodev mode=1777 size=65536k"),  # noqa: S108 - inside the container
    ("/dev/mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "nosuid noexec nodev ro"),
    ("/run", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
)
# null, random, full, tty, zero, urandom, console, pts, ptmx: Linux, Documentation/admin-guide/devices.txt
DEVICES = ((1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (5, 1), (136, None), (5, 2))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def default_spec(namespace: str, id: str) -> Spec:
    """Return a new spec without arguments, user root, in new Linux namespaces; two of them share nothing."""
    mounts: list[Mount] = [
        {"destination": place, "type": kind, "source": kind, "options": words.split()} for place, kind, words in MOUNTS
    ]
    return {
        "ociVersion": "1.0.2",
        "process": _process(),
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": _linux(f"/{namespace}/{id}"),
    }


def _process() -> Process:
    return {
        "user": {"uid": 0, "gid": 0},
        "cwd": "/",
        "noNewPrivileges": True,
        # Not the shim's, which Linux kills late: a container that takes too much memory has to be killed first.
        "oomScoreAdj": 0,
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "capabilities": bounded(CAPABILITIES),
    }


def bounded(names: tuple[str, ...] | list[str]) -> Capabilities:
    """Return the sets of a process that has ``names``: none inheritable, none ambient (CVE-2022-24769)."""
    return {"bounding": list(names), "effective": list(names), "permitted": list(names)}


def _linux(cgroups_path: str) -> Linux:
    return {
        "resources": {"devices": [{"allow": False, "access": "rwm"}, *(_allowed(*each) for each in DEVICES)]},
        "cgroupsPath": cgroups_path,
        "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}],
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READ_ONLY),
    }


def _allowed(major: int, minor: int | None) -> DeviceRule:
    rule: DeviceRule = {"allow": True, "type": "c", "major": major, "access": "rwm"}
    if minor is not None:
        rule["minor"] = minor
    return rule
