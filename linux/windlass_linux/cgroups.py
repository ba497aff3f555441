"""Control groups of containers: where a spec puts them, and their removal when the OCI runtime that made them is gone.

The shim has this loaded, so it stays small.
"""

from __future__ import annotations

import errno
import os
import time

# Not from typing, which would be a megabyte in every shim.
TYPE_CHECKING = False
if TYPE_CHECKING:
    Hierarchy = tuple[str, str, str]
    """Where it is mounted, the type of its file system, and the directory of this process's group."""

PATIENCE = 1.0
"""Seconds that a process in a group, which has lost its runtime, may take to end."""

PAUSE = 0.02

_mounted: list[tuple[str, str, str, list[str]]] = []


def groups_of(spec: bytes, id: str) -> list[str]:
    """Return the directories of a container's group, one in each hierarchy; they need not be there.

    Where the spec names none, or a relative one, it is below the group of the runtime (runc's fs managers), taken to
    be that of this process. None for a path in the form of systemd, which removes a scope that is empty.
    """
    path = _named_in(spec)
    return [] if path is None else groups_at(path, id)


def groups_at(path: str, id: str) -> list[str]:
    """Return the same for the path that a spec names, "" if none."""
    absolute = path.startswith("/")
    inner = os.path.normpath(f"/{path or id}").strip("/")
    if not inner or "\0" in inner or (path.count(":") == 2 and not absolute):
        return []
    if absolute:
        return [f"{place}/{inner}" for place, *_ in _table()]
    found = hierarchies()
    if len(found) == 1 and found[0][1] == "cgroup2":
        # Linux allows no process next to a group that has controllers: runc makes it next to its own.
        return [f"{os.path.dirname(found[0][2])}/{inner}"]  # noqa: PTH120 -- no pathlib here
    return [f"{own}/{inner}" for _, _, own in found]


def is_unified() -> bool:
    """Return whether there is one hierarchy, of version 2."""
    return [kind for _, kind, *_ in _table()] == ["cgroup2"]


def hierarchies() -> list[Hierarchy]:
    """Return each hierarchy of version 1, and that of version 2."""
    own, found = _own_groups(), []
    for place, kind, root, names in _table():
        group = next((own[name] for name in names if name in own), root)
        found.append((place, kind, f"{place}/{group.removeprefix(root).strip('/')}".rstrip("/")))
    return found


def _table() -> list[tuple[str, str, str, list[str]]]:
    # They are mounted before any daemon runs; a table of a thousand mounts takes milliseconds to read.
    if not _mounted:
        _mounted.extend(_mounts())
    return _mounted


def _mounts() -> list[tuple[str, str, str, list[str]]]:
    """Return where hierarchies are mounted: place, type, root, and controllers."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:  # noqa: PTH123 -- no pathlib here
        for line in table:
            if " - cgroup" not in line:
                continue
            left, _, right = line.partition(" - ")
            kind, _, options = right.split()[:3]
            if kind in ("cgroup", "cgroup2"):
                root, place = left.split()[3:5]
                found.append((place, kind, root, options.split(",") if kind == "cgroup" else [""]))
    return found


def remove(groups: list[str]) -> list[str]:
    """Remove groups with all that is below them, where no process is in them; return those that stay."""
    return [group for group in groups if not _remove(group)]


def remove_within(groups: list[str], patience: float = PATIENCE) -> list[str]:
    """Do the same for some seconds, in which processes may end."""
    deadline = time.monotonic() + patience
    while (left := remove(groups)) and time.monotonic() < deadline:
        time.sleep(PAUSE)
    return left


def processes_in(group: str) -> list[int]:
    """Return the processes of a group and of those below it, none when it is not there."""
    found: list[int] = []
    for directory, _, _ in os.walk(group):
        try:
            with open(f"{directory}/cgroup.procs", encoding="ascii") as file:  # noqa: PTH123 -- no pathlib here
                found += [int(line) for line in file]
        except OSError:
            continue
    return found


def _named_in(spec: bytes) -> str | None:
    """Return linux.cgroupsPath, "" when there is none, None when the spec is not such a document."""
    import json  # which few shims ever need

    try:
        linux = json.loads(spec).get("linux") or {}
        path = linux.get("cgroupsPath") or ""
    except (ValueError, AttributeError, RecursionError):
        return None
    return path if isinstance(path, str) else None


def _own_groups() -> dict[str, str]:
    """Return this process's group by controller, "" for version 2 (cgroups(7))."""
    found: dict[str, str] = {}
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as table:  # noqa: PTH123 -- no pathlib here
        for line in table:
            _, names, path = line.rstrip("\n").split(":", 2)
            found.update(dict.fromkeys(names.split(","), path))
    return found


def _remove(group: str) -> bool:
    """Remove a group; False for one that stays, because of a process in it or for another reason."""
    try:
        os.rmdir(group)  # noqa: PTH106 -- no pathlib here
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return True
        # EBUSY: processes, or groups below it.
        below = [entry.path for entry in _directories(group)]
        return bool(below) and all(_remove(each) for each in below) and _remove(group)
    return True


def _directories(group: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(group) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
