"""New containers: the image is pulled if need be, an ID is found, and a failure leaves nothing."""

from __future__ import annotations

import asyncio
import secrets
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from windlass.contracts.values import check_identifier
from windlass.errors import AlreadyExists, Error, NotFound
from windlass_client import launch, lookup
from windlass_client.datadir import DataDirectory
from windlass_client.labels import NAME
from windlass_client.launch import LaunchOptions
from windlass_client.lifecycle import asked as askings
from windlass_client.lifecycle import removal, starting
from windlass_client.lifecycle.attaching import Attachment
from windlass_client.namespace import ClientNamespace
from windlass_client.session import Left
from windlass_client.shortnames import full
from windlass_images.unpack import Progress, ignore
from windlass_local import launch as local
from windlass_local.launch import Launched

if TYPE_CHECKING:
    from windlass.contracts.containers import Container
    from windlass_client.client import Client


async def create(client: Client, wanted: LaunchOptions, pull: str = "missing", progress: Progress = ignore) -> Launched:
    """Create a container as asked. Raises AlreadyExists if its name is taken."""
    with DataDirectory.of(client.connection).claimed(wanted.name or wanted.id):
        wanted = await _named(client, wanted)
        image = await _image(client, wanted, pull, progress)
        return await launch.create(client, replace(wanted, image=image), progress)


async def run(client: Client, launched: Launched, how: Attachment | None) -> int | None:
    """Start a new container and return its exit status, None if it runs on; on failure nothing of it is left."""
    container = launched.container
    asked = askings.of(container)
    try:
        if how is None:
            await starting.run_detached(client, container, launched.rootfs, asked)
            return None
        status = await starting.run_attached(client, container, launched.rootfs, asked, how)
    except BaseException as error:
        if not isinstance(error, Left):
            await asyncio.shield(asyncio.ensure_future(_undo(client, container)))
        raise
    if status is not None and asked.remove:
        await removal.remove_ended(client, container.id)
    return status


async def _undo(client: Client, container: Container) -> None:
    """Remove what there is after a failure; a second failure does not hide the first."""
    await local.undo(ClientNamespace(client), container.id)
    try:
        await client.containers.get(container.id)
    except NotFound:
        try:
            await removal.remove_volumes(client, container)
            await removal.tidy(client, container.id)
        except (Error, OSError):
            pass
    except Error:
        pass  # it is not known, so the files stay


async def _named(client: Client, wanted: LaunchOptions) -> LaunchOptions:
    """Return the options with an ID that is free. Raises InvalidArgument, AlreadyExists for a name that is taken."""
    if not wanted.name:
        return wanted
    check_identifier("container", wanted.name)
    for each in await client.containers.list(f"id=={wanted.name}", f'labels."{NAME}"=={wanted.name}'):
        if lookup.name_of(each) == wanted.name:
            raise AlreadyExists(
                f"container {wanted.name} already exists; choose another name, "
                f"or remove it with `windlass rm {wanted.name}`"
            )
        if each.id == wanted.name:
            wanted = replace(wanted, id=secrets.token_hex(6))
    return wanted


async def _image(client: Client, wanted: LaunchOptions, pull: str, progress: Progress) -> str:
    """Return the name of the image in the store, pulled as ``pull`` says. Raises NotFound."""
    if pull != "always":
        found = await _stored(client, wanted.image)
        if found:
            return found
        if pull == "never":
            raise NotFound(
                f"image {wanted.image} does not exist in namespace {client.namespace}; pull it, or leave --pull out"
            )
        if progress is not ignore:
            sys.stderr.write(f"Unable to find image '{wanted.image}' locally; pulling {full(wanted.image)}\n")
    from windlass_client import pulling

    return await pulling.pull(client, full(wanted.image), wanted.platform, wanted.snapshotter, progress)


async def _stored(client: Client, word: str) -> str:
    names = dict.fromkeys((word, full(word)))
    images = {image.name for image in await client.images.list(*(f"name=={name}" for name in names))}
    for name in names:
        if name in images:
            return name
    from windlass_client.imagefinding import HEX, find

    if not HEX.fullmatch(word):
        return ""
    try:
        return (await find(client, word)).name
    except NotFound:
        return ""
