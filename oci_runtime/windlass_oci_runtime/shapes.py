"""The fields of `config.json` and their types, and the check of a document against them (runtime-spec 1.2).

A shape is a type of Python; ``[shape]`` for a list, ``{name: shape}`` for an object, ``(shape,)`` for an object whose
names are free.
"""

from __future__ import annotations

from windlass.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # Any: JSON, and shapes of it.
    Shape = Any

ID_MAPPINGS = [{"containerID": int, "hostID": int, "size": int}]
HOOK_POINTS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
HOOKS = [{"path": str, "args": [str], "env": [str], "timeout": int}]

PROCESS = {
    "terminal": bool,
    "consoleSize": {"height": int, "width": int},
    "user": {"uid": int, "gid": int, "umask": int, "additionalGids": [int]},
    "args": [str],
    "env": [str],
    "cwd": str,
    "capabilities": {name: [str] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")},
    "rlimits": [{"type": str, "hard": int, "soft": int}],
    "noNewPrivileges": bool,
    "apparmorProfile": str,
    "selinuxLabel": str,
    "oomScoreAdj": int,
    "ioPriority": {"class": str, "priority": int},
    "scheduler": {
        "policy": str,
        "nice": int,
        "priority": int,
        "flags": [str],
        "runtime": int,
        "deadline": int,
        "period": int,
    },
    "execCPUAffinity": {"initial": str, "final": str},
}

_DEVICE_LIMITS = [{"major": int, "minor": int, "rate": int}]
_WEIGHTS = {"weight": int, "leafWeight": int}

RESOURCES = {
    "devices": [{"allow": bool, "type": str, "major": int, "minor": int, "access": str}],
    "memory": {
        "limit": int,
        "reservation": int,
        "swap": int,
        "kernel": int,
        "kernelTCP": int,
        "swappiness": int,
        "disableOOMKiller": bool,
        "useHierarchy": bool,
        "checkBeforeUpdate": bool,
    },
    "cpu": {
        "shares": int,
        "quota": int,
        "burst": int,
        "period": int,
        "realtimeRuntime": int,
        "realtimePeriod": int,
        "cpus": str,
        "mems": str,
        "idle": int,
    },
    "pids": {"limit": int},
    "blockIO": {
        **_WEIGHTS,
        "weightDevice": [{"major": int, "minor": int, **_WEIGHTS}],
        "throttleReadBpsDevice": _DEVICE_LIMITS,
        "throttleWriteBpsDevice": _DEVICE_LIMITS,
        "throttleReadIOPSDevice": _DEVICE_LIMITS,
        "throttleWriteIOPSDevice": _DEVICE_LIMITS,
    },
    "hugepageLimits": [{"pageSize": str, "limit": int}],
    "network": {"classID": int, "priorities": [{"name": str, "priority": int}]},
    "rdma": ({"hcaHandles": int, "hcaObjects": int},),
    "unified": (str,),
}

SECCOMP = {
    "defaultAction": str,
    "defaultErrnoRet": int,
    "architectures": [str],
    "flags": [str],
    "listenerPath": str,
    "listenerMetadata": str,
    "syscalls": [
        {
            "names": [str],
            "action": str,
            "errnoRet": int,
            "args": [{"index": int, "value": int, "valueTwo": int, "op": str}],
        }
    ],
}

LINUX = {
    "namespaces": [{"type": str, "path": str}],
    "uidMappings": ID_MAPPINGS,
    "gidMappings": ID_MAPPINGS,
    "timeOffsets": ({"secs": int, "nanosecs": int},),
    "devices": [
        {"path": str, "type": str, "major": int, "minor": int, "fileMode": int, "uid": int, "gid": int},
    ],
    "cgroupsPath": str,
    "resources": RESOURCES,
    "rootfsPropagation": str,
    "seccomp": SECCOMP,
    "sysctl": (str,),
    "maskedPaths": [str],
    "readonlyPaths": [str],
    "mountLabel": str,
    "personality": {"domain": str, "flags": [str]},
    "intelRdt": {},
    "netDevices": ({},),
    "memoryPolicy": {"mode": str, "nodes": str, "flags": [str]},
}

SPEC = {
    "ociVersion": str,
    "process": PROCESS,
    "root": {"path": str, "readonly": bool},
    "hostname": str,
    "domainname": str,
    "mounts": [
        {
            "destination": str,
            "type": str,
            "source": str,
            "options": [str],
            "uidMappings": ID_MAPPINGS,
            "gidMappings": ID_MAPPINGS,
        }
    ],
    "hooks": dict.fromkeys(
        ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"), HOOKS
    ),
    "annotations": (str,),
    "linux": LINUX,
}

WORDS = {str: "a string", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}


def checked(value: Shape, shape: Shape, where: str) -> Shape:
    """Return ``value`` without the fields that are null. Raises InvalidArgument with the field's name.

    ``where`` is what the name begins with, a field or ``FILE: ``.
    """
    if isinstance(shape, dict):
        _is(value, dict, where)
        above = where if where.endswith(": ") else f"{where}."
        return {
            name: checked(each, shape[name], f"{above}{name}") if name in shape else each
            for name, each in value.items()
            if each is not None
        }
    if isinstance(shape, tuple):
        _is(value, dict, where)
        return {name: checked(each, shape[0], f"{where}[{name[:80]!r}]") for name, each in value.items()}
    if isinstance(shape, list):
        _is(value, list, where)
        return [checked(each, shape[0], f"{where}[{number}]") for number, each in enumerate(value)]
    _is(value, shape, where)
    return value


def _is(value: object, kind: type, where: str) -> None:
    # True is an int for Python, and none for JSON.
    if type(value) is not kind:
        found = WORDS.get(type(value), "null" if value is None else "a fraction")
        raise InvalidArgument(f"{where.removesuffix(': ')} must be {WORDS[kind]}, not {found}")
