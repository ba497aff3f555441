"""What a container's processes may do: `--cap-add`, `--cap-drop` and `--security-opt`, as docker has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from windlass.errors import InvalidArgument
from windlass_client import seccomp

# Any: a JSON document with fields of every kind.
Spec = dict[str, Any]

_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = _NAMES.split()
"""By their numbers, capabilities(7)."""
LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")
PROFILE_LIMIT = 1 << 20
DOCKERS = {"archMap", "defaultErrno"}
DOCKERS_OF_A_RULE = {"includes", "excludes", "name"}


def capabilities(default: Sequence[str], add: Iterable[str], drop: Iterable[str]) -> list[str]:
    """Return a set of capabilities after changes; ``ALL`` is every one, and what is both added and dropped is there.

    With everything added, what is dropped is not.
    """
    added, dropped = _named(add), _named(drop)
    if "ALL" in added:
        return [name for name in _known() if name not in dropped]
    kept = [] if "ALL" in dropped else [name for name in default if name not in dropped]
    return list(dict.fromkeys([*kept, *sorted(added)]))


def _named(names: Iterable[str]) -> set[str]:
    found = set()
    for text in names:
        name = text.strip().upper().removeprefix("CAP_")
        if name != "ALL" and name not in CAPABILITIES:
            raise InvalidArgument(f"capability {text[:80]!r} is not one of Linux; see capabilities(7), or use ALL")
        found.add(name if name == "ALL" else f"CAP_{name}")
    return found


def _known() -> list[str]:
    try:
        last = int(LAST_CAPABILITY.read_text())
    except (OSError, ValueError):
        last = len(CAPABILITIES)
    return [f"CAP_{name}" for name in CAPABILITIES[: last + 1]]


def restrict(spec: Spec, add: Iterable[str], drop: Iterable[str], options: Iterable[str]) -> None:
    """Give a container its capabilities, and what the security options say; seccomp's default profile without them."""
    held = capabilities(spec["process"]["capabilities"]["bounding"], add, drop)
    spec["process"]["capabilities"] = {kind: list(held) for kind in ("bounding", "effective", "permitted")}
    words = dict(map(_word, options))
    for key, value in {"seccomp": "builtin", **words}.items():
        OPTIONS[key](spec, value)


def _word(option: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if key not in OPTIONS or not (value or (key == "no-new-privileges" and not equals)):
        raise InvalidArgument(f"security option {option[:80]!r} is not known; known are {', '.join(KNOWN)}")
    return key, value


def _seccomp(spec: Spec, value: str) -> None:
    if value == "unconfined":
        spec["linux"].pop("seccomp", None)
    elif value == "builtin":
        spec["linux"]["seccomp"] = seccomp.profile(spec["process"]["capabilities"]["bounding"])
    else:
        spec["linux"]["seccomp"] = _read_profile(Path(value))


def _read_profile(path: Path) -> Spec:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(PROFILE_LIMIT))
    except OSError as error:
        raise InvalidArgument(f"seccomp profile {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InvalidArgument(f"seccomp profile {path} is not JSON of at most {PROFILE_LIMIT} bytes") from None
    if not isinstance(document, dict) or "defaultAction" not in document:
        raise InvalidArgument(f"seccomp profile {path} has no defaultAction; it is linux.seccomp of an OCI spec")
    rules = document.get("syscalls") or []
    keys = {key for rule in rules if isinstance(rule, dict) for key in rule} if isinstance(rules, list) else set()
    # Its rules hold on conditions, such as a capability; taken without them they would allow too much.
    if found := sorted((DOCKERS & set(document)) | (DOCKERS_OF_A_RULE & keys)):
        raise InvalidArgument(f"seccomp profile {path} is in docker's own form ({', '.join(found)}), not in the OCI's")
    return document


def _no_new_privileges(spec: Spec, value: str) -> None:
    if value not in ("", "true", "false"):
        raise InvalidArgument(f"security option no-new-privileges={value[:80]!r} is neither true nor false")
    spec["process"]["noNewPrivileges"] = value != "false"


def _apparmor(spec: Spec, value: str) -> None:
    if value == "unconfined":
        spec["process"].pop("apparmorProfile", None)
    else:
        spec["process"]["apparmorProfile"] = value


def _system_paths(spec: Spec, value: str) -> None:
    if value != "unconfined":
        raise InvalidArgument(f"security option systempaths={value[:80]!r} can only be unconfined")
    spec["linux"].update(maskedPaths=[], readonlyPaths=[])


OPTIONS: Mapping[str, Callable[[Spec, str], None]] = {
    "seccomp": _seccomp,
    "no-new-privileges": _no_new_privileges,
    "apparmor": _apparmor,
    "systempaths": _system_paths,
}
KNOWN = (
    "seccomp=FILE, seccomp=builtin, seccomp=unconfined",
    "no-new-privileges=true or false",
    "apparmor=PROFILE, apparmor=unconfined",
    "systempaths=unconfined",
)
