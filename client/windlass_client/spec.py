"""The OCI spec of a container: containerd's defaults, and the changes that a user asks for (docs/containerd 6.7, 7.2).

Functions change a spec in place, in the order of the command line; the devices and capabilities are containerd's own.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from windlass.errors import InvalidArgument
from windlass_images.manifests import ImageConfig

# Any: a JSON document with fields of every kind.
Spec = dict[str, Any]

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
CPU_PERIOD = 100_000
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
HOST_FILES = ("/etc/hosts", "/etc/resolv.conf")


def default(namespace: str, id: str) -> Spec:
    """Return the spec that everything else starts from."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "noNewPrivileges": True,
            # Not the shim's, which Linux kills late: a container that takes too much memory has to be killed first.
            "oomScoreAdj": 0,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            # None inheritable, none ambient: CVE-2022-24769.
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": place, "type": kind, "source": kind, "options": words.split()}
            for place, kind, words in MOUNTS
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}, *map(_allowed, DEVICES)]},
            "cgroupsPath": f"/{namespace}/{id}",
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
        },
    }


def _allowed(device: tuple[int, int | None]) -> Spec:
    major, minor = device
    rule: Spec = {"allow": True, "type": "c", "major": major, "access": "rwm"}
    return rule if minor is None else rule | {"minor": minor}


def apply_image(spec: Spec, image: ImageConfig, arguments: Sequence[str], entrypoint: str | None = None) -> None:
    """Take environment, arguments and working directory of an image; arguments given replace its command."""
    process = spec["process"]
    head = list(image.entrypoint) if entrypoint is None else [entrypoint]
    process["args"] = head + (list(arguments) or ([] if entrypoint is not None else list(image.command)))
    if not process["args"]:
        raise InvalidArgument("no arguments specified: the image has no command of its own, so give one")
    process["env"] = merge_env([f"PATH={PATH}"], image.env)
    process["cwd"] = image.working_dir or "/"


def merge_env(old: Sequence[str], new: Iterable[str]) -> list[str]:
    """Return an environment with changes: the later KEY=value wins, a bare KEY removes it."""
    values = dict(entry.partition("=")[::2] for entry in old)
    for entry in new:
        key, equals, value = entry.partition("=")
        if not key:
            raise InvalidArgument(f"environment entry {entry[:100]!r} has no name")
        if equals:
            values[key] = value
        else:
            values.pop(key, None)
    return [f"{key}={value}" for key, value in values.items()]


def set_cwd(spec: Spec, directory: str) -> None:
    """Start the process in a directory of the container."""
    if not directory.startswith("/"):
        raise InvalidArgument(f"working directory {directory!r} is not absolute")
    spec["process"]["cwd"] = directory


def set_user(spec: Spec, uid: int, gid: int, additional: Sequence[int]) -> None:
    """Run the process as somebody; its groups always include the primary one (CVE-2023-25173)."""
    spec["process"]["user"] = {"uid": uid, "gid": gid, "additionalGids": list(dict.fromkeys([gid, *additional]))}


def set_terminal(spec: Spec, term: str = "xterm") -> None:
    """Give the process a terminal."""
    spec["process"]["terminal"] = True
    spec["process"]["env"] = merge_env([f"TERM={term}"], spec["process"]["env"])


def set_memory(spec: Spec, limit: int) -> None:
    """Bound the container's memory, in bytes."""
    spec["linux"]["resources"]["memory"] = {"limit": limit}


def set_cpus(spec: Spec, cpus: float) -> None:
    """Bound the container's processor time, 1.0 being all of one processor."""
    if not 0.01 <= cpus <= 4096:
        raise InvalidArgument(f"--cpus {cpus:g} is out of range: 0.01 to 4096")
    spec["linux"]["resources"]["cpu"] = {"quota": int(cpus * CPU_PERIOD), "period": CPU_PERIOD}


def set_pids(spec: Spec, limit: int) -> None:
    """Bound how many processes and threads the container has."""
    if not 1 <= limit < 1 << 32:
        raise InvalidArgument(f"--pids-limit {limit} is out of range: 1 to {(1 << 32) - 1}, or 0 for none")
    spec["linux"]["resources"]["pids"] = {"limit": limit}


def use_host_network(spec: Spec) -> None:
    """Leave the container in the host's network, with its host names and resolvers."""
    linux = spec["linux"]
    linux["namespaces"] = [namespace for namespace in linux["namespaces"] if namespace["type"] != "network"]
    for path in HOST_FILES:
        spec["mounts"].append(
            {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]},
        )


def parse_mount(text: str) -> Spec:
    """Read ``type=bind,src=/host,dst=/inside,options=rbind:ro``; type bind may be left out, ``ro`` may stand alone."""
    fields = {}
    for word in next(csv.reader([text])):
        key, _, value = word.partition("=")
        fields[{"src": "source", "dst": "destination", "target": "destination", "readonly": "ro"}.get(key, key)] = value
    kind = fields.pop("type", "bind")
    options = [option for option in fields.pop("options", "").split(":") if option]
    if "ro" in fields:
        fields.pop("ro")
        options.append("ro")
    source, destination = fields.pop("source", ""), fields.pop("destination", "")
    if fields:
        raise InvalidArgument(
            f"mount {text[:200]!r} has unknown fields {', '.join(fields)}; known are type, src, dst, options, ro"
        )
    if not destination.startswith("/"):
        raise InvalidArgument(f"mount {text[:200]!r} has no absolute dst")
    if kind == "bind":
        if not source.startswith("/"):
            raise InvalidArgument(f"mount {text[:200]!r} has no absolute src")
        if not {"bind", "rbind"} & set(options):
            options.insert(0, "rbind")
    return {"type": kind, "source": source or kind, "destination": destination, "options": options}


def parse_size(text: str) -> int:
    """Return the bytes that ``64M`` means; units are powers of 1024."""
    match = re.fullmatch(r"(\d{1,15})([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match or not int(match[1]):
        raise InvalidArgument(f"size {text[:40]!r} is not a number with K, M, G or T")
    return int(match[1]) * UNITS[match[2]]


def image_labels(image: ImageConfig) -> Mapping[str, str]:
    """Return the labels of an image that a container may have: none that plugins act on (CVE-2026-53488)."""
    return {
        key: value
        for key, value in (image.labels or {}).items()
        if not key.startswith(("containerd.io/", "io.containerd", "io.cri-containerd"))
        and key
        and len(key.encode()) + len(value.encode()) <= 4096
    }
