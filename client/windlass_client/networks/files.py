"""`/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a container, as docker makes them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path

from windlass.errors import InvalidArgument
from windlass_client import datadir
from windlass_client.networks import hosts

NAMES = ("hosts", "resolv.conf", "hostname")
STUB = Path("/run/systemd/resolve/resolv.conf")
"""The servers behind systemd-resolved, which the host asks at a loopback address."""
PUBLIC = ("8.8.8.8", "8.8.4.4")
"""Servers of a container whose host has none that a container can reach; docker's choice."""


def resolvers(
    servers: Sequence[str], searches: Sequence[str], options: Sequence[str], host: str, stub: str = ""
) -> tuple[str, bool]:
    """Return a container's resolv.conf, and whether it has the public servers for want of others.

    ``host`` and ``stub`` are the host's own file and systemd-resolved's. What is empty is the host's, without servers
    at loopback addresses, which are the container's own in there.
    """
    found = _parsed(host)
    own = [each for each in found["nameserver"] if not _loopback(each)]
    if not own and stub:
        own = [each for each in _parsed(stub)["nameserver"] if not _loopback(each)]
    public = not servers and not own
    lines = [f"nameserver {each}" for each in servers or own or PUBLIC]
    domains = list(searches) or found["search"]
    if domains and domains != ["."]:
        lines.append(f"search {' '.join(domains)}")
    words = list(options) or found["options"]
    if words:
        lines.append(f"options {' '.join(words)}")
    return "\n".join(lines) + "\n", public


def _parsed(text: str) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    for line in text.splitlines():
        key, *words = line.split() or [""]
        if key == "nameserver" and words:
            found[key].append(words[0])
        elif key in ("search", "domain"):
            found["search"] = words  # resolv.conf(5): the last one counts
        elif key == "options":
            found[key] += words
    return found


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True  # no address: nothing can ask it


def host_resolvers() -> tuple[str, str]:
    """Return the host's resolv.conf and systemd-resolved's; empty for one that is not there."""
    return _text(Path("/etc/resolv.conf")), _text(STUB)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def extra_host(text: str) -> tuple[str, str]:
    """Read ``NAME:ADDRESS`` or ``NAME=ADDRESS`` of `--add-host`. Raises InvalidArgument."""
    separator = "=" if "=" in text else ":"
    name, _, address = text.partition(separator)
    address = address.strip("[]")
    if not name or not address or any(each.isspace() for each in text):
        raise InvalidArgument(f"--add-host {text[:80]!r} is not NAME:ADDRESS, such as db:10.0.0.5 or host:host-gateway")
    if address != "host-gateway":
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidArgument(f"--add-host {text[:80]!r}: {address!r} is not an address") from None
    return name, address


def write(directory: Path, own_hosts: str, resolv: str, hostname: str) -> None:
    """Write a container's files, which every user in it may read."""
    for name, text in zip(NAMES, (own_hosts, resolv, f"{hostname}\n"), strict=True):
        datadir.write(directory / name, text, 0o644)


def host_hosts(extra: Sequence[tuple[str, str]]) -> str:
    """Return `/etc/hosts` of a container in the host's network: the host's own, with what was asked for."""
    lines = [f"{'127.0.0.1' if address == 'host-gateway' else address}\t{name}" for name, address in extra]
    return hosts.text(lines, _text(Path("/etc/hosts")) or hosts.LOCAL)
