"""Imports an archive under the names that docker would give: `demo:1` becomes `docker.io/library/demo:1`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass_client.namespaces import SNAPSHOTTER
from windlass_client.store import ClientStore
from windlass_images import importer
from windlass_images.platforms import Wanted
from windlass_images.unpack import Progress

if TYPE_CHECKING:
    from windlass_client.client import Client


async def load(client: Client, archive: str, platforms: Wanted, progress: Progress) -> list[str]:
    """Import an archive, - is standard input, unpack its images, and return their names."""
    snapshotter = await client.namespaces.default(SNAPSHOTTER)
    options = importer.Options(platform=platforms, snapshotter=snapshotter)
    return [each.name for each in await importer.load(ClientStore(client), archive, options, progress)]
