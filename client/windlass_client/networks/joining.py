"""Plans the networks by name that a new container joins: their plugins, its addresses and its ports."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_client.datadir import DataDirectory, host_networks, run_directory
from windlass_client.networks import create, files, hosts, ports, settings
from windlass_client.networks.catalog import Catalog, Found
from windlass_client.networks.members import DEFAULT, Registry
from windlass_client.networks.options import NetworkOptions
from windlass_client.networks.planned import Plan, network_labels
from windlass_client.networks.record import Endpoint, NetworkRecord, PortMapping, clash, shown

if TYPE_CHECKING:
    from windlass_client.networks.ports import Wanted


def join(data: DataDirectory, plan: Plan, name: str, options: NetworkOptions, wanted: Sequence[Wanted]) -> Plan:
    """Return the plan with networks, the default one if no other is named; ``wanted`` are the ports to publish.

    Raises as `plan.make`.
    """
    catalog = settings.catalog()
    found = _found(catalog, options)
    _check_networks(found, options, wanted)
    registry = Registry(host_networks() / "attached")
    mappings = _free(registry, wanted)
    resolv, public = files.resolvers(options.dns, options.dns_search, options.dns_options, *files.host_resolvers())
    if public:
        servers = " and ".join(files.PUBLIC)
        sys.stderr.write(f"windlass: this host has no name server for containers; they ask {servers}; see --dns\n")
    digest = hashlib.sha256(str(data.path).encode()).hexdigest()[:8]
    key = f"{digest}-{plan.directory.name}"
    asked = NetworkRecord(
        id=plan.directory.name,
        name=name,
        key=key,
        hostname=plan.hostname,
        endpoints=_endpoints(found, options),
        conf_dir=str(catalog.conf_dir),
        bin_dirs=[str(each) for each in catalog.bin_dirs],
        netns=str(run_directory() / "netns" / key),
        registry=str(host_networks() / "attached"),
        results=str(host_networks() / "results"),
        ports=mappings,
        extra_hosts=list(map(files.extra_host, options.add_hosts)),
        dns={"servers": options.dns, "searches": options.dns_search, "options": options.dns_options},
    )
    settings.hook_program()
    told = {each.network: {"aliases": list(each.aliases)} for each in asked.endpoints}
    return replace(plan, record=asked, hosts=hosts.text([]), resolv=resolv, labels=network_labels(told, mappings))


def _found(catalog: Catalog, options: NetworkOptions) -> list[Found]:
    """Return the networks, all of whose plugins are installed; the default one is made if it is not there."""
    names = options.names
    if not names or DEFAULT in names:
        bridge = create.Wish(DEFAULT, options={"bridge": create.BRIDGE})
        if not catalog.path(DEFAULT).exists():
            # Without plugins, no network is left behind that nothing can be attached to.
            catalog.check_installed([create.network_of(bridge)])
            settings.check_iptables()
        create.default(catalog)
    found = [catalog.get(each) for each in names or [DEFAULT]]
    catalog.check_installed([each.network for each in found])
    if any(plugin.type in ("portmap", "firewall") for each in found for plugin in each.network.plugins):
        settings.check_iptables()
    return found


def _check_networks(found: Sequence[Found], options: NetworkOptions, wanted: Sequence[Wanted]) -> None:
    """Raise for what is asked for and the networks cannot do."""

    def capable(name: str) -> bool:
        return any(name in plugin.capabilities for each in found for plugin in each.network.plugins)

    names = ", ".join(each.network.name for each in found)
    for option, capability, given in (
        ("--ip", "ips", options.ips),
        ("--mac-address", "mac", options.mac),
        ("-p", "portMappings", wanted),
    ):
        if given and not capable(capability):
            raise FailedPrecondition(f"{option} is not possible with network {names}: none of its plugins can do it")
    if (options.ips or options.aliases) and [each.network.name for each in found] == [DEFAULT]:
        option = "--ip" if options.ips else "--network-alias"
        raise InvalidArgument(f"{option} needs a network of your own; `windlass network create` makes one")
    if options.ips and len(found) > 1:
        raise InvalidArgument("--ip with several networks is ambiguous; give one --network")


def _free(registry: Registry, wanted: Sequence[Wanted]) -> list[PortMapping]:
    """Return the ports of the host for a container. Raises FailedPrecondition that says who holds one."""
    if not wanted:
        return []
    with registry.locked():
        members = [each for each in registry.all() if each.alive]
    mappings = ports.choose(wanted, [port for each in members for port in each.ports])
    for mapping in mappings:
        for member in members:
            if clash([mapping], member.ports):
                raise FailedPrecondition(f"port {shown(mapping)} is in use by container {member.name}; stop it first")
        if who := ports.holder(mapping) or ports.foreign(mapping):
            raise FailedPrecondition(f"port {shown(mapping)} is in use by {who}; stop that, or publish another port")
    return mappings


def _endpoints(found: Sequence[Found], options: NetworkOptions) -> list[Endpoint]:
    made = []
    for number, each in enumerate(found):
        name = each.network.name
        own = [alias for network, alias in options.network_aliases if network == name]
        mac = options.mac if not number else ""
        made.append(Endpoint(name, f"eth{number}", [*options.aliases, *own], list(options.ips), mac))
    return made
