"""What the daemon needs of its own: plugins, a configuration without errors, space, and a socket that answers."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from windlass_client.doctor.findings import Area, Finding
from windlass_client.output import size

INSTALL = "pip install windlass"
SPACE, SHARE = 1 << 30, 0.05
"""Bytes, and part of a filesystem, below which a pull is likely to fail."""
PATIENCE = 3.0
UNFIT = {"overlay": "overlayfs cannot be stacked on it", "nfs": "locks and owners do not work as on a disk"}


@dataclass(frozen=True)
class Places:
    """Where the daemon and its clients look."""

    config: Path | None = None
    root: Path = Path("/var/lib/windlass")
    state: Path = Path("/run/windlass")
    sockets: tuple[Path, ...] = (Path("/run/windlass/windlass.sock"),)
    mounts: Path = Path("/proc/self/mountinfo")


def findings(places: Places) -> Iterator[Finding]:
    """Yield what there is to say about the daemon."""
    area = Area("daemon")
    yield from plugins(area)
    yield from configuration(area, places.config)
    for name, path in (("root", places.root), ("state", places.state), ("temporary files", _temporary())):
        yield from space(area, name, path)
    yield from _filesystem(area, places)
    for path in places.sockets:
        yield answers(area, path)


def plugins(area: Area) -> Iterator[Finding]:
    """Yield which plugins are installed here, and those that cannot be imported."""
    from windlass.discovery import discover

    found = discover((), entry_points().select)
    if not found:
        yield area.warning("plugins", "none is installed here, so this machine has a client only", INSTALL)
        return
    yield area.ok("plugins", f"{len(found)} are installed")
    for each in found:
        if each.error is not None:
            remedy = f"pip install --force-reinstall {each.distribution.partition(' ')[0]}"
            yield area.warning(each.uri, f"cannot be loaded: {each.error}", remedy)
    if not any(each.uri.startswith("io.containerd.server.v1.") for each in found):
        yield area.error("servers", "no plugin listens for clients, so the daemon does not start", INSTALL)


def configuration(area: Area, path: Path | None) -> Iterator[Finding]:
    """Yield the problems of config.toml."""
    from windlass.config.commands import check
    from windlass.config.loading import NO_FLAGS, WINDLASS
    from windlass.errors import StartError

    name = str(path or WINDLASS.config)
    try:
        problems = check(path, WINDLASS, NO_FLAGS)
    except StartError as error:
        yield area.error("configuration", str(error).splitlines()[0], "mend it; see windlass config check")
        return
    told = [problem for problem in problems if problem.severity != "note"]
    for problem in told:
        make = area.error if problem.severity == "error" else area.warning
        yield make("configuration", f"{problem.mark}: {problem.message}", "see windlass config check")
    if not told:
        there = Path(name).exists()
        yield area.ok("configuration", f"{name}: no problems" if there else f"{name} is not there: defaults are used")


def space(area: Area, name: str, path: Path) -> Iterator[Finding]:
    """Yield how much room a directory has, and whether it can be written."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        found = os.statvfs(there)
    except OSError as error:
        yield area.error(name, f"{path}: {error.strerror}", "choose another directory in config.toml")
        return
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    detail = f"{path}: {size(free)} free of {size(total)}"
    if found.f_flag & os.ST_RDONLY:
        yield area.error(name, f"{path} is on a read-only filesystem", "choose another directory in config.toml")
    elif name == "root" and (free < SPACE or free < total * SHARE):
        yield area.warning(name, detail, "windlass image prune --all; or move root to a larger disk")
    elif found.f_files and found.f_favail < found.f_files * SHARE:
        yield area.warning(name, f"{path}: {found.f_favail} inodes are left of {found.f_files}", "remove small files")
    else:
        yield area.ok(name, detail)


def _filesystem(area: Area, places: Places) -> Iterator[Finding]:
    kind = filesystem(places.root, places.mounts)
    for name, reason in UNFIT.items():
        if kind.startswith(name):
            remedy = "put root on ext4, xfs or btrfs; or use --snapshotter native"
            yield area.warning("root's filesystem", f"{places.root} is on {kind}: {reason}", remedy)


def filesystem(path: Path, mounts: Path) -> str:
    """Return the type of the filesystem that a path is, or will be, on (proc_pid_mountinfo(5))."""
    best, kind = "", ""
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        before, _, after = line.partition(" - ")
        place = before.split(" ")[4]
        inside = place == "/" or str(path) == place or str(path).startswith(f"{place}/")
        if inside and len(place) >= len(best):
            best, kind = place, after.partition(" ")[0]
    return kind


def answers(area: Area, path: Path) -> Finding:
    """Say whether a daemon listens on a socket."""
    name = f"socket {path}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as peer:
            peer.settimeout(PATIENCE)
            peer.connect(str(path))
    except OSError as error:
        if error.errno == errno.EACCES:
            return area.warning(name, "this user may not connect", "run windlass as root, with sudo")
        return area.note(
            name, f"no daemon listens: {error.strerror or error}", "systemctl start windlass, or windlassd"
        )
    return area.ok(name, "a daemon listens")


def _temporary() -> Path:
    return Path(tempfile.gettempdir())
