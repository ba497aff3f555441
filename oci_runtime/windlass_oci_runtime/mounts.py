"""What an entry of `mounts` asks for, sorted by the system call that does it."""

from __future__ import annotations

from windlass.errors import InvalidArgument
from windlass_linux import calls as linux
from windlass_linux.mount_options import PROPAGATION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from windlass_oci_runtime.json_types import Json

ATTRIBUTES: dict[str, tuple[int, int]] = {
    # What to set and what to clear first, mount_setattr(2).
    "ro": (linux.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, linux.MOUNT_ATTR_RDONLY),
    "nosuid": (linux.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, linux.MOUNT_ATTR_NOSUID),
    "nodev": (linux.MOUNT_ATTR_NODEV, 0),
    "dev": (0, linux.MOUNT_ATTR_NODEV),
    "noexec": (linux.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, linux.MOUNT_ATTR_NOEXEC),
    "nodiratime": (linux.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, linux.MOUNT_ATTR_NODIRATIME),
    "noatime": (linux.MOUNT_ATTR_NOATIME, linux.MOUNT_ATTR__ATIME),
    "atime": (0, linux.MOUNT_ATTR__ATIME),
    "relatime": (linux.MOUNT_ATTR_RELATIME, linux.MOUNT_ATTR__ATIME),
    "norelatime": (0, linux.MOUNT_ATTR__ATIME),
    "strictatime": (linux.MOUNT_ATTR_STRICTATIME, linux.MOUNT_ATTR__ATIME),
    "nostrictatime": (0, linux.MOUNT_ATTR__ATIME),
    "nosymfollow": (linux.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, linux.MOUNT_ATTR_NOSYMFOLLOW),
}

FILESYSTEM_FLAGS = {
    "sync": "sync",
    "dirsync": "dirsync",
    "lazytime": "lazytime",
    "mand": "mand",
    "iversion": "iversion",
}
"""Options that a file system has, as flags of fsconfig(2)."""

IGNORED = {"defaults", "async", "loud", "silent", "nolazytime", "nomand", "noiversion", "remount"}


class Mount:
    """A mount to be made; ``recursive`` attributes are for everything below it too."""

    __slots__ = (
        "clear",
        "copies_up",
        "data",
        "destination",
        "is_bind",
        "is_idmapped",
        "is_idmapped_whole",
        "is_recursive",
        "maps",
        "propagation",
        "recursive_clear",
        "recursive_set",
        "set",
        "source",
        "tree",
        "type",
    )

    def __init__(self, entry: Json) -> None:
        # A relative one is below the root, as in runc.
        self.destination: str = f"/{entry['destination'].lstrip('/')}"
        self.type: str = entry.get("type", "")
        self.source: str = entry.get("source", "")
        self.is_bind = self.type == "bind"
        self.is_recursive = False
        self.copies_up = False
        self.set = self.clear = self.recursive_set = self.recursive_clear = 0
        self.propagation: list[int] = []
        self.data: list[tuple[str, str | None]] = []
        self.maps = (entry.get("uidMappings") or [], entry.get("gidMappings") or [])
        self.is_idmapped = bool(self.maps[0] or self.maps[1])
        self.is_idmapped_whole = False
        """Whether everything below it is mapped, too."""
        self.tree = -1
        """A descriptor of a bind's detached mount, where the container could not make it itself."""
        for option in entry.get("options") or []:
            self._take(option)

    def _take(self, option: str) -> None:
        if option in ("bind", "rbind"):
            self.is_bind = True
            self.is_recursive = self.is_recursive or option == "rbind"
        elif option in ATTRIBUTES:
            on, off = ATTRIBUTES[option]
            self.set, self.clear = (self.set & ~off) | on, (self.clear & ~on) | off
        elif option[:1] == "r" and option[1:] in ATTRIBUTES:
            on, off = ATTRIBUTES[option[1:]]
            self.recursive_set |= on
            self.recursive_clear |= off
        elif option in PROPAGATION:
            self.propagation.append(PROPAGATION[option])
        elif option == "tmpcopyup":
            self.copies_up = True
        elif option in FILESYSTEM_FLAGS:
            self.data.append((FILESYSTEM_FLAGS[option], None))
        elif option in ("idmap", "ridmap"):
            self.is_idmapped = True
            self.is_idmapped_whole = option == "ridmap"
        elif option and option not in IGNORED:
            key, separator, value = option.partition("=")
            self.data.append((key, value if separator else None))


def planned(entries: Sequence[Json]) -> list[Mount]:
    """Return what to mount, in order. Raises InvalidArgument with the destination."""
    found = [Mount(entry) for entry in entries]
    for number, mount in enumerate(found):
        where = f"mounts[{number}]: "
        if mount.is_bind and not mount.source:
            raise InvalidArgument(f"{where}mount {mount.destination[:80]}: a bind mount needs a source")
        if mount.is_idmapped and not mount.is_bind:
            raise InvalidArgument(f"{where}mount {mount.destination[:80]}: only bind mounts can have mapped IDs")
        if mount.copies_up and mount.type != "tmpfs":
            raise InvalidArgument(f"{where}mount {mount.destination[:80]}: tmpcopyup is an option of tmpfs")
    return found
