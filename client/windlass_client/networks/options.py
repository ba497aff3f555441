"""What `windlass run` is asked for about networks, read and checked before anything is made."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from windlass.errors import InvalidArgument
from windlass_client.networks import files, ports
from windlass_client.networks.ports import Wanted

HOST, NONE, CONTAINER = "host", "none", "container:"
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_ALIAS = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})")


@dataclass(frozen=True)
class NetworkOptions:
    """The options; what is empty is the default."""

    networks: Sequence[str] = ()
    """Names, or one of ``host``, ``none`` and ``container:NAME``."""
    aliases: Sequence[str] = ()
    ips: Sequence[str] = ()
    mac: str = ""
    publish: Sequence[str] = ()
    publish_all: bool = False
    dns: Sequence[str] = ()
    dns_search: Sequence[str] = ()
    dns_options: Sequence[str] = ()
    add_hosts: Sequence[str] = ()
    network_aliases: Sequence[tuple[str, str]] = ()
    """Pairs of network and alias, for aliases that count in one network only; for `compose`."""

    @property
    def mode(self) -> str:
        """``host``, ``none``, ``container:NAME``, or empty for networks by name."""
        special = [each for each in self.networks if _special(each)]
        return special[0] if special else ""

    @property
    def names(self) -> list[str]:
        """The networks by name, without doubles."""
        return list(dict.fromkeys(each for each in self.networks if not _special(each)))

    def check(self) -> list[Wanted]:
        """Return the ports to publish. Raises InvalidArgument for options that are wrong, or exclude each other."""
        wanted = ports.parse(self.publish)
        self._check_mode()
        for address in (*self.ips, *self.dns):
            _check_address(address)
        if self.mac and not _MAC.fullmatch(self.mac):
            raise InvalidArgument(f"--mac-address {self.mac[:80]!r} is not a MAC address such as 02:42:0a:05:00:02")
        if self.mac and int(self.mac[:2], 16) & 1:
            raise InvalidArgument(f"--mac-address {self.mac} is a group's address; the first byte must be even")
        for alias in (*self.aliases, *(alias for _, alias in self.network_aliases)):
            if not _ALIAS.fullmatch(alias):
                raise InvalidArgument(f"--network-alias {alias[:80]!r} is not the name of a host")
        for text in self.add_hosts:
            files.extra_host(text)
        for text in (*self.dns_search, *self.dns_options):
            if not text or any(each.isspace() for each in text):
                raise InvalidArgument(f"{text[:80]!r} is not a domain or an option of resolv.conf")
        return wanted

    def _check_mode(self) -> None:
        mode = self.mode
        if not mode:
            return
        if len(set(self.networks)) > 1:
            raise InvalidArgument(f"--network {mode} cannot be combined with another network")
        # Ports of a container in the host's network, or in none, are ignored with a word, as by docker.
        given: dict[str, object] = {
            "--ip": self.ips,
            "--mac-address": self.mac,
            "--network-alias": self.aliases,
        }
        if mode.startswith(CONTAINER):
            given |= {
                "-p": self.publish or self.publish_all,
                "--dns": self.dns or self.dns_search or self.dns_options,
                "--add-host": self.add_hosts,
            }
        for option, value in given.items():
            if value:
                raise InvalidArgument(f"{option} cannot be used with --network {mode}: it has no network of its own")


def _special(name: str) -> bool:
    return name in (HOST, NONE) or name.startswith(CONTAINER)


def check_hostname(text: str) -> str:
    """Return a host name, which stands in files of other containers too. Raises InvalidArgument."""
    if text and not _ALIAS.fullmatch(text):
        raise InvalidArgument(f"--hostname {text[:80]!r} is not the name of a host")
    return text


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"{text[:80]!r} is not an IP address") from None
