"""`-p` and `-P`, as docker has them, and whether a port of the host is free."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_client import rootless
from windlass_client.networks.record import PortMapping, clash

PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_STREAM}
ANY = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
LAST = 65535
MOST = 4096
"""Ports that one container may publish; each is several rules of iptables."""
_PUBLISH = re.compile(
    r"(?:(?:(?P<ip>\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(?P<host>[0-9]*(?:-[0-9]+)?):)?(?P<inner>[0-9]+(?:-[0-9]+)?)(?:/(?P<protocol>\w+))?"
)

Wanted = tuple[str, range | None, int, str]
"""Address of the host, its ports to choose from (None is any), port of the container, protocol."""


def parse(texts: Iterable[str]) -> list[Wanted]:
    """Read ``[IP:][HOST[-END]:]CONTAINER[-END][/tcp|udp|sctp]``. Raises InvalidArgument."""
    wanted = [each for text in texts for each in _parse(text)]
    if len(wanted) > MOST:
        raise InvalidArgument(f"{len(wanted)} ports are published; a container can have {MOST}: use --network host")
    return wanted


def _parse(text: str) -> list[Wanted]:
    match = _PUBLISH.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"port {text[:80]!r} is not [IP:][HOST:]CONTAINER[/PROTOCOL], such as 8080:80")
    protocol = (match["protocol"] or "tcp").lower()
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"port {text[:80]!r} has the protocol {protocol[:20]!r}; there are tcp, udp and sctp")
    address = _address(match["ip"] or "", text)
    inner = _range(match["inner"], text)
    if not match["host"]:
        return [(address, None, port, protocol) for port in inner]
    outer = _range(match["host"], text)
    if len(inner) == 1:
        return [(address, outer, inner[0], protocol)]
    if len(inner) != len(outer):
        raise InvalidArgument(f"port {text[:80]!r} has {len(outer)} ports for {len(inner)} of the container")
    return [(address, range(one, one + 1), other, protocol) for one, other in zip(outer, inner, strict=True)]


def _address(text: str, whole: str) -> str:
    try:
        address = str(ipaddress.ip_address(text.strip("[]"))) if text else ""
    except ValueError:
        raise InvalidArgument(f"port {whole[:80]!r} has an address that is none: {text}") from None
    return "" if address in ANY else address


def _range(text: str, whole: str) -> range:
    first, _, last = text.partition("-")
    if not first or not (0 < int(first) <= int(last or first) <= LAST):
        raise InvalidArgument(f"port {whole[:80]!r}: {text} is not a port or a range of ports from 1 to {LAST}")
    return range(int(first), int(last or first) + 1)


def exposed(texts: Iterable[str]) -> list[Wanted]:
    """Read what an image exposes, such as ``80/tcp``, for `-P`."""
    return [each for text in texts for each in _parse(text)]


def choose(wanted: Sequence[Wanted], taken: Iterable[PortMapping]) -> list[PortMapping]:
    """Return mappings of free ports. Raises FailedPrecondition that says who may hold the one that is not free."""
    if wanted and rootless.ENTERED in os.environ:
        raise FailedPrecondition("a rootless daemon cannot publish ports of the host yet; leave -p out, or use root's")
    chosen: list[PortMapping] = []
    taken = list(taken)
    for address, outer, inner, protocol in wanted:
        made = None
        for port in outer if outer is not None else _any(address, protocol):
            made = PortMapping(port, inner, protocol, address)
            if holder(made) is None and not _clashes(made, [*chosen, *taken]):
                break
            if outer is not None and len(outer) == 1:
                break  # the caller finds out who has it
            made = None
        if made is None:
            what = f"of {outer[0]}-{outer[-1]}" if outer else "for it"
            raise FailedPrecondition(f"port {inner}/{protocol} cannot be published: no port {what} is free")
        chosen.append(made)
    return chosen


def _clashes(port: PortMapping, others: Iterable[PortMapping]) -> bool:
    return clash([port], list(others)) is not None


def _any(address: str, protocol: str) -> Iterable[int]:
    """Yield ports that Linux chooses, a few."""
    for _ in range(20):
        with closing(socket.socket(_family(address), PROTOCOLS[protocol])) as probe:
            probe.bind((address, 0))
            port = probe.getsockname()[1]
        yield port


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def holder(port: PortMapping) -> str | None:
    """Return who listens on a port of the host, None if nobody does.

    Raises FailedPrecondition for an address that the host does not have.
    """
    if port.protocol not in ("tcp", "udp"):
        return None
    with closing(socket.socket(_family(port.host_ip), PROTOCOLS[port.protocol])) as probe:
        if port.protocol == "tcp":
            # A server that has just ended leaves connections in TIME_WAIT, which do not matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.host_ip, port.host_port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise FailedPrecondition(f"address {port.host_ip} is not one of this host; see `ip address`") from None
            if error.errno == errno.EACCES:
                return None  # a plain user may not bind it; the plugin does not bind it either
            return _process(port) or "another program"
    return None


def foreign(port: PortMapping) -> str | None:
    """Return who has published a port through CNI's plugins without us, such as a pod or `nerdctl`."""
    from windlass_cni.cache import Cache

    try:
        for cached in Cache().all():
            if _clashes(port, _published(cached.capability_args)):
                return f"container {cached.attachment.container} of network {cached.network.name}"
    except OSError:
        pass  # another's records, which only root may read
    return None


def _published(arguments: Mapping[str, object]) -> list[PortMapping]:
    mappings = arguments.get("portMappings")
    found = []
    for each in mappings if isinstance(mappings, list) else ():
        if isinstance(each, Mapping) and isinstance(each.get("hostPort"), int):
            protocol, address = str(each.get("protocol") or "tcp").lower(), str(each.get("hostIP") or "")
            found.append(PortMapping(each["hostPort"], 0, protocol, "" if address in ANY else address))
    return found


def _process(port: PortMapping) -> str | None:
    inodes = {f"socket:[{inode}]" for inode in _inodes(port)}
    for link in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        try:
            if str(link.readlink()) in inodes:
                return f"process {link.parts[2]} ({(link.parent.parent / 'comm').read_text().strip()})"
        except OSError:
            continue
    return None


def _inodes(port: PortMapping) -> Iterable[str]:
    for name in (port.protocol, f"{port.protocol}6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()  # proc_pid_net(5): sl local_address rem_address st … inode
            listens = words[3] == ("0A" if port.protocol == "tcp" else "07")
            if listens and int(words[1].rpartition(":")[2], 16) == port.host_port:
                yield words[9]


def labelled(mappings: Sequence[PortMapping]) -> list[str]:
    """Return mappings as a label has them, ``127.0.0.1:8000-8010:8000-8010/tcp``: runs of ports are one text."""
    texts: list[str] = []
    runs: list[list[PortMapping]] = []
    for each in mappings:
        last = runs[-1][-1] if runs else None
        if last and each == PortMapping(last.host_port + 1, last.container_port + 1, last.protocol, last.host_ip):
            runs[-1].append(each)
        else:
            runs.append([each])
    for run in runs:
        first, end = run[0], run[-1]
        host = f"[{first.host_ip}]:" if ":" in first.host_ip else f"{first.host_ip}:" if first.host_ip else ""
        several = len(run) > 1
        outer = f"{first.host_port}-{end.host_port}" if several else f"{first.host_port}"
        inner = f"{first.container_port}-{end.container_port}" if several else f"{first.container_port}"
        texts.append(f"{host}{outer}:{inner}/{first.protocol}")
    return texts


def mappings(texts: Iterable[str]) -> list[PortMapping]:
    """Read a label. Raises InvalidArgument."""
    return [
        PortMapping(outer[0], inner, protocol, address)
        for address, outer, inner, protocol in parse(texts)
        if outer is not None
    ]
