"""User namespaces: the IDs that they map, and becoming root in them."""

from __future__ import annotations

import os

from windlass.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from windlass_oci_runtime.json_types import Json

    Ranges = list[tuple[int, int, int]]

MOST_RANGES = 340
"""user_namespaces(7): what a map may have at most."""
IDS = 1 << 32


class Maps:
    """What a container's user and group IDs are on the host."""

    __slots__ = ("gids", "uids")

    def __init__(self, uids: Sequence[Json], gids: Sequence[Json], where: str) -> None:
        """Read mappings of the specification. Raises InvalidArgument."""
        self.uids = _ranges(uids, f"{where}.uidMappings")
        self.gids = _ranges(gids, f"{where}.gidMappings")

    def texts(self) -> tuple[str, str]:
        """Return the two as `windlass_linux.idmap` takes them."""
        uids, gids = (",".join(":".join(map(str, each)) for each in ranges) for ranges in (self.uids, self.gids))
        return uids, gids

    def write(self, pid: int) -> None:
        """Map the IDs of a process's new user namespace, once. Raises OSError."""
        for name, ranges in (("uid_map", self.uids), ("gid_map", self.gids)):
            text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in ranges)
            # Linux takes a map in one write(2) only.
            descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, text.encode())
            except OSError as error:
                raise OSError(error.errno, f"{name} {text.strip()[:200]!r}: {error.strerror}") from None
            finally:
                os.close(descriptor)


def _ranges(mappings: Sequence[Json], where: str) -> Ranges:
    found = []
    for each in mappings:
        inside, outside, count = (each.get(name, 0) for name in ("containerID", "hostID", "size"))
        if min(inside, outside) < 0 or count < 1 or max(inside, outside) + count > IDS:
            raise InvalidArgument(f"{where}: {inside}:{outside}:{count} is not a range of IDs")
        found.append((inside, outside, count))
    if len(found) > MOST_RANGES:
        raise InvalidArgument(f"{where} has {len(found)} ranges, and Linux takes {MOST_RANGES}")
    return found


def of_container(linux: Json, is_new: bool, is_joined: bool) -> Maps | None:
    """Return the maps of a container, None without a user namespace. Raises InvalidArgument."""
    uids, gids = linux.get("uidMappings") or [], linux.get("gidMappings") or []
    if (uids or gids) and not (is_new or is_joined):
        raise InvalidArgument("linux.uidMappings and gidMappings need a user namespace in linux.namespaces")
    if not (is_new or is_joined):
        return None
    maps = Maps(uids, gids, "linux")
    if is_new and not (uids and gids):
        raise InvalidArgument("a new user namespace needs linux.uidMappings and linux.gidMappings")
    return maps


def become_root() -> None:
    """Be root of the user namespace that this process has come into. Raises OSError."""
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        os.setgroups([])
    except OSError as error:
        raise OSError(error.errno, f"cannot become root of the user namespace: {error.strerror}; map ID 0") from None
