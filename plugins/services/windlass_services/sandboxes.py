"""The sandbox Store service."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call, Encoded
from windlass.gate import offload
from windlass.marks import quick
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2 as pb
from windlass_remote.records import from_record, to_record
from windlass_services import encoded, lists
from windlass_services.views import Views


class SandboxStoreService:
    """``containerd.services.sandbox.v1.Store``."""

    def __init__(self, metadata: Metadata) -> None:
        """Translate for ``metadata``."""
        self._views = Views(metadata.sandboxes)

    @quick
    async def get(self, request: pb.StoreGetRequest, call: Call) -> pb.StoreGetResponse | Encoded:
        """Return one record."""
        store = self._views.of(call)
        if (ready := await encoded.get(store, request.sandbox_id)) is not None:
            return ready
        return pb.StoreGetResponse(sandbox=to_record(await offload(store.get, request.sandbox_id)))

    async def list(self, request: pb.StoreListRequest, call: Call) -> pb.StoreListResponse | Encoded:
        """Return all records that match."""
        store = self._views.of(call)
        if (ready := await encoded.listed(store, request.filters)) is not None:
            return ready
        response = pb.StoreListResponse()
        await lists.fill(response.list, await offload(store.list, list(request.filters)), to_record)
        return response

    async def create(self, request: pb.StoreCreateRequest, call: Call) -> pb.StoreCreateResponse:
        """Record a sandbox."""
        sandbox = await offload(self._views.of(call).create, from_record(request.sandbox))
        return pb.StoreCreateResponse(sandbox=to_record(sandbox))

    async def update(self, request: pb.StoreUpdateRequest, call: Call) -> pb.StoreUpdateResponse:
        """Change what the fields name."""
        store, fields = self._views.of(call), list(request.fields)
        return pb.StoreUpdateResponse(
            sandbox=to_record(await offload(store.update, from_record(request.sandbox), fields))
        )

    async def delete(self, request: pb.StoreDeleteRequest, call: Call) -> Empty:
        """Forget a record."""
        await offload(self._views.of(call).delete, request.sandbox_id)
        return Empty()
