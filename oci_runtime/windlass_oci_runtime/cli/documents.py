"""Commands that print documents: what this runtime can do, and a specification to begin with."""

from __future__ import annotations

import json
import os
import sys

from windlass_linux import cgroups
from windlass_linux.mount_options import PROPAGATION
from windlass_oci_runtime import attributes, capability, mounts, seccomp, shapes
from windlass_oci_runtime.cli.options import Options, Usage
from windlass_oci_runtime.namespaces import FLAGS
from windlass_oci_runtime.state import VERSION

CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"),
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
SHARED_MEMORY = "/dev/shm"  # noqa: S108 -- of the container
QUIET = ["nosuid", "noexec", "nodev"]


def features_command(_root: str, _options: Options) -> None:
    """Print the features document of the runtime specification."""
    options = {*mounts.ATTRIBUTES, *(f"r{name}" for name in mounts.ATTRIBUTES), *PROPAGATION}
    options |= {*mounts.FILESYSTEM_FLAGS, *mounts.IGNORED, "bind", "rbind", "idmap", "ridmap", "tmpcopyup"}
    document = {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": list(shapes.HOOK_POINTS),
        "mountOptions": sorted(options),
        "linux": {
            "namespaces": sorted(FLAGS),
            "capabilities": [f"CAP_{name}" for name in capability.NAMES],
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(seccomp.COMPARISONS),
                "archs": sorted(seccomp.ARCHITECTURES),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "schedulerPolicies": sorted(attributes.POLICIES),
        },
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def spec_command(_root: str, options: Options) -> None:
    """Write a `config.json` to begin with; one that is there stays."""
    path = os.path.join(options.text("bundle", "."), "config.json")
    document = specification(options.has("rootless"))
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(document, file, indent="\t")
    except FileExistsError:
        raise Usage("file config.json exists; remove it first") from None


def specification(rootless: bool = False) -> dict[str, object]:
    """Return a specification that runs a shell in ./rootfs; ``rootless`` is for a plain user."""
    namespaces = ["pid", "ipc", "uts", "mount", *(["user"] if rootless else ["network"])]
    if [version for _, version, _ in cgroups.hierarchies()] == ["cgroup2"]:
        namespaces.append("cgroup")  # as runc; with version 1 a process sees the path of its groups
    process = {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }
    linux: dict[str, object] = {
        "namespaces": [{"type": each} for each in namespaces],
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READ_ONLY),
    }
    if rootless:
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    else:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return {
        "ociVersion": VERSION,
        "process": process,
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "windlass",
        "mounts": _mounts(rootless),
        "linux": linux,
    }


def _mounts(rootless: bool) -> list[dict[str, object]]:
    sys_mount: dict[str, object] = {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": [*QUIET, "ro"],
    }
    if rootless:
        sys_mount = {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", *QUIET, "ro"]}
    shared = [*QUIET, "mode=1777", "size=65536k"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *([] if rootless else ["gid=5"])]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": SHARED_MEMORY, "type": "tmpfs", "source": "shm", "options": shared},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": QUIET},
        sys_mount,
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*QUIET, "relatime", "ro"]},
    ]
