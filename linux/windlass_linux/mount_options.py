"""The options of a mount, in the words of fstab(5), sorted by who acts on them."""

from __future__ import annotations

from windlass.errors import InvalidArgument
from windlass_linux import calls as linux

# Not from typing, which would be a megabyte in every shim.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FLAGS: dict[str, tuple[int, bool]] = {
    # mount(8), "Filesystem-independent mount options": the flag, and whether the word sets it.
    "async": (linux.MS_SYNCHRONOUS, False),
    "atime": (linux.MS_NOATIME, False),
    "bind": (linux.MS_BIND, True),
    "defaults": (0, True),
    "dev": (linux.MS_NODEV, False),
    "diratime": (linux.MS_NODIRATIME, False),
    "dirsync": (linux.MS_DIRSYNC, True),
    "exec": (linux.MS_NOEXEC, False),
    "iversion": (linux.MS_I_VERSION, True),
    "lazytime": (linux.MS_LAZYTIME, True),
    "loud": (linux.MS_SILENT, False),
    "mand": (linux.MS_MANDLOCK, True),
    "noatime": (linux.MS_NOATIME, True),
    "nodev": (linux.MS_NODEV, True),
    "nodiratime": (linux.MS_NODIRATIME, True),
    "noexec": (linux.MS_NOEXEC, True),
    "nomand": (linux.MS_MANDLOCK, False),
    "norelatime": (linux.MS_RELATIME, False),
    "nostrictatime": (linux.MS_STRICTATIME, False),
    "nosuid": (linux.MS_NOSUID, True),
    "nosymfollow": (linux.MS_NOSYMFOLLOW, True),
    "rbind": (linux.MS_BIND | linux.MS_REC, True),
    "relatime": (linux.MS_RELATIME, True),
    "remount": (linux.MS_REMOUNT, True),
    "ro": (linux.MS_RDONLY, True),
    "rw": (linux.MS_RDONLY, False),
    "silent": (linux.MS_SILENT, True),
    "strictatime": (linux.MS_STRICTATIME, True),
    "suid": (linux.MS_NOSUID, False),
    "sync": (linux.MS_SYNCHRONOUS, True),
}

PROPAGATION: dict[str, int] = {
    "private": linux.MS_PRIVATE,
    "rprivate": linux.MS_PRIVATE | linux.MS_REC,
    "shared": linux.MS_SHARED,
    "rshared": linux.MS_SHARED | linux.MS_REC,
    "slave": linux.MS_SLAVE,
    "rslave": linux.MS_SLAVE | linux.MS_REC,
    "unbindable": linux.MS_UNBINDABLE,
    "runbindable": linux.MS_UNBINDABLE | linux.MS_REC,
}

PER_MOUNT = (
    linux.MS_RDONLY
    | linux.MS_NOSUID
    | linux.MS_NODEV
    | linux.MS_NOEXEC
    | linux.MS_NOATIME
    | linux.MS_NODIRATIME
    | linux.MS_RELATIME
    | linux.MS_STRICTATIME
    | linux.MS_NOSYMFOLLOW
)
"""Flags of a mount rather than of its filesystem: a bind ignores them until it is remounted."""


class Options:
    """The options of one mount, sorted by who is to act on them; ``data`` is for the filesystem, in its order."""

    __slots__ = ("data", "flags", "gidmap", "loop", "propagation", "uidmap")

    def __init__(
        self,
        flags: int,
        propagation: tuple[int, ...],
        data: tuple[str, ...],
        loop: bool = False,
        uidmap: str = "",
        gidmap: str = "",
    ) -> None:
        self.flags = flags
        self.propagation = propagation
        self.data = data
        self.loop = loop
        self.uidmap = uidmap
        self.gidmap = gidmap


def parse_options(options: Sequence[str]) -> Options:
    """Sort fstab words into flags and data; raises InvalidArgument for X-containerd.* options that are left."""
    flags, propagation, data = 0, [], []
    loop, maps = False, {"uidmap": "", "gidmap": ""}
    for option in options:
        key, _, value = option.partition("=")
        if option in FLAGS:
            bits, on = FLAGS[option]
            flags = flags | bits if on else flags & ~bits
        elif option in PROPAGATION:
            propagation.append(PROPAGATION[option])
        elif option == "loop":
            loop = True
        elif key in maps:
            maps[key] = value
        elif key.lower().startswith("x-containerd."):
            raise InvalidArgument(f"mount option {option[:80]!r} has no handler on this machine")
        elif option:
            data.append(option)
    return Options(flags, tuple(propagation), tuple(data), loop, maps["uidmap"], maps["gidmap"])
