"""Attributes of a process that only few specifications have: scheduling, I/O, memory, personality, keys, labels."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from windlass.errors import FailedPrecondition, InvalidArgument, Unimplemented
from windlass_linux import calls as linux
from windlass_oci_runtime.procfs import open_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from windlass_oci_runtime.json_types import Json

    Step = tuple[str, Callable[[], object]]

# Numbers of system calls: x86_64, and the architectures that came later.
_OLD = {"x86_64": {"sched_setattr": 314, "ioprio_set": 251, "keyctl": 250, "set_mempolicy": 238}}
_NEW = {"sched_setattr": 274, "ioprio_set": 30, "keyctl": 219, "set_mempolicy": 237}

POLICIES = {
    name: number
    for number, name in enumerate(
        ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE")
    )
}
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
IO_WHO_PROCESS, IO_CLASS_SHIFT = 1, 13
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}
MEMORY_MODES = {
    name: number
    for number, name in enumerate(
        ("MPOL_DEFAULT", "MPOL_PREFERRED", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED_MANY")
    )
}
MEMORY_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
MOST_NODES = 1024
KEYCTL_JOIN_SESSION, KEYCTL_SETPERM = 1, 5
KEY_USER_SEARCH = 0x80000


def _call(name: str, *arguments: object) -> int:
    number = _OLD.get(os.uname().machine, _NEW)[name]
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return linux.checked(linux.libc().syscall(ctypes.c_long(number), *words), name)


def steps(process: Json, spec: Json) -> Iterator[Step]:
    """Yield what this process has to do, with the name of each step. Raises InvalidArgument, before anything is done.

    ``spec`` is the specification's `linux`, empty for an exec.
    """
    if scheduler := process.get("scheduler"):
        packed = _scheduler(scheduler)
        yield "scheduler", lambda: _call("sched_setattr", 0, packed, 0)
    if priority := process.get("ioPriority"):
        value = _io_priority(priority)
        yield "I/O priority", lambda: _call("ioprio_set", IO_WHO_PROCESS, 0, value)
    if personality := spec.get("personality"):
        domain = _personality(personality)
        yield "personality", lambda: linux.checked(linux.libc().personality(ctypes.c_ulong(domain)), "personality")
    if policy := spec.get("memoryPolicy"):
        mode, nodes = _memory_policy(policy)
        yield "memory policy", lambda: _call("set_mempolicy", mode, nodes, MOST_NODES if nodes else 0)


def _named(value: object, known: Mapping[str, int], where: str) -> int:
    if value not in known:
        raise InvalidArgument(f"{where} {str(value)[:40]!r} is not one of {', '.join(known)}")
    return known[str(value)]


def _scheduler(asked: Json) -> bytes:
    policy = _named(asked.get("policy"), POLICIES, "process.scheduler.policy")
    flags = 0
    for name in asked.get("flags") or ():
        flags |= _named(name, SCHEDULER_FLAGS, "process.scheduler.flags")
    times = [asked.get(name, 0) for name in ("runtime", "deadline", "period")]
    nice, priority = asked.get("nice", 0), asked.get("priority", 0)
    if not -20 <= nice <= 19 or not 0 <= priority <= 99 or not all(0 <= each < 1 << 63 for each in times):
        raise InvalidArgument("process.scheduler: nice is -20 to 19, priority 0 to 99, and times are not negative")
    return struct.pack("=IIQiIQQQII", 56, policy, flags, nice, priority, *times, 0, 0)


def _io_priority(asked: Json) -> int:
    kind, priority = _named(asked.get("class"), IO_CLASSES, "process.ioPriority.class"), asked.get("priority", 0)
    if not 0 <= priority <= 7:
        raise InvalidArgument(f"process.ioPriority.priority is 0 to 7, not {priority}")
    return kind << IO_CLASS_SHIFT | int(priority)


def _personality(asked: Json) -> int:
    if asked.get("flags"):
        raise Unimplemented("linux.personality.flags is not supported, as with runc; leave it out")
    return _named(asked.get("domain"), PERSONALITIES, "linux.personality.domain")


def _memory_policy(asked: Json) -> tuple[int, bytes | None]:
    mode = _named(asked.get("mode"), MEMORY_MODES, "linux.memoryPolicy.mode")
    for name in asked.get("flags") or ():
        mode |= _named(name, MEMORY_FLAGS, "linux.memoryPolicy.flags")
    nodes = numbers(asked.get("nodes") or "", "linux.memoryPolicy.nodes", MOST_NODES)
    mask = sum(1 << node for node in nodes)
    return mode, mask.to_bytes(MOST_NODES // 8, "little") if nodes else None


def numbers(text: str, where: str, most: int) -> set[int]:
    """Return the numbers of a list such as ``0-3,7``. Raises InvalidArgument."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) >= most:
            raise InvalidArgument(f"{where} {text[:80]!r} is not a list such as 0-3,7 of numbers below {most}")
        found.update(range(int(first), int(last or first) + 1))
    return found


def set_affinity(text: str) -> None:
    """Run on these processors only (process.execCPUAffinity)."""
    if text:
        os.sched_setaffinity(0, numbers(text, "process.execCPUAffinity", 1 << 13))


def join_keyring(id: str) -> None:
    """Have a session keyring of the container's own, which its processes may search; without keys in Linux, nothing."""
    try:
        ring = _call("keyctl", KEYCTL_JOIN_SESSION, f"_ses.{id}".encode())
        _call("keyctl", KEYCTL_SETPERM, ring, KEY_USER_SEARCH | _permissions(ring))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def _permissions(ring: int) -> int:
    buffer = ctypes.create_string_buffer(512)
    _call("keyctl", 6, ring, buffer, len(buffer))  # KEYCTL_DESCRIBE: type;uid;gid;permissions;description
    return int(buffer.value.split(b";")[3], 16)


def check_labels(process: Json, mount_label: str = "") -> None:
    """Raise FailedPrecondition for a label that no security module of this host knows."""
    if process.get("apparmorProfile") and not _has_apparmor():
        raise FailedPrecondition("process.apparmorProfile is set, and this host has no AppArmor; leave it out")
    if (process.get("selinuxLabel") or mount_label) and not os.path.exists("/sys/fs/selinux/enforce"):
        name = "process.selinuxLabel" if process.get("selinuxLabel") else "linux.mountLabel"
        raise FailedPrecondition(f"{name} is set, and this host has no SELinux; leave it out")


def _has_apparmor() -> bool:
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="ascii") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def set_labels(process: Json) -> None:
    """Have the program run under its AppArmor profile or SELinux label."""
    if profile := process.get("apparmorProfile"):
        try:
            _write("attr/apparmor/exec", f"exec {profile}")
        except FileNotFoundError:
            _write("attr/exec", f"exec {profile}")
    if label := process.get("selinuxLabel"):
        _write("attr/exec", label)


def _write(name: str, value: str) -> None:
    descriptor = open_own(name, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"/proc/self/{name}") from None
    finally:
        os.close(descriptor)
