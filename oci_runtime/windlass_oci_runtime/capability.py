"""The five sets of capabilities of a process, capabilities(7)."""

from __future__ import annotations

import ctypes
import struct

from windlass_linux import calls as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
""".split()  # noqa: SIM905 -- 41 quoted words would hide them
"""By number."""

_NUMBERS = {f"CAP_{name}": number for number, name in enumerate(NAMES)}

PR_CAPBSET_DROP = 24
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
VERSION_3 = 0x20080522


class Sets:
    """Capabilities as bit masks."""

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "permitted")

    def __init__(self, named: Mapping[str, Sequence[str]]) -> None:
        """Read the names of each set; those that Linux does not know are left out."""
        self.bounding = _mask(named, "bounding")
        self.effective = _mask(named, "effective")
        self.permitted = _mask(named, "permitted")
        self.inheritable = _mask(named, "inheritable")
        self.ambient = _mask(named, "ambient")


def _mask(named: Mapping[str, Sequence[str]], where: str) -> int:
    # One that Linux has not, or not yet, cannot be given: left out, as by runc and as the specification says.
    return sum({1 << _NUMBERS[name] for name in named.get(where) or () if name in _NUMBERS})


def last() -> int:
    """Return the number of the last capability that this Linux has."""
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


def drop_bounding(sets: Sets, last: int) -> None:
    """Take what is not in the bounding set, for good."""
    for number in range(last + 1):
        if not sets.bounding >> number & 1:
            linux.prctl(PR_CAPBSET_DROP, number)


def keep_over_setuid(keep: bool) -> None:
    """Say whether a change of the user leaves the permitted capabilities as they are."""
    linux.prctl(PR_SET_KEEPCAPS, int(keep))


def apply(sets: Sets, last: int) -> None:
    """Set the remaining four sets."""
    known = (1 << last + 1) - 1
    header = struct.pack("=Ii", VERSION_3, 0)
    words = (sets.effective & known, sets.permitted & known, sets.inheritable & known)
    data = struct.pack("=6I", *(word >> shift & 0xFFFFFFFF for shift in (0, 32) for word in words))
    linux.checked(linux.libc().capset(header, ctypes.create_string_buffer(data, len(data))))
    linux.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    # Linux refuses what is not inheritable; `runc spec` writes such sets, and runc leaves it out of them.
    ambient = sets.ambient & sets.permitted & sets.inheritable & known
    for number in range(last + 1):
        if ambient >> number & 1:
            linux.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
