"""Whether a containerd still runs, and what runs below it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from windlass.errors import FailedPrecondition
from windlass_adopt.places import SOCKET, TASKS, Places

STOP = "stop it first, for instance by systemctl stop containerd: its containers go on running"
PATIENCE = 1.0
LONGEST_LINE = 64 << 10
SHIM = b"containerd-shim"


class HasDescriptor(Protocol):
    """An open file."""

    path: Path

    def fileno(self) -> int:
        """Return its descriptor."""


@dataclass(frozen=True)
class Task:
    """A task's bundle."""

    namespace: str
    id: str
    bundle: Path


def lock(database: HasDescriptor) -> None:
    """Lock a database of bolt's as its users do, until it is closed. Raises FailedPrecondition while one has it."""
    try:
        fcntl.flock(database.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FailedPrecondition(f"a containerd still runs: it has {database.path} locked; {STOP}") from None


def check_silent(addresses: set[str]) -> None:
    """Raise FailedPrecondition when a daemon answers on one of its sockets."""
    for address in sorted(addresses):
        if answers(address):
            raise FailedPrecondition(f"a containerd still runs: it answers on {address}; {STOP}")


def answers(address: str) -> bool:
    """Return whether a process accepts connections on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE)
        try:
            peer.connect(address)
        except OSError:
            return False
        return True


def tasks(state: Path, plugin: str = TASKS) -> list[Task]:
    """Return every task that has a bundle in a state directory; sandboxes of shims have such bundles, too."""
    namespaces = _directories(state / plugin)
    return [Task(each.name, bundle.name, bundle) for each in namespaces for bundle in _directories(each)]


def addresses(places: Places) -> set[str]:
    """Return the addresses of sockets that containerd had, as its shims have been told, and the one it has by default.

    Shims send events there, and clients are configured so.
    """
    found = {str(places.source_state / SOCKET)}
    for arguments in _shims(places.source_state):
        if b"-address" in arguments[:-1]:
            found.add(os.fsdecode(arguments[arguments.index(b"-address") + 1]))
    return {address for address in found if address.startswith("/")}


def is_socket(path: str) -> bool:
    """Return whether a path is a socket, be it dead or not."""
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _shims(state: Path) -> Iterator[list[bytes]]:
    """Yield the command line of each shim that works in a bundle below a state directory."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended
                with (process / "cmdline").open("rb") as file:
                    arguments = file.read(LONGEST_LINE).split(b"\0")
                if SHIM in arguments[0] and state in (process / "cwd").readlink().parents:
                    yield arguments


def _directories(path: Path) -> list[Path]:
    try:
        return sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
