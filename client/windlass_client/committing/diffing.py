"""The layer that stands between a container and its image, which the daemon's differ makes."""

from __future__ import annotations

import asyncio
import os
import posixpath
import secrets
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor
from windlass.errors import FailedPrecondition, NotFound
from windlass_api.containerd.services.diff.v1 import diff_pb2
from windlass_api.containerd.services.diff.v1.diff_pb2_grpc import DiffStub
from windlass_client.copying import tree
from windlass_client.copying.packing import Stream
from windlass_client.namespace import ClientNamespace
from windlass_client.volumes import usage
from windlass_images.manifests import LAYER
from windlass_oci.payloads import read_spec
from windlass_remote.messages import from_descriptor, from_mounts, to_mounts

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client
    from windlass_oci.runtime_spec import Spec

TIMEOUT = 1800.0
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


async def layer(leased: Client, container: Container, form: str = "") -> Descriptor:
    """Make a layer of what a container has changed; the lease of ``leased`` keeps it. Raises FailedPrecondition."""
    lower = await parent_mounts(leased, container)
    upper = from_mounts(await leased.snapshots.mounts(container.snapshotter, container.snapshot_key))
    request = diff_pb2.DiffRequest(
        left=to_mounts(lower),
        right=to_mounts(upper),
        media_type=f"{LAYER}{form}",
        ref=f"windlass-diff-{secrets.token_hex(8)}",
    )
    connection = leased.connection
    made = (await connection.call(DiffStub(connection.channel).Diff, request, TIMEOUT)).diff
    return from_descriptor(made)


async def parent_mounts(leased: Client, container: Container) -> Sequence[Mount]:
    """Return mounts of what the container began with; the lease of ``leased`` keeps them."""
    if not container.snapshot_key:
        raise FailedPrecondition(f"container {container.id} has no snapshot: its files are not the daemon's")
    parent = (await leased.snapshots.stat(container.snapshotter, container.snapshot_key)).parent
    key = f"windlass-parent-{secrets.token_hex(8)}"
    return from_mounts(await leased.snapshots.view(container.snapshotter, key, parent))


async def changes(client: Client, container: Container) -> list[tuple[str, str]]:
    """Return the paths that a container has changed, each with A (added), C (changed) or D (deleted)."""
    async with ClientNamespace(client).lease("diff") as leased, client.lease(label="diff") as inner:
        made = await layer(inner, container)
        names = await _names(inner, made)
        lower = await parent_mounts(inner, container)
        async with leased.mountable(lower) as plain:
            found = await asyncio.to_thread(_sorted_out, plain, names)
    return without_places(found, made_places(read_spec(container.id, container.spec.value)))


def made_places(spec: Spec) -> set[str]:
    """Return the paths that a runtime makes to mount on, which the user of a container has not asked for."""
    asked = usage.places(spec)
    return {each["destination"] for each in spec.get("mounts") or [] if each["destination"] not in asked}


def without_places(found: Sequence[tuple[str, str]], places: set[str]) -> list[tuple[str, str]]:
    """Leave out what a runtime has made, and the directories that have changed for that alone."""
    left = [(path, kind) for path, kind in found if path not in places]
    touched = {posixpath.dirname(path) for path, _ in found if path in places}
    empty = {path for path in touched if not any(other.startswith(f"{path}/") for other, _ in left)}
    return [(path, kind) for path, kind in left if path not in empty]


async def _names(client: Client, made: Descriptor) -> list[str]:
    """Return the names of a layer's entries, reading it as it comes."""
    reading, writing = os.pipe()
    listing = asyncio.create_task(asyncio.to_thread(_entries, os.fdopen(reading, "rb")))
    with os.fdopen(writing, "wb", buffering=0) as stream, suppress(BrokenPipeError):
        async for chunk in client.content.chunks(made.digest):
            await asyncio.to_thread(stream.write, chunk)
    return await listing


def _entries(stream: IO[bytes]) -> list[str]:
    names = []
    with stream:
        try:
            with Stream.open(fileobj=stream, mode="r|") as archive:
                while (entry := archive.next()) is not None:
                    names.append(entry.name)
                    archive.members.clear()
        except tarfile.TarError as error:
            raise FailedPrecondition(f"the layer that the daemon made is not a tar: {error}") from None
        while stream.read(1 << 16):
            pass
    return names


def _sorted_out(lower: Sequence[Mount], names: Sequence[str]) -> list[tuple[str, str]]:
    with tree.of_mounts(lower, (), "image:") as before:
        return sorted(_kinds(before, names))


def _kinds(before: tree.Tree, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        path = "/" + name.strip("/").removeprefix("./")
        directory, last = posixpath.split(path)
        if path in ("/", "/.") or last == OPAQUE:
            continue
        if last.startswith(WHITEOUT):
            yield posixpath.join(directory, last.removeprefix(WHITEOUT)), "D"
            continue
        try:
            os.close(before.open(path, follow=False))
        except NotFound:
            yield path, "A"
        else:
            yield path, "C"
