"""Makes networks: conflists for Debian's CNI plugins, in a directory of our own."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from windlass_client import datadir
from windlass_client.networks import record, subnets
from windlass_client.networks.catalog import OURS, Catalog, Found
from windlass_client.networks.members import DEFAULT
from windlass_client.networks.subnets import Subnet
from windlass_cni.config import Network, parse

VERSION = "1.0.0"
"""Of CNI: Debian 12's plugins know no later one."""
DRIVERS = ("bridge", "macvlan", "ipvlan")
RESERVED = ("host", "none", "container", "default")
BRIDGE = "windlass0"
"""The default network's interface."""
OPTIONS = {
    "bridge": ("bridge", "mtu", "vlan"),
    "macvlan": ("parent", "mode", "mtu"),
    "ipvlan": ("parent", "mode", "mtu"),
}
MODES = {"macvlan": ("bridge", "private", "vepa", "passthru"), "ipvlan": ("l2", "l3", "l3s")}
DOCKER_OPTIONS = {
    "com.docker.network.bridge.name": "bridge",
    "com.docker.network.driver.mtu": "mtu",
    "macvlan_mode": "mode",
    "ipvlan_mode": "mode",
}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,63}")
_INTERFACE = re.compile(r"[^\s/:]{1,15}")


@dataclass(frozen=True)
class Wish:
    """What `windlass network create` is asked for."""

    name: str
    driver: str = "bridge"
    subnets: Sequence[str] = ()
    gateways: Sequence[str] = ()
    ip_ranges: Sequence[str] = ()
    internal: bool = False
    ipv6: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def create(catalog: Catalog, wish: Wish) -> Found:
    """Make a network. Raises AlreadyExists, InvalidArgument, FailedPrecondition for addresses that are in use."""
    options = _check(wish)
    with locked(catalog):
        present, _ = catalog.all()
        if any(each.network.name == wish.name for each in present):
            raise AlreadyExists(f'network "{wish.name}" already exists; choose another name, or remove it')
        chosen = _subnets(wish, present)
        document = conflist(wish, options, chosen)
        if wish.driver == "bridge":
            _check_bridge(str(document["plugins"][0]["bridge"]), present)
        path = catalog.path(wish.name)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            datadir.write(path, json.dumps(document, indent=2) + "\n", 0o644)
        except OSError as error:
            raise PermissionDenied(f"{path} cannot be written: {error.strerror}; see --cni-conf-dir") from None
        return catalog.get(wish.name)


def default(catalog: Catalog) -> Found:
    """Return the network of containers that ask for none; it is made when it is first used."""
    try:
        return catalog.get(DEFAULT)
    except NotFound:
        pass
    try:
        return create(catalog, Wish(DEFAULT, options={"bridge": BRIDGE}))
    except AlreadyExists:
        return catalog.get(DEFAULT)


def network_of(wish: Wish) -> Network:
    """Return a network as it would be made, with some subnet."""
    return parse(json.dumps(conflist(wish, wish.options, [subnets.parse("10.88.0.0/16")])))


@contextmanager
def locked(catalog: Catalog) -> Iterator[None]:
    """Keep others from making and removing networks of ours."""
    try:
        with record.locked(catalog.own / ".lock"):
            yield
    except PermissionError as error:
        raise PermissionDenied(f"{catalog.own} cannot be written: {error.strerror}; networks are root's") from None


def _check(wish: Wish) -> Mapping[str, str]:
    """Check all that does not depend on other networks, and return the options by our names."""
    if not _NAME.fullmatch(wish.name) or wish.name in RESERVED:
        reserved = ", ".join(RESERVED)
        raise InvalidArgument(
            f"network name {wish.name[:80]!r} is not 1 to 64 letters, digits, '_', '.' and '-', or is one of {reserved}"
        )
    if wish.driver not in DRIVERS:
        raise InvalidArgument(f"driver {wish.driver[:40]!r} is not known; there are {', '.join(DRIVERS)}")
    options = {DOCKER_OPTIONS.get(key, key): value for key, value in wish.options.items()}
    for key in options:
        if key not in OPTIONS[wish.driver]:
            known = ", ".join(OPTIONS[wish.driver])
            raise InvalidArgument(f"option {key[:80]!r} is not known to driver {wish.driver}; it knows {known}")
    for key in ("bridge", "parent"):
        if key in options and not _INTERFACE.fullmatch(options[key]):
            raise InvalidArgument(f"option {key}={options[key][:40]!r} is not the name of an interface")
    for key in ("mtu", "vlan"):
        if key in options and not (options[key].isascii() and options[key].isdigit() and len(options[key]) < 6):
            raise InvalidArgument(f"option {key}={options[key][:40]!r} is not a number")
    _check_parent(wish, options)
    return options


def _check_parent(wish: Wish, options: Mapping[str, str]) -> None:
    if wish.driver == "bridge":
        return
    if "parent" not in options:
        raise InvalidArgument(f"driver {wish.driver} needs an interface of the host; add --opt parent=eth0")
    if not Path("/sys/class/net", options["parent"]).exists() and not _interface_exists(options["parent"]):
        raise FailedPrecondition(f"interface {options['parent']} does not exist; `ip link` lists those that do")
    if not wish.subnets:
        raise InvalidArgument(f"driver {wish.driver} needs the subnet of its parent's network; add --subnet")
    modes = MODES[wish.driver]
    if options.get("mode", modes[0]) not in modes:
        raise InvalidArgument(f"option mode={options['mode'][:40]!r} is not one of {', '.join(modes)}")


def _interface_exists(name: str) -> bool:
    """Return whether this network namespace has an interface; /sys may be another namespace's."""
    import socket

    return name in [each for _, each in socket.if_nameindex()]


def _subnets(wish: Wish, present: Sequence[Found]) -> list[Subnet]:
    used = subnets.used(present)
    chosen = [subnets.parse(text) for text in wish.subnets]
    if wish.driver == "bridge":
        for number, subnet in enumerate(chosen):
            subnets.check_free(subnet, [*used, *((other, "this network") for other in chosen[:number])])
    six = any(each.version == 6 for each in chosen)
    if six and not wish.ipv6:
        raise InvalidArgument("--subnet is of IPv6; add --ipv6")
    if all(each.version == 6 for each in chosen):
        chosen.insert(0, subnets.free(used, 16 if wish.name == DEFAULT else 24))
    if wish.ipv6 and not six:
        chosen.append(subnets.free_ipv6(used))
    return chosen


def _check_bridge(name: str, present: Sequence[Found]) -> None:
    """Raise FailedPrecondition if another network has the bridge."""
    for found in present:
        if any(plugin.conf.get("bridge") == name for plugin in found.network.plugins):
            raise FailedPrecondition(f"bridge {name} is network {found.network.name}'s; choose another --opt bridge")


Document = dict[str, object]


def conflist(wish: Wish, options: Mapping[str, str], chosen: Sequence[Subnet]) -> dict[str, list[Document]]:
    """Return the document of a network."""
    make = _bridge if wish.driver == "bridge" else _vlan
    plugins: list[Document] = [make(wish, options, _ipam(wish, chosen))]
    if wish.driver == "bridge":
        if not wish.internal:
            plugins.append({"type": "portmap", "capabilities": {"portMappings": True}})
        # Lets nothing pass between the bridges of two networks, and something through a FORWARD policy of DROP.
        plugins.append({"type": "firewall", "ingressPolicy": "same-bridge"})
    ours = {
        "driver": wish.driver,
        "internal": wish.internal,
        "ipv6": wish.ipv6,
        "options": dict(wish.options),
        "labels": dict(wish.labels),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    document: Document = {"cniVersion": VERSION, "name": wish.name, OURS: ours, "plugins": plugins}
    return document  # type: ignore[return-value] # the other keys are texts, which no caller reads


def _bridge(wish: Wish, options: Mapping[str, str], ipam: Document) -> Document:
    made: Document = {
        "type": "bridge",
        "bridge": options.get("bridge") or f"wl-{hashlib.sha256(wish.name.encode()).hexdigest()[:10]}",
        "isGateway": True,
        "ipMasq": not wish.internal,
        "hairpinMode": True,
        "capabilities": {"ips": True, "mac": True},
        "ipam": ipam,
    }
    return made | {key: int(options[key]) for key in ("mtu", "vlan") if key in options}


def _vlan(wish: Wish, options: Mapping[str, str], ipam: Document) -> Document:
    made: Document = {
        "type": wish.driver,
        "master": options["parent"],
        "mode": options.get("mode", MODES[wish.driver][0]),
        "capabilities": {"ips": True, **({"mac": True} if wish.driver == "macvlan" else {})},
        "ipam": ipam,
    }
    return made | ({"mtu": int(options["mtu"])} if "mtu" in options else {})


def _ipam(wish: Wish, chosen: Sequence[Subnet]) -> Document:
    gateways = [_address(each, "--gateway") for each in wish.gateways]
    ranges = [subnets.parse(each, "--ip-range") for each in wish.ip_ranges]
    made = []
    for subnet in chosen:
        entry = {"subnet": str(subnet)}
        entry["gateway"] = str(next((each for each in gateways if each in subnet), subnet[1]))
        for each in ranges:
            if each.version == subnet.version and each.subnet_of(subnet):  # type: ignore[arg-type] # of one version
                entry |= _limits(each, subnet)
        made.append([entry])
    _check_inside("--gateway", gateways, chosen)
    _check_inside("--ip-range", [each[0] for each in ranges], chosen)
    routes = [] if wish.internal else [{"dst": "::/0" if each.version == 6 else "0.0.0.0/0"} for each in chosen]
    leases = str(datadir.host_networks() / "leases")
    return {"type": "host-local", "dataDir": leases, "ranges": made, "routes": routes}


def _limits(part: Subnet, subnet: Subnet) -> dict[str, str]:
    """Return the first and the last address that a container may have."""
    first = part[1] if part[0] == subnet[0] else part[0]
    last = part[-2] if part[-1] == subnet[-1] and part.num_addresses > 2 else part[-1]
    return {"rangeStart": str(first), "rangeEnd": str(last)}


def _address(text: str, what: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"{what} {text[:80]!r} is not an address") from None


def _check_inside(
    what: str, addresses: Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address], chosen: Sequence[Subnet]
) -> None:
    for address in addresses:
        if not any(address in subnet for subnet in chosen):
            raise InvalidArgument(f"{what} {address} is not in the network's subnet {', '.join(map(str, chosen))}")
