"""Which addresses networks and the host use, and which are free for another network."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_client.networks.catalog import Found

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
Used = tuple[Subnet, str]
"""A subnet, and who uses it."""

FIRST, LAST = 88, 127
"""10.88.0.0/16 is the default network's, as podman's; others have a /24 from 10.89.0.0 up."""


def parse(text: str, what: str = "--subnet") -> Subnet:
    """Read a subnet. Raises InvalidArgument."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidArgument(f"{what} {text[:80]!r} is not a subnet such as 10.5.0.0/24: {error}") from None


def of_network(found: Found) -> list[Subnet]:
    """Return the subnets of a network, as far as its file says."""
    subnets = []
    for plugin in found.network.plugins:
        for text in _texts(plugin.conf.get("ipam")):
            try:
                subnets.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                continue
    return subnets


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("subnet"), str):
            yield value["subnet"]
        yield from _texts(value.get("ranges"))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def used(networks: Iterable[Found]) -> list[Used]:
    """Return what networks and the host's routes use."""
    found = [(subnet, f"network {each.network.name}") for each in networks for subnet in of_network(each)]
    return [*found, *((subnet, f"interface {name} of this host") for subnet, name in routes())]


def routes() -> Iterator[tuple[Subnet, str]]:
    """Yield the host's routes with their interfaces, but for the default route."""
    for words in _table("/proc/net/route"):
        address, mask = (socket.inet_ntoa(struct.pack("=I", int(words[each], 16))) for each in (1, 7))
        subnet = ipaddress.ip_network(f"{address}/{mask}", strict=False)
        if subnet.prefixlen:
            yield subnet, words[0]
    for words in _table("/proc/net/ipv6_route", heading=0):
        route = ipaddress.IPv6Network((int(words[0], 16), int(words[1], 16)), strict=False)
        if route.prefixlen and words[9] != "lo" and not (route.is_link_local or route.is_multicast):
            yield route, words[9]


def _table(path: str, heading: int = 1) -> Iterator[list[str]]:
    try:
        lines = Path(path).read_text().splitlines()[heading:]
    except OSError:  # no IPv6
        return
    yield from (line.split() for line in lines)


def check_free(subnet: Subnet, users: Iterable[Used]) -> None:
    """Raise FailedPrecondition that says who uses a part of ``subnet``."""
    for other, user in users:
        if overlap(subnet, other):
            raise FailedPrecondition(f"subnet {subnet} overlaps {other} of {user}; choose another with --subnet")


def overlap(one: Subnet, other: Subnet) -> bool:
    """Return whether two subnets have addresses in common."""
    return one.version == other.version and one.overlaps(other)


def free(users: Iterable[Used], prefix: int = 24) -> Subnet:
    """Return a free subnet: /16 for the default network, /24 for others. Raises FailedPrecondition."""
    users = list(users)
    first = FIRST if prefix == 16 else FIRST + 1
    for second in range(first, LAST + 1):
        whole = ipaddress.ip_network(f"10.{second}.0.0/16")
        for subnet in whole.subnets(new_prefix=prefix):
            if not any(overlap(subnet, other) for other, _ in users):
                return subnet
    raise FailedPrecondition(f"no subnet from 10.{first}.0.0 to 10.{LAST}.255.255 is free; choose one with --subnet")


def free_ipv6(users: Iterable[Used]) -> Subnet:
    """Return a free unique local subnet (RFC 4193, 3.2.2)."""
    users = list(users)
    while True:
        subnet = ipaddress.IPv6Network(((0xFD << 120) | (secrets.randbits(40) << 80), 64))
        if not any(overlap(subnet, other) for other, _ in users):
            return subnet
