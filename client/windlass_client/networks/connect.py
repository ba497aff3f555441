"""`network connect` and `disconnect`: changes the networks of a container that runs, and those of its next start."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.errors import AlreadyExists, FailedPrecondition, NotFound
from windlass_client import labels, lookup
from windlass_client.datadir import DataDirectory
from windlass_client.networks import attach, create, record, settings
from windlass_client.networks.members import DEFAULT, Registry
from windlass_client.networks.options import NetworkOptions
from windlass_client.networks.record import Endpoint, NetworkRecord
from windlass_linux import namespaces

if TYPE_CHECKING:
    from windlass_client.client import Client


async def connect(client: Client, network: str, word: str, aliases: Sequence[str], ips: Sequence[str]) -> None:
    """Attach a container to another network. Raises AlreadyExists if it is attached, and as `attach.attach`."""
    NetworkOptions(networks=(network,), aliases=aliases, ips=ips).check()
    container = await lookup.container(client, word)
    directory = DataDirectory.of(client.connection).container(container.id)
    catalog = settings.catalog()
    found = await asyncio.to_thread(create.default, catalog) if network == DEFAULT else catalog.get(network)
    catalog.check_installed([found.network])

    def work() -> NetworkRecord:
        with record.locked(directory / record.LOCK):
            asked = _record(directory, word)
            if any(each.network == network for each in asked.endpoints):
                raise AlreadyExists(f'container {word} is attached to network "{network}" already')
            taken = {each.interface for each in asked.endpoints}
            interface = next(name for number in range(len(taken) + 1) if (name := f"eth{number}") not in taken)
            endpoint = Endpoint(network, interface, aliases, ips)
            if namespaces.is_there(Path(asked.netns)):
                _attach(asked, endpoint)
            asked = replace(asked, endpoints=[*asked.endpoints, endpoint])
            record.write(directory, asked)
            return asked

    await _label(client, container.id, await asyncio.to_thread(work))


async def disconnect(client: Client, network: str, word: str) -> None:
    """Detach a container from one network. Raises NotFound if it is not attached to it, and the plugins' errors."""
    container = await lookup.container(client, word)
    directory = DataDirectory.of(client.connection).container(container.id)

    def work() -> NetworkRecord:
        with record.locked(directory / record.LOCK):
            asked = _record(directory, word)
            left = [each for each in asked.endpoints if each.network != network]
            if len(left) == len(asked.endpoints):
                raise NotFound(f'container {word} is not attached to network "{network}"')
            _detach(asked, network)
            asked = replace(asked, endpoints=left)
            record.write(directory, asked)
            return asked

    await _label(client, container.id, await asyncio.to_thread(work))


def _record(directory: Path, word: str) -> NetworkRecord:
    asked = record.read(directory)
    if asked is None:
        raise FailedPrecondition(
            f"container {word} has no network of its own to change: it was created with --network host, none or "
            "container:NAME, or by another client"
        )
    return asked


def _attach(asked: NetworkRecord, endpoint: Endpoint) -> None:
    """Attach a container that runs; its published ports stay where they are."""
    registry = Registry(Path(asked.registry))
    attached = attach.add(replace(asked, ports=()), endpoint, ())
    with registry.locked():
        member = registry.get(asked.key)
        if member is not None:
            registry.put(replace(member, networks={**member.networks, endpoint.network: attached}))
            registry.rewrite_hosts([endpoint.network], asked.key)


def _detach(asked: NetworkRecord, network: str) -> None:
    networks, registry = attach.networks_of(asked), Registry(Path(asked.registry))
    netns = asked.netns if namespaces.is_there(Path(asked.netns)) else ""
    for endpoint in asked.endpoints:
        if endpoint.network == network:
            cached = networks.cache.get(network, asked.key, endpoint.interface)
            if cached is not None:
                networks.delete(replace(cached, attachment=replace(cached.attachment, netns=netns)))
    with registry.locked():
        member = registry.get(asked.key)
        if member is not None:
            left = {name: each for name, each in member.networks.items() if name != network}
            registry.put(replace(member, networks=left))
            registry.rewrite_hosts([network], asked.key)


def rename(directory: Path, name: str) -> None:
    """Let the containers of its networks find a container by another name, now and after its next starts."""
    if not (directory / record.FILE).exists():
        return  # it has no network of its own, or another client has made it
    with record.locked(directory / record.LOCK):
        asked = record.read(directory)
        if asked is None:
            return
        record.write(directory, replace(asked, name=name))
        registry = Registry(Path(asked.registry))
        with registry.locked():
            if (member := registry.get(asked.key)) is not None:
                registry.put(replace(member, name=name))
                registry.rewrite_hosts(member.networks, asked.key)


async def _label(client: Client, id: str, asked: NetworkRecord) -> None:
    told = {each.network: {"aliases": list(each.aliases)} for each in asked.endpoints}
    await client.containers.label(id, {labels.NETWORKS: json.dumps(told)})
