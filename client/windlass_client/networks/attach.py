"""Attaches a container that is being created to its networks, and detaches one that has ended.

Both may run at any time and any number of times: `attach` first takes back what an earlier run of the container has
left, after a reboot or after its runtime was killed, and what is not taken back stays on record until it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from windlass.errors import Error, FailedPrecondition, Unknown
from windlass_client.networks import record
from windlass_client.networks.catalog import Catalog
from windlass_client.networks.members import Attached, Member, Registry, entered
from windlass_client.networks.record import Endpoint, NetworkRecord, PortMapping, clash, shown
from windlass_cni.blocking import BlockingNetworks
from windlass_cni.cache import Cache
from windlass_cni.config import Json
from windlass_cni.protocol import Attachment, capability_args
from windlass_cni.result import Result
from windlass_linux import namespaces

PLUGIN_TIMEOUT = 12.0
"""Seconds for one plugin: the client waits 30 s for a task to be created, and the plugins may have to be undone."""


def attach(directory: Path, asked: NetworkRecord, pid: int) -> None:
    """Attach a container, whose first process is ``pid``, to its networks, or to none.

    Raises the plugin's error, FailedPrecondition for a port that is taken, NotFound for a network that is gone.
    """
    with record.locked(directory / record.LOCK):
        detach_locked(asked)
        registry = Registry(Path(asked.registry))
        _enter(registry, entered(asked, directory, pid))
        try:
            with namespaces.files_for([Path(asked.netns)]):
                namespaces.pin(f"/proc/{pid}/ns/net", Path(asked.netns))
            member = _add_all(registry, asked)
            with registry.locked():
                registry.put(member)
                registry.rewrite_hosts(member.networks, member.key)
        except BaseException as error:
            try:
                detach_locked(asked)
            except Error as more:
                if isinstance(error, Error):
                    raise type(error)(f"{error}; it is still attached in part: {more}") from None
            raise


def detach(directory: Path, asked: NetworkRecord) -> None:
    """Detach a container from all networks. Raises the plugins' errors; what is left can be detached later."""
    with record.locked(directory / record.LOCK):
        detach_locked(asked)


def detach_locked(asked: NetworkRecord) -> None:
    """Detach a container; for the holder of its lock."""
    netns = Path(asked.netns)
    networks_of(asked).delete_all(asked.key, str(netns) if namespaces.is_there(netns) else "")
    namespaces.remove(netns)
    registry = Registry(Path(asked.registry))
    with registry.locked():
        if (member := registry.get(asked.key)) is not None:
            registry.drop(asked.key)
            registry.rewrite_hosts(member.networks)


def networks_of(asked: NetworkRecord) -> BlockingNetworks:
    """Return what attaches and detaches."""
    directories = tuple(map(Path, asked.bin_dirs))
    return BlockingNetworks(directories, Cache(Path(asked.results)), PLUGIN_TIMEOUT)


def _enter(registry: Registry, member: Member) -> None:
    """Enter a container, so that no other can take its ports; what ended without its hook gives up the port.

    Two containers cannot wait for each other here: each has left the registry before it looks at who is in it.
    """
    while True:
        with registry.locked():
            clashes = ((clash(member.ports, each.ports), each) for each in registry.all())
            port, other = next((each for each in clashes if each[0]), (None, member))
            if port is None:
                registry.put(member)
                return
        if other.alive:
            raise FailedPrecondition(f"port {shown(port)} is in use by container {other.name}; stop it first")
        collect(registry, other)


def collect(registry: Registry, gone: Member) -> None:
    """Detach a member that has ended without its hook having run. Raises the plugins' errors."""
    directory = Path(gone.directory)
    with record.locked(directory / record.LOCK):
        asked = record.read(directory)
        if registry.get(gone.key) != gone:
            return  # it was detached meanwhile, and may be attached again
        if asked is None:
            registry.drop(gone.key)
        else:
            detach_locked(asked)


def _add_all(registry: Registry, asked: NetworkRecord) -> Member:
    """Attach a container to each of its networks, and return what it has in them."""
    catalog, published = catalog_of(asked), False
    networks: dict[str, Attached] = {}
    for endpoint in asked.endpoints:
        plugins = catalog.get(endpoint.network).network.plugins
        capable = any("portMappings" in plugin.capabilities for plugin in plugins)
        networks[endpoint.network] = add(asked, endpoint, asked.ports if capable and not published else ())
        published = published or capable
    if asked.ports and not published:
        raise FailedPrecondition(f"no network of container {asked.name} can publish ports: none has the plugin portmap")
    member = registry.get(asked.key)
    assert member is not None  # entered above, and only the holder of the container's lock drops it
    return replace(member, networks=networks)


def catalog_of(asked: NetworkRecord) -> Catalog:
    """Return where the networks and plugins of a container are."""
    return Catalog(Path(asked.conf_dir), tuple(map(Path, asked.bin_dirs)))


def add(asked: NetworkRecord, endpoint: Endpoint, ports: Sequence[PortMapping]) -> Attached:
    """Attach a container to one network. Raises the plugin's error, named; nothing is left of it then."""
    catalog = catalog_of(asked)
    network = catalog.get(endpoint.network).network
    catalog.check_installed([network])
    attachment = Attachment(asked.key, asked.netns, endpoint.interface, _cni_args(asked))
    try:
        result = networks_of(asked).add(network, attachment, _capability_args(asked, endpoint, ports))
    except Error as error:
        raise type(error)(f'network "{endpoint.network}": {error}') from None
    except OSError as error:
        raise Unknown(f"results of CNI cannot be kept in {asked.results}: {error.strerror}") from None
    return attached(endpoint, result)


def _cni_args(asked: NetworkRecord) -> tuple[tuple[str, str], ...]:
    return (("IgnoreUnknown", "1"), ("K8S_POD_NAME", asked.name))


def _capability_args(asked: NetworkRecord, endpoint: Endpoint, ports: Sequence[PortMapping]) -> Mapping[str, Json]:
    mappings: list[Json] = [_mapping(each) for each in ports]
    aliases: dict[str, Json] = {endpoint.network: [asked.name, *endpoint.aliases]}
    return capability_args(
        {
            "portMappings": mappings,
            "ips": list(endpoint.ips),
            "mac": endpoint.mac,
            "aliases": aliases,
            "dns": {key: list(value) for key, value in asked.dns.items() if value},
        }
    )


def _mapping(port: PortMapping) -> Mapping[str, Json]:
    made: dict[str, Json] = {"hostPort": port.host_port, "containerPort": port.container_port}
    return made | {"protocol": port.protocol} | ({"hostIP": port.host_ip} if port.host_ip else {})


def attached(endpoint: Endpoint, result: Result) -> Attached:
    """Return what a container got in a network."""
    addresses = result.of_container()
    macs = [each.mac for each in result.interfaces if each.sandbox and each.name == endpoint.interface]
    return Attached(
        interface=endpoint.interface,
        addresses=[each.address for each in addresses],
        gateways=[each.gateway for each in addresses if each.gateway],
        mac=macs[0] if macs else endpoint.mac,
        aliases=endpoint.aliases,
    )
