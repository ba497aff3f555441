"""The part of docker's inspect that is about networks and ports."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from windlass_client import labels
from windlass_client.datadir import DataDirectory, host_networks
from windlass_client.networks.members import Attached, Registry
from windlass_client.networks.published import of_labels

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_oci.runtime_spec import Spec

Document = dict[str, object]


def names(container: Container) -> list[str]:
    """Return the networks that a container was asked to be in; another client may have written anything there."""
    try:
        return [str(each["name"]) for each in json.loads(container.labels.get(labels.NETWORKS) or "[]")]
    except (ValueError, TypeError, KeyError):
        return []


def mode(container: Container, spec: Spec) -> str:
    """Return the first network, ``host``, ``none`` or ``container:ID``."""
    if found := names(container):
        return found[0]
    namespaces = {each["type"]: each.get("path", "") for each in spec["linux"].get("namespaces") or []}
    if "network" not in namespaces:
        return "host"
    return f"container:{namespaces['network']}" if namespaces["network"] else "none"


def port_bindings(container: Container) -> Document:
    """Return the published ports by the container's."""
    found: dict[str, list[dict[str, str]]] = {}
    for port in of_labels(container.labels):
        entry = {"HostIp": port.host_ip, "HostPort": str(port.host_port)}
        found.setdefault(f"{port.container_port}/{port.protocol}", []).append(entry)
    return {**found}


def settings(container: Container, data: DataDirectory, pid: int) -> Document:
    """Return addresses and ports of a container that runs; without a process there are none."""
    attached = _attached(container, data) if pid else {}
    first = next(iter(attached.values()), None)
    return {
        "Ports": port_bindings(container) if pid else {},
        "SandboxKey": f"/proc/{pid}/ns/net" if pid else "",
        "IPAddress": first["IPAddress"] if first else "",
        "Gateway": first["Gateway"] if first else "",
        "MacAddress": first["MacAddress"] if first else "",
        "Networks": {name: attached.get(name) or _entry(None) for name in names(container)},
    }


def _attached(container: Container, data: DataDirectory) -> dict[str, dict[str, object]]:
    directory = str(data.container(container.id))
    for member in Registry(host_networks() / "attached").all():
        if member.directory == directory:
            return {name: _entry(each) for name, each in member.networks.items()}
    return {}


def _entry(attached: Attached | None) -> dict[str, object]:
    four = next((each for each in attached.addresses if ":" not in each), "") if attached else ""
    six = next((each for each in attached.addresses if ":" in each), "") if attached else ""
    gateway = next((each for each in attached.gateways if ":" not in each), "") if attached else ""
    return {
        "IPAddress": four.partition("/")[0],
        "IPPrefixLen": int(four.partition("/")[2] or 0),
        "GlobalIPv6Address": six.partition("/")[0],
        "GlobalIPv6PrefixLen": int(six.partition("/")[2] or 0),
        "Gateway": gateway,
        "MacAddress": attached.mac if attached else "",
        "Aliases": list(attached.aliases) if attached else None,
    }
