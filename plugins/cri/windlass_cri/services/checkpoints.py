"""The RPCs of ``runtime.v1.RuntimeService`` about checkpoints, which the class of all of its RPCs has too."""

from __future__ import annotations

from collections.abc import Mapping

from windlass.contracts.rpc import Call
from windlass.errors import InvalidArgument, NotFound
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.record import Container
from windlass_cri.runtime import CriRuntime


class CheckpointService:
    """Checkpoints of containers and pods."""

    _runtime: CriRuntime

    async def checkpoint_container(
        self, request: cri.CheckpointContainerRequest, call: Call
    ) -> cri.CheckpointContainerResponse:
        """Write a checkpoint of a container, which runs on."""
        runtime = await self._runtime.ready()
        container = _container(runtime, request.container_id)
        await runtime.checkpoints.container(container, request.location, request.timeout)
        return cri.CheckpointContainerResponse()

    async def checkpoint_pod(self, request: cri.CheckpointPodRequest, call: Call) -> cri.CheckpointPodResponse:
        """Write a checkpoint of a pod, which runs on."""
        runtime = await self._runtime.ready()
        _refuse(request.options)
        pod = runtime.pods.index.find(request.pod_sandbox_id)
        if pod is None:
            raise NotFound(f'an error occurred when trying to find sandbox "{request.pod_sandbox_id[:100]}": not found')
        chosen = {each.id: each for each in (_container(runtime, id) for id in request.container_ids)}
        for each in chosen.values():
            if each.data.pod != pod.id:
                raise InvalidArgument(f'container "{each.id}" is not in pod {pod.id}')
        await runtime.checkpoints.pod(pod, list(chosen.values()), request.output_path)
        return cri.CheckpointPodResponse()

    async def restore_pod(self, request: cri.RestorePodRequest, call: Call) -> cri.RestorePodResponse:
        """Make a pod from a checkpoint."""
        runtime = await self._runtime.ready()
        _refuse(request.options)
        return await runtime.restores.pod(request)


def _container(runtime: CriRuntime, id: str) -> Container:
    container = runtime.containers.index.find(id)
    if container is None:
        raise NotFound(f'an error occurred when trying to find container "{id[:100]}": not found')
    return container


def _refuse(options: Mapping[str, str]) -> None:
    """Raise InvalidArgument for options; there are none yet, and what is asked for must not be left out silently."""
    if options:
        raise InvalidArgument(f"options {sorted(options)[:10]} are not known; there are none")
