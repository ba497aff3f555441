"""Prepares the network of one container: all is checked before anything is made, and undone when the rest fails."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.errors import FailedPrecondition, NotFound
from windlass_client import lookup
from windlass_client.datadir import DataDirectory
from windlass_client.networks import files, hosts, ports, record
from windlass_client.networks.options import CONTAINER, HOST, NetworkOptions, check_hostname
from windlass_client.networks.planned import Plan, network_labels
from windlass_linux import namespaces

if TYPE_CHECKING:
    from windlass_client.client import Client


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
    from windlass_client.networks import joining

    if options.publish_all:
        wanted += ports.exposed(exposed)
    return await asyncio.to_thread(joining.join, data, plan, name, options, wanted)


def _without_networks(plan: Plan, options: NetworkOptions, named: bool) -> Plan:
    extra = list(map(files.extra_host, options.add_hosts))
    plan = replace(plan, labels=network_labels({options.mode: {}}, []))
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
    plan = replace(plan, labels=network_labels({f"{CONTAINER}{other.id}": {}}, []))
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
