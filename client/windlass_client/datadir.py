"""Where the client keeps on disk what the daemon's API cannot hold: logs, `/etc/hosts`, volumes, networks.

A daemon's socket and a namespace have a directory of their own. This module alone knows the layout:

    /var/lib/windlass-client/<first 8 hex of the sha256 of the socket's path>/<namespace>/
        containers/<ID>/      hosts, resolv.conf, hostname, <ID>-json.log
        volumes/<name>/_data
        networks/
        locks/

    /var/lib/windlass-client/networks/     who is attached to networks, for all daemons of this host
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from windlass.errors import AlreadyExists, Unavailable

VARIABLE = "WINDLASS_CLIENT_DATA"
"""Environment variable that names another directory than the usual one, for tests."""


class Place(Protocol):
    """What tells one daemon's namespace from another; `windlass_client.cli.Where` is one."""

    @property
    def address(self) -> str:
        """The daemon's socket."""
        ...

    @property
    def namespace(self) -> str:
        """The namespace's name."""
        ...


@dataclass(frozen=True)
class DataDirectory:
    """What the client keeps for one namespace of one daemon."""

    path: Path

    @classmethod
    def of(cls, where: Place) -> DataDirectory:
        """Return the directory of a namespace; nothing is made yet."""
        digest = hashlib.sha256(os.fsencode(_socket(where.address))).hexdigest()
        return cls(root() / digest[:8] / where.namespace)

    @property
    def containers(self) -> Path:
        """One directory for each container that has files."""
        return self.path / "containers"

    def container(self, id: str) -> Path:
        """The files of one container."""
        return self.containers / id

    def log(self, id: str) -> Path:
        """The log of one container, as docker names it; older parts have `.1`, `.2` … behind."""
        return self.container(id) / f"{id}-json.log"

    @property
    def volumes(self) -> Path:
        """One directory for each volume."""
        return self.path / "volumes"

    @property
    def networks(self) -> Path:
        """What is kept for networks."""
        return self.path / "networks"

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep other clients from changing what ``name`` stands for, such as ``volumes``, as long as this lasts.

        The lock ends with its holder, also if that is killed. Waits for another holder; not for use in an event loop
        that must not stand still.
        """
        descriptor = os.open(directory(self.path / "locks") / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Be the one client that gives this name to a container. Raises AlreadyExists if another one is doing it.

        All names share one file, of which a claim locks one byte: nothing is left of it, also if its holder is killed.
        """
        digest = hashlib.sha256(os.fsencode(name)).digest()
        byte = int.from_bytes(digest[:7], "big")
        lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)  # fcntl(2), struct flock
        path = directory(self.path / "locks") / "creating"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
            except BlockingIOError:
                raise AlreadyExists(
                    f"container {name} is being created by another client; choose another name"
                ) from None
            yield
        finally:
            os.close(descriptor)


def root() -> Path:
    """Return the directory for all daemons."""
    if named := os.environ.get(VARIABLE):
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/windlass-client")
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(home, "windlass-client")


def host_networks() -> Path:
    """Return the directory of what all daemons of this host share: its ports, and the results of CNI plugins."""
    return root() / "networks"


def run_directory() -> Path:
    """Return the directory for what a reboot ends: the names of network namespaces."""
    if os.geteuid() == 0:
        return Path("/run/windlass-client")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or root() / "run", "windlass-client")


def directory(path: Path) -> Path:
    """Make a directory that only its owner enters, with those above it, and return it. Raises Unavailable."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"directory {path} cannot be made: {error.strerror}; name another with {VARIABLE}") from None
    return path


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file whole: a reader sees the old text or the new one. Its directory is made."""
    import secrets

    beside = directory(path.parent) / f".{path.name}.{secrets.token_hex(4)}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _socket(address: str) -> str:
    """Return the path of a socket however the address spells it; another kind of address stays as it is."""
    if address.startswith("unix:"):
        return os.path.realpath(unquote(address.removeprefix("unix://").removeprefix("unix:")))
    return os.path.realpath(address) if ":" not in address else address
