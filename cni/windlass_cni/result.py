"""What plugins answer to ADD: interfaces, addresses and routes, in whatever version of CNI the network has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windlass_cni.config import Json, Object


@dataclass(frozen=True, slots=True)
class Address:
    """An address with its prefix length, ``10.1.0.5/16``, the interface that has it, and the gateway."""

    interface: str
    address: str
    gateway: str = ""

    @property
    def ip(self) -> str:
        """The address alone."""
        return self.address.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface; ``sandbox`` is the namespace it is in, empty for one of the host."""

    name: str
    mac: str = ""
    sandbox: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one network; ``document`` is the result as the last plugin printed it."""

    network: str
    interface: str
    interfaces: tuple[Interface, ...]
    addresses: tuple[Address, ...]
    document: Object

    def of_container(self) -> list[Address]:
        """Return the addresses of the container's interface, in the plugin's order."""
        return [each for each in self.addresses if each.interface == self.interface]


def parse(network: str, interface: str, document: Object) -> Result:
    """Read a result of any version; what has not the form that the specification gives it is left out."""
    interfaces = tuple(
        Interface(_text(each, "name"), _text(each, "mac"), _text(each, "sandbox"))
        for each in _objects(document.get("interfaces"))
    )
    if "ip4" in document or "ip6" in document:  # versions 0.1.0 and 0.2.0
        old = [part for part in (document.get("ip4"), document.get("ip6")) if isinstance(part, Mapping)]
        addresses = [Address(interface, _text(each, "ip"), _text(each, "gateway")) for each in old]
    else:
        addresses = [
            Address(_owner(each, interfaces, interface), _text(each, "address"), _text(each, "gateway"))
            for each in _objects(document.get("ips"))
        ]
    return Result(network, interface, interfaces, tuple(each for each in addresses if each.address), document)


def _owner(address: Object, interfaces: Sequence[Interface], default: str) -> str:
    number = address.get("interface")
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(interfaces):
        return interfaces[number].name
    return default


def _objects(value: Json) -> list[Object]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _text(document: Object, key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""
