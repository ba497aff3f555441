"""Prepares the network of one container: all is checked before anything is made, and undone when the rest fails."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.errors import FailedPrecondition, InvalidArgument, NotFound
from windlass_client import labels, lookup
from windlass_client.datadir import DataDirectory, host_networks, run_directory
from windlass_client.networks import create, files, hosts, ports, record, settings
from windlass_client.networks.attach import clash, shown
from windlass_client.networks.catalog import Catalog, Found
from windlass_client.networks.hook import NAME
from windlass_client.networks.members import DEFAULT, Registry
from windlass_client.networks.options import CONTAINER, HOST, NetworkOptions, check_hostname
from windlass_client.networks.ports import Wanted
from windlass_client.networks.record import Endpoint, NetworkRecord, PortMapping
from windlass_linux import namespaces
from windlass_oci import mounts as oci_mounts

if TYPE_CHECKING:
    from windlass_client.client import Client
    from windlass_oci.runtime_spec import Hook, Hooks, Spec

LABEL_LIMIT = 4000
"""Bytes of a label's value; containerd takes 4096 with its key."""
HOOK_TIMEOUT = 60


@dataclass(frozen=True)
class Plan:
    """What one container's network needs on disk, in its record and in its spec."""

    directory: Path
    hostname: str
    hosts: str = ""
    resolv: str = ""
    record: NetworkRecord | None = None
    netns: str | None = ""
    """Empty is a new namespace, None the host's."""
    files_of: Path | None = None
    """The directory of another container, whose files this one has."""
    labels: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        """Write the container's files and what its hooks read."""
        if self.files_of is None:
            files.write(self.directory, self.hosts, self.resolv, self.hostname)
        if self.record is not None:
            record.write(self.directory, self.record)

    def apply(self, spec: Spec) -> None:
        """Change a spec so that the container has this network."""
        linux, place = spec["linux"], self.files_of or self.directory
        others = [each for each in linux.get("namespaces", []) if each["type"] != "network"]
        if self.netns:
            others.append({"type": "network", "path": self.netns})
        elif self.netns is not None:
            others.append({"type": "network"})
        linux["namespaces"] = others
        spec["hostname"] = self.hostname
        taken = {each["destination"] for each in spec["mounts"]}
        for name in files.NAMES:
            if (target := f"/etc/{name}") not in taken and (place / name).exists():
                spec["mounts"].append(oci_mounts.bind(str(place / name), target))
        if self.record is not None:
            spec["hooks"] = self._hooks(spec.get("hooks", {}))

    def _hooks(self, before: Hooks) -> Hooks:
        program = str(settings.hook_program())

        def hook(step: str) -> Hook:
            arguments = [NAME, step, str(self.directory)]
            return {"path": program, "args": arguments, "env": [f"PATH={settings.PATH}"], "timeout": HOOK_TIMEOUT}

        attach, detach = [hook("attach")], [hook("detach")]
        return {
            **before,
            "createRuntime": [*before.get("createRuntime", []), *attach],
            "poststop": [*before.get("poststop", []), *detach],
        }

    def undo(self) -> None:
        """Remove the files of a container that is not there after all."""
        for name in (*files.NAMES, record.FILE, record.LOCK):
            (self.directory / name).unlink(missing_ok=True)
        try:
            self.directory.rmdir()
        except OSError:
            pass  # others have files there


async def make(
    client: Client, id: str, name: str, hostname: str, options: NetworkOptions, exposed: Sequence[str] = ()
) -> Plan:
    """Check what is asked for and return the plan of a container that is about to be created.

    ``exposed`` is what `-P` publishes. Raises InvalidArgument, NotFound for a network or container that does not
    exist, and FailedPrecondition for what is missing or in use.
    """
    wanted = options.check()
    data = DataDirectory.of(client.connection)
    plan = Plan(data.container(id), check_hostname(hostname) or id[:63])
    if options.mode.startswith(CONTAINER):
        return await _of_container(client, data, plan, options)
    if options.mode and (options.publish or options.publish_all):
        sys.stderr.write(f"windlass: published ports are ignored with --network {options.mode}\n")
    if options.mode:
        return await asyncio.to_thread(_without_networks, plan, options, bool(hostname))
    if options.publish_all:
        wanted += ports.exposed(exposed)
    return await asyncio.to_thread(_with_networks, data, plan, name, options, wanted)


def _without_networks(plan: Plan, options: NetworkOptions, named: bool) -> Plan:
    extra = list(map(files.extra_host, options.add_hosts))
    plan = replace(plan, labels=_labels({options.mode: {}}, []))
    if options.mode == HOST:
        given = options.dns or options.dns_search or options.dns_options
        resolv = _resolv(options) if given else files.host_resolvers()[0]
        own = plan.hostname if named else socket.gethostname()
        return replace(plan, hostname=own, netns=None, hosts=files.host_hosts(extra), resolv=resolv)
    lines = [f"{address}\t{name}" for name, address in extra if address != "host-gateway"]
    return replace(plan, hosts=hosts.text([*lines, f"127.0.0.1\t{plan.hostname}"]), resolv=_resolv(options))


def _resolv(options: NetworkOptions) -> str:
    return files.resolvers(options.dns, options.dns_search, options.dns_options, *files.host_resolvers())[0]


async def _of_container(client: Client, data: DataDirectory, plan: Plan, options: NetworkOptions) -> Plan:
    """Share the network of another container, and with it its host name and its files."""
    word = options.mode.removeprefix(CONTAINER)
    other = await lookup.container(client, word)
    try:
        process = await client.tasks.get(other.id)
    except NotFound:
        process = None
    if process is None or not process.pid:
        raise FailedPrecondition(f"container {word} is not running, so its network cannot be shared; start it first")
    plan = replace(plan, labels=_labels({f"{CONTAINER}{other.id}": {}}, []))
    return await asyncio.to_thread(_share, plan, options, data.container(other.id), process.pid)


def _share(plan: Plan, options: NetworkOptions, directory: Path, pid: int) -> Plan:
    """Return the plan of a container in the network of the one that has ``directory`` and the process ``pid``."""
    theirs = record.read(directory)
    netns = Path(f"/proc/{pid}/ns/net")
    if theirs is not None and namespaces.is_there(Path(theirs.netns)):
        # This name outlives a restart of the other container.
        plan, netns = replace(plan, hostname=theirs.hostname), Path(theirs.netns)
    elif netns.stat().st_ino == Path("/proc/self/ns/net").stat().st_ino:
        return replace(_without_networks(plan, replace(options, networks=(HOST,)), named=True), labels=plan.labels)
    if (directory / "hosts").exists():
        return replace(plan, netns=str(netns), files_of=directory)
    return replace(plan, netns=str(netns), hosts=hosts.text([]), resolv=_resolv(options))


def _with_networks(
    data: DataDirectory, plan: Plan, name: str, options: NetworkOptions, wanted: Sequence[Wanted]
) -> Plan:
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
    return replace(plan, record=asked, hosts=hosts.text([]), resolv=resolv, labels=_labels(told, mappings))


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


def _labels(networks: Mapping[str, object], mappings: Sequence[PortMapping]) -> dict[str, str]:
    made = {labels.NETWORKS: json.dumps(networks)}
    if mappings:
        made[labels.PORTS] = json.dumps(ports.labelled(mappings))
    for key, value in made.items():
        if len(value) > LABEL_LIMIT:
            what = "ports" if key == labels.PORTS else "networks"
            raise InvalidArgument(f"too many {what} for the record of one container; use ranges, or --network host")
    return made
