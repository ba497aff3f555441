"""All that a daemon knows about a container or an image, as one JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from windlass.errors import NotFound
from windlass_api.containerd.v1.types import task_pb2
from windlass_client import platforms
from windlass_client.containers import spec_of
from windlass_client.images import from_message
from windlass_client.imagetree import Walk

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_api.containerd.services.images.v1.images_pb2 import Image
    from windlass_client.client import Client

# Any: JSON documents.
Document = dict[str, Any]


async def describe(client: Client, name: str) -> Document:
    """Describe the container of that name, or else the image. Raises NotFound for neither."""
    try:
        return await _container(client, await client.containers.get(name))
    except NotFound:
        pass
    try:
        return await _image(client, await client.images.get(name))
    except NotFound:
        raise NotFound(f"neither a container nor an image {name} exists in namespace {client.namespace}") from None


async def _container(client: Client, container: Container) -> Document:
    document: Document = MessageToDict(container, preserving_proto_field_name=True)
    document["spec"] = spec_of(container)
    try:
        process = await client.tasks.get(container.id)
    except NotFound:
        document["task"] = None
        return document
    task: Document = MessageToDict(process, preserving_proto_field_name=True)
    document["task"] = task | {"status": task_pb2.Status.Name(process.status).lower()}
    return document


async def _image(client: Client, image: Image) -> Document:
    document: Document = MessageToDict(image, preserving_proto_field_name=True)
    walk = Walk(client, {}, f"image {image.name}", platforms.host(), label=False)
    document["platforms"] = []
    for leaf in (await walk.tree(from_message(image.target))).leaves:
        config = await client.content.read(leaf.manifest.config.digest, 4 << 20)
        document["platforms"].append(
            {
                "platform": platforms.write(leaf.image.platform),
                "manifest": leaf.target.digest,
                "chain_id": leaf.image.chain_id,
                "layers": [
                    {"digest": layer.digest, "size": layer.size, "media_type": layer.media_type, "diff_id": diff_id}
                    for layer, diff_id in zip(leaf.manifest.layers, leaf.image.diff_ids, strict=True)
                ],
                "config": json.loads(config),
            }
        )
    return document
