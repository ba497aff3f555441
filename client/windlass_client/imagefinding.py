"""Images by a name, as typed or completed, or by the beginning of an ID."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument, NotFound
from windlass_client.imagerows import identified
from windlass_client.shortnames import full

if TYPE_CHECKING:
    from windlass_api.containerd.services.images.v1.images_pb2 import Image
    from windlass_client.client import Client

HEX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


async def find(client: Client, word: str) -> Image:
    """Return the image of a name, as typed or completed, or of the beginning of an ID. Raises NotFound.

    An ID is the digest of what the name points to, or of the config for this machine.
    """
    for name in dict.fromkeys((word, full(word))):
        try:
            return await client.images.get(name)
        except (NotFound, InvalidArgument):
            pass
    if match := HEX.fullmatch(word):
        images = await client.images.list()
        return choose(images, {image.name: await identified(client, image) for image in images}, match[1], word)
    raise NotFound(missing(word, client.namespace))


def missing(word: str, namespace: str) -> str:
    """Return the words for an image that is not there."""
    return f'image "{word[:200]}" does not exist in namespace {namespace}; `windlass images` lists those that do'


def choose(images: Iterable[Image], ids: Mapping[str, str], beginning: str, word: str) -> Image:
    """Return the image whose ID begins so. Raises NotFound, InvalidArgument if several images' do."""
    found: dict[str, Image] = {}
    for image in images:
        for digest in (ids[image.name], image.target.digest):
            if digest.removeprefix("sha256:").startswith(beginning):
                found.setdefault(image.target.digest, image)
    if not found:
        raise NotFound(f'image "{word[:200]}" does not exist; `windlass images` lists those that do')
    if len(found) > 1:
        raise InvalidArgument(f'several images have IDs that begin with "{word}"; type more of the ID')
    return next(iter(found.values()))
