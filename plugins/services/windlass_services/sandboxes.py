"""The sandbox Store service."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from windlass.gate import offload
from windlass.metadata import Metadata
from windlass.rpc import Call
from windlass.sandboxes import Sandbox
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2 as pb
from windlass_api.containerd.types import sandbox_pb2 as types_pb
from windlass_remote.messages import any_of, from_any, payloads, to_any, to_timestamp
from windlass_services import lists


def to_proto(sandbox: Sandbox) -> types_pb.Sandbox:
    """Return a sandbox's record as a message."""
    message = types_pb.Sandbox(
        sandbox_id=sandbox.id,
        runtime=types_pb.Sandbox.Runtime(name=sandbox.runtime, options=to_any(sandbox.runtime_options)),
        spec=to_any(sandbox.spec),
        labels=sandbox.labels,
        created_at=to_timestamp(sandbox.created_at),
        updated_at=to_timestamp(sandbox.updated_at),
        sandboxer=sandbox.sandboxer,
    )
    for key, payload in sandbox.extensions.items():
        message.extensions[key].CopyFrom(any_of(payload))
    return message


def from_proto(message: types_pb.Sandbox) -> Sandbox:
    """Return a sandbox's record; its times are ours to set."""
    return Sandbox(
        id=message.sandbox_id,
        runtime=message.runtime.name,
        runtime_options=from_any(message.runtime.options),
        spec=from_any(message.spec),
        labels=dict(message.labels),
        extensions=payloads(message.extensions),
        sandboxer=message.sandboxer,
    )


class SandboxStoreService:
    """``containerd.services.sandbox.v1.Store``."""

    def __init__(self, metadata: Metadata) -> None:
        """Translate for ``metadata``."""
        self._metadata = metadata

    async def get(self, request: pb.StoreGetRequest, call: Call) -> pb.StoreGetResponse:
        """Return one record."""
        sandbox = await offload(self._metadata.sandboxes(call.namespace).get, request.sandbox_id)
        return pb.StoreGetResponse(sandbox=to_proto(sandbox))

    async def list(self, request: pb.StoreListRequest, call: Call) -> pb.StoreListResponse:
        """Return all records that match."""
        sandboxes = await offload(self._metadata.sandboxes(call.namespace).list, list(request.filters))
        response = pb.StoreListResponse()
        await lists.fill(response.list, sandboxes, to_proto)
        return response

    async def create(self, request: pb.StoreCreateRequest, call: Call) -> pb.StoreCreateResponse:
        """Record a sandbox."""
        sandbox = await offload(self._metadata.sandboxes(call.namespace).create, from_proto(request.sandbox))
        return pb.StoreCreateResponse(sandbox=to_proto(sandbox))

    async def update(self, request: pb.StoreUpdateRequest, call: Call) -> pb.StoreUpdateResponse:
        """Change what the fields name."""
        store, fields = self._metadata.sandboxes(call.namespace), list(request.fields)
        return pb.StoreUpdateResponse(
            sandbox=to_proto(await offload(store.update, from_proto(request.sandbox), fields))
        )

    async def delete(self, request: pb.StoreDeleteRequest, call: Call) -> Empty:
        """Forget a record."""
        await offload(self._metadata.sandboxes(call.namespace).delete, request.sandbox_id)
        return Empty()
