"""All that a daemon knows about a container or an image, as one JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict

from windlass.errors import NotFound
from windlass_api.containerd.v1.types import task_pb2
from windlass_client import imagefinding, lookup
from windlass_client.events import decode
from windlass_client.store import ClientStore
from windlass_images import platforms
from windlass_images.imagetree import Leaf, Present, Walk
from windlass_images.manifests import MANIFEST_LIMIT
from windlass_oci.payloads import read_spec
from windlass_remote.messages import from_descriptor

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_api.containerd.services.images.v1.images_pb2 import Image
    from windlass_client.client import Client

Document = dict[str, object]


async def describe(client: Client, name: str) -> Document:
    """Describe the container of that name, or else the image. Raises NotFound for neither."""
    try:
        return await _container(client, await lookup.container(client, name))
    except NotFound:
        pass
    try:
        return await _image(client, await imagefinding.find(client, name))
    except NotFound:
        raise NotFound(f"neither a container nor an image {name} exists in namespace {client.namespace}") from None


async def _container(client: Client, container: Container) -> Document:
    return {
        "id": container.id,
        "image": container.image,
        "labels": dict(container.labels),
        "runtime": _runtime(container),
        "snapshotter": container.snapshotter,
        "snapshot_key": container.snapshot_key,
        "sandbox": container.sandbox,
        "created_at": container.created_at.ToJsonString(),
        "updated_at": container.updated_at.ToJsonString(),
        "extensions": {name: payload(extension) for name, extension in container.extensions.items()},
        "spec": read_spec(container.id, container.spec.value),
        "task": await _task(client, container.id),
    }


def _runtime(container: Container) -> Document:
    options = {"options": payload(container.runtime.options)} if container.runtime.HasField("options") else {}
    return {"name": container.runtime.name, **options}


async def _task(client: Client, id: str) -> Document | None:
    try:
        process = await client.tasks.get(id)
    except NotFound:
        return None
    state = task_pb2.Status.Name(process.status).lower()
    return {**MessageToDict(process, preserving_proto_field_name=True), "status": state}


def payload(message: AnyMessage) -> Document:
    """Return what an Any holds: a JSON document, or the fields of a message that we know, under its type."""
    try:
        return {"@type": message.type_url, "value": json.loads(message.value)}
    except ValueError:
        return {"@type": message.type_url, **decode(message)}


async def _image(client: Client, image: Image) -> Document:
    target = from_descriptor(image.target)
    store, where = ClientStore(client), f"image {image.name}"
    walk = Walk(store, Present(store, where), where, platforms.host(), label=False)
    leaves = (await walk.tree(target)).leaves
    return {
        "name": image.name,
        "target": {"media_type": target.media_type, "digest": target.digest, "size": target.size},
        "labels": dict(image.labels),
        "created_at": image.created_at.ToJsonString(),
        "updated_at": image.updated_at.ToJsonString(),
        "platforms": [await _platform(client, leaf) for leaf in leaves],
    }


async def _platform(client: Client, leaf: Leaf) -> Document:
    config = await client.content.read(leaf.manifest.config.digest, MANIFEST_LIMIT)
    layers = zip(leaf.manifest.filesystem, leaf.image.diff_ids, strict=False)
    return {
        "platform": platforms.write(leaf.platform) if leaf.platform else "",
        "manifest": leaf.target.digest,
        "chain_id": leaf.image.chain_id,
        "layers": [
            {"digest": layer.digest, "size": layer.size, "media_type": layer.media_type, "diff_id": diff_id}
            for layer, diff_id in layers
        ],
        "config": json.loads(config),
    }
