"""Which object a name means to `inspect`: a container, an image, a volume or a network, in docker's order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument, NotFound
from windlass_client import lookup
from windlass_client.datadir import DataDirectory

if TYPE_CHECKING:
    from windlass_client.client import Client

Document = dict[str, object]


async def document(client: Client, word: str, kind: str, size: bool) -> Document:
    """Describe what a name means, or only an object of one kind. Raises NotFound if there is none."""
    for name, find in FINDERS.items():
        if kind in ("", name):
            try:
                return await find(client, word, size)
            except NotFound:
                if kind:
                    raise
            except InvalidArgument:
                if kind or name == "container":
                    raise
    raise NotFound(
        f'"{word[:200]}" is neither a container nor an image, a volume or a network in namespace {client.namespace}'
    )


async def _container(client: Client, word: str, size: bool) -> Document:
    from windlass_client import dockercontainer

    found = await lookup.container(client, word)
    described = await dockercontainer.document(client, found)
    return {**described, **(await dockercontainer.sizes(client, found))} if size else described


async def _image(client: Client, word: str, size: bool) -> Document:
    from windlass_client import dockerimage
    from windlass_client.imagefinding import find

    return await dockerimage.document(client, await find(client, word))


async def _volume(client: Client, word: str, size: bool) -> Document:
    from windlass_client.volumes.volume import Volumes

    return Volumes(DataDirectory.of(client.connection)).get(word).document()


async def _network(client: Client, word: str, size: bool) -> Document:
    from windlass_client.datadir import host_networks
    from windlass_client.networks import settings, views
    from windlass_client.networks.members import Registry

    found = views.view(settings.catalog(), word)
    return {**found.document(views.attached(Registry(host_networks() / "attached"), found.name))}


FINDERS: Mapping[str, Callable[[Client, str, bool], Awaitable[Document]]] = {
    "container": _container,
    "image": _image,
    "volume": _volume,
    "network": _network,
}
