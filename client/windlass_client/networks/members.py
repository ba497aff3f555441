"""Who is attached to networks now: a file for each container, and from them the `/etc/hosts` of each member.

There is one registry on the host for all namespaces of all daemons, since they share the host's ports. A container is
entered before its plugins run, so that two containers never get one port, and leaves after they have detached it.
Whoever reads or changes the registry holds its lock, for as long as that takes and no longer: no plugin runs meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from windlass_client.networks import hosts, record
from windlass_client.networks.record import NetworkRecord, PortMapping

DEFAULT = "bridge"
"""The network of containers that ask for none; names are not resolved in it, as in docker's."""


@dataclass(frozen=True)
class Attached:
    """What a container has in one network."""

    interface: str
    addresses: Sequence[str] = ()
    """With prefix lengths."""
    gateways: Sequence[str] = ()
    mac: str = ""
    aliases: Sequence[str] = ()

    @property
    def ips(self) -> list[str]:
        """The addresses alone."""
        return [each.partition("/")[0] for each in self.addresses]


@dataclass(frozen=True)
class Member:
    """A container that is attached, or about to be."""

    key: str
    id: str
    name: str
    hostname: str
    directory: str
    """The container's own."""
    pid: int
    started: str
    """When its first process started, which tells it from a later one with the same number."""
    ports: Sequence[PortMapping] = ()
    extra_hosts: Sequence[Sequence[str]] = ()
    networks: Mapping[str, Attached] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether its first process is there: a container may have ended without its hook having run."""
        return started(self.pid) == self.started != ""

    @property
    def namespace(self) -> Path:
        """What containers of one namespace of one daemon have in common."""
        return Path(self.directory).parent


class Registry:
    """The files of one registry."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from reading and changing."""
        with record.locked(self._directory / "lock"):
            yield

    def all(self) -> list[Member]:
        """Return every member."""
        found = (self._read(path) for path in sorted(self._directory.glob("*.json")))
        return [each for each in found if each is not None]

    def get(self, key: str) -> Member | None:
        """Return a member."""
        return self._read(self._directory / f"{key}.json")

    def put(self, member: Member) -> None:
        """Enter a member, or replace what is known of it."""
        record.write_json(self._directory / f"{member.key}.json", asdict(member))

    def drop(self, key: str) -> None:
        """Forget a member; one that is not there is not an error."""
        (self._directory / f"{key}.json").unlink(missing_ok=True)

    def _read(self, path: Path) -> Member | None:
        try:
            document = json.loads(path.read_bytes())
            return Member(
                **{
                    **document,
                    "ports": [PortMapping(**each) for each in document["ports"]],
                    "networks": {name: Attached(**each) for name, each in document["networks"].items()},
                }
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None  # it left meanwhile, or a crash cut the file

    def rewrite_hosts(self, networks: Iterable[str], itself: str = "") -> None:
        """Rewrite `/etc/hosts` of ``itself`` and of the members of networks; for the holder of the lock."""
        touched = set(networks) - {DEFAULT}
        members = [each for each in self.all() if each.alive]
        for member in members:
            if member.key == itself or touched & set(member.networks):
                hosts.rewrite(Path(member.directory) / "hosts", lines(member, members))


def started(pid: int) -> str:
    """Return when a process started, in the clock's ticks since boot; empty if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    words = stat.rpartition(b")")[2].split()
    return "" if words[0] in (b"Z", b"X") else words[19].decode()  # proc_pid_stat(5): state, starttime


def entered(asked: NetworkRecord, directory: Path, pid: int) -> Member:
    """Return a container as a member that has no address yet."""
    member = Member(asked.key, asked.id, asked.name, asked.hostname, str(directory), pid, started(pid))
    return replace(member, ports=asked.ports, extra_hosts=asked.extra_hosts)


def lines(member: Member, members: Iterable[Member]) -> list[str]:
    """Return a member's own lines of `/etc/hosts`: what was asked for, itself, and who shares a network with it."""
    gateways = next((each.gateways for each in member.networks.values() if each.gateways), ())
    made: list[str] = []
    for name, address in member.extra_hosts:
        made += [f"{each}\t{name}" for each in (gateways if address == "host-gateway" else [address])]
    for network, attached in member.networks.items():
        made += _line(member, network, attached, itself=True)
    for other in members:
        if other.key != member.key and other.namespace == member.namespace:
            for network, attached in other.networks.items():
                if network in member.networks and network != DEFAULT:
                    made += _line(other, network, attached)
    return made


def _line(member: Member, network: str, attached: Attached, itself: bool = False) -> list[str]:
    known = [member.hostname] if itself else []
    if network != DEFAULT:
        known += [member.name, *attached.aliases, member.hostname, f"{member.name}.{network}"]
    names = " ".join(dict.fromkeys(each for each in known if each))
    return [f"{ip}\t{names}" for ip in attached.ips]
