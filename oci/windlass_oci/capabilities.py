"""Which capabilities a process has: names, and changes to a set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from windlass.errors import InvalidArgument

_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
NAMES = _NAMES.split()
"""By their numbers, capabilities(7)."""
STATUS = Path("/proc/self/status")
LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")


def changed(default: Sequence[str], add: Iterable[str], drop: Iterable[str]) -> list[str]:
    """Return a set of capabilities after changes; ``ALL`` is every one, and what is both added and dropped is there.

    With everything added, what is dropped is not.
    """
    added, dropped = _named(add), _named(drop)
    if "ALL" in added:
        return [name for name in every() if name not in dropped]
    kept = [] if "ALL" in dropped else [name for name in default if name not in dropped]
    return list(dict.fromkeys([*kept, *sorted(added)]))


def _named(names: Iterable[str]) -> set[str]:
    found = set()
    for text in names:
        name = text.strip().upper().removeprefix("CAP_")
        if name != "ALL" and name not in NAMES:
            raise InvalidArgument(f"capability {text[:80]!r} is not one of Linux; see capabilities(7), or use ALL")
        found.add(name if name == "ALL" else f"CAP_{name}")
    return found


def current() -> list[str]:
    """Return the capabilities that this process has, which are all that it can give."""
    text = STATUS.read_text()
    held = int(text.partition("CapEff:")[2].split()[0], 16)
    return [f"CAP_{name}" for number, name in enumerate(NAMES) if held >> number & 1]


def every() -> list[str]:
    """Return all capabilities that this machine's Linux has."""
    try:
        last = int(LAST_CAPABILITY.read_text())
    except (OSError, ValueError):
        last = len(NAMES)
    return [f"CAP_{name}" for name in NAMES[: last + 1]]
