"""`system df`: how much images, containers and volumes take, and how much would be free without the unused ones."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from windlass.errors import NotFound
from windlass_client import lookup
from windlass_client.datadir import DataDirectory
from windlass_client.imagerows import Known, Reader
from windlass_client.lifecycle import states
from windlass_client.namespaces import SNAPSHOTTER
from windlass_client.volumes import usage
from windlass_client.volumes.removal import size as volume_size
from windlass_client.volumes.volume import Volumes
from windlass_images.manifests import chain_id
from windlass_remote.messages import from_descriptor

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client

LIVE = ("running", "paused", "restarting")


@dataclass
class Kind:
    """One line of the table, and the lines of its objects."""

    name: str
    total: int = 0
    active: int = 0
    size: int = 0
    reclaimable: int = 0
    rows: list[dict[str, object]] = field(default_factory=list)


async def measure(client: Client) -> list[Kind]:
    """Return what each kind of objects takes."""
    containers = list(await client.containers.list())
    return [
        await _images(client, {each.image for each in containers}),
        await _containers(client, containers),
        await _volumes(client, containers),
        Kind("Build Cache"),  # buildkitd's own
    ]


async def _images(client: Client, used: set[str]) -> Kind:
    """Count each image once, whatever its names, and each layer once."""
    reader = Reader(client, await client.namespaces.default(SNAPSHOTTER))
    images = list(await client.images.list())
    kept = {image.target.digest for image in images if image.name in used}
    kind, layers, needed = Kind("Images"), dict[str, int](), set[str]()
    for image in {each.target.digest: each for each in images}.values():
        known = await reader.known(from_descriptor(image.target))
        chains = _chains(known)
        sizes = dict(zip(chains, await reader.layers(known), strict=False))
        layers |= sizes
        active = image.target.digest in kept
        needed |= set(chains) if active else set()
        kind.total += 1
        kind.active += active
        row = {"Name": image.name, "ID": known.config or image.target.digest, "Size": sum(sizes.values())}
        kind.rows.append({**row, "Containers": int(active)})
    kind.size = sum(layers.values())
    kind.reclaimable = kind.size - sum(layers[chain] for chain in needed if chain in layers)
    return kind


def _chains(known: Known) -> list[str]:
    diff_ids = known.image.diff_ids if known.image else ()
    return [chain_id(diff_ids[: number + 1]) for number in range(len(diff_ids))]


async def _containers(client: Client, containers: list[Container]) -> Kind:
    tasks = {each.id or each.container_id: each for each in await client.tasks.list()}
    data = DataDirectory.of(client.connection)
    sizes = await asyncio.gather(*(written(client, container) for container in containers))
    kind = Kind("Containers", len(containers), size=sum(sizes))
    for container, size in zip(containers, sizes, strict=True):
        word = states.of(container, tasks.get(container.id), data).word
        kind.active += word in LIVE
        kind.reclaimable += 0 if word in LIVE else size
        name = lookup.name_of(container)
        kind.rows.append({"ID": container.id, "Name": name, "Image": container.image, "Size": size, "Status": word})
    return kind


async def written(client: Client, container: Container) -> int:
    """Return the bytes that a container has written."""
    if not container.snapshot_key:
        return 0
    try:
        return (await client.snapshots.usage(container.snapshotter, container.snapshot_key)).size
    except NotFound:
        return 0


async def _volumes(client: Client, containers: list[Container]) -> Kind:
    volumes = Volumes(DataDirectory.of(client.connection))
    used = usage.users(containers, volumes.directory)
    kind = Kind("Local Volumes")
    for each in volumes.list():
        size, links = await asyncio.to_thread(volume_size, each), len(used.get(each.name, ()))
        kind.total += 1
        kind.active += bool(links)
        kind.size += size
        kind.reclaimable += 0 if links else size
        kind.rows.append({"Name": each.name, "Links": links, "Size": size})
    return kind
