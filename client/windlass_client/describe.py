"""All that a daemon knows about a container, as one JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict

from windlass.errors import NotFound
from windlass_api.containerd.v1.types import task_pb2
from windlass_client.events import decode
from windlass_oci.payloads import read_spec

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client

Document = dict[str, object]


async def describe_container(client: Client, container: Container) -> Document:
    """Describe a container."""
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
