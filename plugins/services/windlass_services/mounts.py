"""The Mounts service."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.activations import ActivateOptions, Activation, MountManager
from windlass.contracts.rpc import Call
from windlass.gate import offload
from windlass_api.containerd.services.mounts.v1 import mounts_pb2 as pb
from windlass_api.containerd.types import mount_pb2
from windlass_remote.messages import from_mounts, to_mounts, to_timestamp


def to_proto(activation: Activation) -> mount_pb2.ActivationInfo:
    """Return an activation as a message."""
    active = [
        mount_pb2.ActiveMount(
            mount=to_mounts([each.mount])[0],
            mounted_at=to_timestamp(each.mounted_at),
            mount_point=each.mount_point,
            data=each.data,
        )
        for each in activation.active
    ]
    return mount_pb2.ActivationInfo(
        name=activation.name, active=active, system=to_mounts(activation.system), labels=activation.labels
    )


class Mounts:
    """``containerd.services.mounts.v1.Mounts``."""

    def __init__(self, manager: MountManager) -> None:
        """Translate for ``manager``."""
        self._manager = manager

    async def activate(self, request: pb.ActivateRequest, call: Call) -> pb.ActivateResponse:
        """Make mounts and keep them by name."""
        options = ActivateOptions(labels=dict(request.labels), temporary=request.temporary, lease=call.lease)
        mounts = from_mounts(request.mounts)
        activation = await offload(self._manager.activate, call.namespace, request.name, mounts, options)
        return pb.ActivateResponse(info=to_proto(activation))

    async def deactivate(self, request: pb.DeactivateRequest, call: Call) -> Empty:
        """Unmount and forget."""
        await offload(self._manager.deactivate, call.namespace, request.name)
        return Empty()

    async def info(self, request: pb.InfoRequest, call: Call) -> pb.InfoResponse:
        """Describe what is active under a name."""
        return pb.InfoResponse(info=to_proto(await offload(self._manager.info, call.namespace, request.name)))

    async def update(self, request: pb.UpdateRequest, call: Call) -> pb.UpdateResponse:
        """Change labels."""
        wanted = Activation(request.info.name, labels=dict(request.info.labels))
        paths = list(request.update_mask.paths)
        return pb.UpdateResponse(info=to_proto(await offload(self._manager.update, call.namespace, wanted, paths)))

    async def list(self, request: pb.ListRequest, call: Call) -> AsyncIterator[pb.ListMessage]:
        """Send everything that matches."""
        for activation in await offload(self._manager.list, call.namespace, list(request.filters)):
            yield pb.ListMessage(info=to_proto(activation))
