"""Networks as people see them: rows of `network ls`, documents of `network inspect`, in docker's own words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from windlass.errors import InvalidArgument, NotFound
from windlass_client.networks import subnets
from windlass_client.networks.catalog import OURS, Catalog, Found
from windlass_client.networks.members import Member, Registry
from windlass_cni.config import Json, Object

Document = dict[str, object]

SPECIAL = {"host": "host", "none": "null"}
"""Networks without a file, and their drivers."""


@dataclass(frozen=True)
class View:
    """One network, with what its file says for us; ``found`` is None for host and none."""

    name: str
    found: Found | None

    @property
    def id(self) -> str:
        """What tells it from others: of its name, which no other network has."""
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def driver(self) -> str:
        """The kind of network: that of its first plugin."""
        return self.found.network.plugins[0].type if self.found else SPECIAL[self.name]

    @property
    def ours(self) -> Object:
        """What `network create` has noted."""
        value = self.found.document.get(OURS) if self.found and self.found.ours else None
        return value if isinstance(value, Mapping) else {}

    def mapping(self, key: str) -> Object:
        """Return a part of what we have noted: ``labels`` or ``options``."""
        value = self.ours.get(key)
        return value if isinstance(value, Mapping) else {}

    def row(self) -> Document:
        """Return the row of `network ls`."""
        return {
            "ID": self.id[:12],
            "Name": self.name,
            "Driver": self.driver,
            "Scope": "local",
            "Subnet": [str(each) for each in subnets.of_network(self.found)] if self.found else [],
            "Internal": bool(self.ours.get("internal")),
            "IPv6": bool(self.ours.get("ipv6")),
            "CreatedAt": self.ours.get("created", ""),
            "Labels": self.mapping("labels"),
            "File": str(self.found.path) if self.found else "",
        }

    def document(self, members: Iterable[Member]) -> Document:
        """Return the document of `network inspect`."""
        return {
            "Name": self.name,
            "Id": self.id,
            "Created": self.ours.get("created", ""),
            "Scope": "local",
            "Driver": self.driver,
            "EnableIPv6": bool(self.ours.get("ipv6")),
            "IPAM": {"Driver": self._ipam_driver(), "Config": self._ipam_config()},
            "Internal": bool(self.ours.get("internal")),
            "Containers": {
                member.id: _container(member, self.name) for member in members if self.name in member.networks
            },
            "Options": self.mapping("options"),
            "Labels": self.mapping("labels"),
            "File": str(self.found.path) if self.found else "",
            "Plugins": [plugin.type for plugin in self.found.network.plugins] if self.found else [],
        }

    def _ipam(self) -> Object:
        value = self.found.network.plugins[0].conf.get("ipam") if self.found else None
        return value if isinstance(value, Mapping) else {}

    def _ipam_driver(self) -> Json:
        return self._ipam().get("type", "")

    def _ipam_config(self) -> list[Document]:
        """Return subnets; what is not as host-local has it is left out."""
        names = {"subnet": "Subnet", "gateway": "Gateway", "rangeStart": "RangeStart", "rangeEnd": "RangeEnd"}
        ranges = self._ipam().get("ranges")
        entries: list[Json] = [self._ipam()]
        for each in ranges if isinstance(ranges, list) else ():
            entries += each if isinstance(each, list) else []
        return [
            {title: entry[key] for key, title in names.items() if key in entry}
            for entry in entries
            if isinstance(entry, Mapping) and "subnet" in entry
        ]


def _container(member: Member, network: str) -> Document:
    attached = member.networks[network]
    four = next((each for each in attached.addresses if ":" not in each), "")
    six = next((each for each in attached.addresses if ":" in each), "")
    return {
        "Name": member.name,
        "EndpointID": hashlib.sha256(f"{member.key} {network}".encode()).hexdigest(),
        "MacAddress": attached.mac,
        "IPv4Address": four,
        "IPv6Address": six,
        "Aliases": list(attached.aliases),
    }


def all_views(catalog: Catalog) -> tuple[list[View], Sequence[Exception]]:
    """Return every network by name, and what is wrong with the files that hold none."""
    found, problems = catalog.all()
    views = [View(each.network.name, each) for each in found]
    views += [View(name, None) for name in SPECIAL]
    return sorted(views, key=lambda each: each.name), problems


def view(catalog: Catalog, word: str) -> View:
    """Return the network of a name, an ID, or the beginning of only one ID. Raises NotFound, InvalidArgument."""
    views, _ = all_views(catalog)
    for each in views:
        if word in (each.name, each.id):
            return each
    begun = [each for each in views if word and each.id.startswith(word)]
    if len(begun) > 1:
        names = ", ".join(each.name for each in begun)
        raise InvalidArgument(f'several networks have IDs that begin with "{word}": {names}; type more of the ID')
    if not begun:
        raise NotFound(f'network "{word[:80]}" does not exist; `windlass network ls` lists those that do')
    return begun[0]


def select(views: Iterable[View], filters: Iterable[str]) -> list[View]:
    """Return the networks that match: all labels, and one of each other key's values. Raises InvalidArgument."""
    wanted: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if key not in FILTERS or not equals:
            raise InvalidArgument(
                f"filter {text[:80]!r} is not known; there are {', '.join(f'{each}=' for each in FILTERS)}"
            )
        wanted.setdefault(key, []).append(value)

    def fits(view: View) -> bool:
        matches = {key: [FILTERS[key](view, value) for value in values] for key, values in wanted.items()}
        return all(all(found) if key == "label" else any(found) for key, found in matches.items())

    return [each for each in views if fits(each)]


def _has_label(view: View, value: str) -> bool:
    key, equals, text = value.partition("=")
    labels = view.mapping("labels")
    return key in labels and (not equals or labels[key] == text)


FILTERS: Mapping[str, Callable[[View, str], bool]] = {
    "name": lambda view, value: value in view.name,
    "id": lambda view, value: view.id.startswith(value),
    "driver": lambda view, value: view.driver == value,
    "label": _has_label,
    "scope": lambda view, value: value == "local",
    "type": lambda view, value: value == ("builtin" if view.found is None or view.name == "bridge" else "custom"),
}


def attached(registry: Registry, network: str) -> list[Member]:
    """Return the containers that are attached to a network now."""
    return [each for each in registry.all() if network in each.networks and each.alive]
