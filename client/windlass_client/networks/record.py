"""What a container's hooks do for its networks: one file in the container's directory, `network.json`.

The client writes it before it creates the container; `windlass-hook` reads it each time the container starts and
ends, also when a daemon restarts it and no client is there. All paths are absolute, so the hook looks up nothing.

Like the rest of what the hook imports, this module imports little.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from windlass.errors import Unknown

HOOK = "windlass-hook"
"""The program."""
FILE = "network.json"
LOCK = "network.lock"


@dataclass(frozen=True)
class Endpoint:
    """The container's end of one network."""

    network: str
    interface: str
    aliases: Sequence[str] = ()
    ips: Sequence[str] = ()
    """Addresses that were asked for."""
    mac: str = ""


@dataclass(frozen=True)
class PortMapping:
    """A published port; an empty ``host_ip`` is every address of the host."""

    host_port: int
    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""


def clash(wanted: Sequence[PortMapping], others: Sequence[PortMapping]) -> PortMapping | None:
    """Return the first port that both want of the same address of the host."""
    for port in wanted:
        for other in others:
            same = (port.host_port, port.protocol) == (other.host_port, other.protocol)
            if same and (port.host_ip == other.host_ip or not port.host_ip or not other.host_ip):
                return port
    return None


def shown(port: PortMapping) -> str:
    """Return a port of the host as people write it."""
    host = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    return f"{host + ':' if host else ''}{port.host_port}/{port.protocol}"


@dataclass(frozen=True)
class NetworkRecord:
    """What to attach a container to, and where everything is."""

    id: str
    name: str
    key: str
    """What plugins know the container by: no container of another namespace or daemon on this host has it."""
    hostname: str
    endpoints: Sequence[Endpoint]
    conf_dir: str
    bin_dirs: Sequence[str]
    netns: str
    """The name that its network namespace gets while it runs."""
    registry: str
    """The directory that says who is attached now; see `members`."""
    results: str
    """The directory of CNI results."""
    ports: Sequence[PortMapping] = ()
    extra_hosts: Sequence[Sequence[str]] = ()
    """Pairs of name and address for `/etc/hosts`; the address may be ``host-gateway``."""
    dns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What plugins that set up DNS are given: servers, searches, options."""


def read(directory: Path) -> NetworkRecord | None:
    """Return the record of a container's directory, None if it has none. Raises Unknown for one that is damaged."""
    path = directory / FILE
    try:
        document = json.loads(path.read_bytes())
        return NetworkRecord(
            **{
                **document,
                "endpoints": [Endpoint(**each) for each in document["endpoints"]],
                "ports": [PortMapping(**each) for each in document["ports"]],
            }
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Unknown(f"{path} cannot be read: {error}; remove the container and create it again") from None


def write(directory: Path, record: NetworkRecord) -> None:
    """Keep a record."""
    write_json(directory / FILE, asdict(record))


def write_json(path: Path, document: object) -> None:
    """Write a document whole, for its owner only; its directory is made."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file)
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock file, which ends with its holder. Without ``wait``, raises BlockingIOError if another holds it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
