"""The RPCs of ``runtime.v1.RuntimeService`` about usage, which `windlass_cri.services.runtime` has too."""

from __future__ import annotations

from collections.abc import AsyncIterator

from windlass.contracts.rpc import Call
from windlass.errors import NotFound
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.runtime import CriRuntime
from windlass_cri.views import labels_match

BATCH = 5000
"""Items of one answer of a streamed list."""


class StatsService:
    """What containers and pods use."""

    def __init__(self, runtime: CriRuntime) -> None:
        """Serve ``runtime``, once it is ready."""
        self._runtime = runtime

    async def container_stats(self, request: cri.ContainerStatsRequest, call: Call) -> cri.ContainerStatsResponse:
        """Measure a container that runs."""
        runtime = await self._runtime.ready()
        container = runtime.containers.index.find(request.container_id)
        if container is None:
            raise NotFound(f'failed to find container: container "{request.container_id[:100]}": not found')
        return cri.ContainerStatsResponse(stats=await runtime.stats.of_container(container))

    async def list_container_stats(
        self, request: cri.ListContainerStatsRequest, call: Call
    ) -> cri.ListContainerStatsResponse:
        """Measure containers."""
        return cri.ListContainerStatsResponse(stats=await self._of_containers(request.filter))

    async def stream_container_stats(
        self, request: cri.StreamContainerStatsRequest, call: Call
    ) -> AsyncIterator[cri.StreamContainerStatsResponse]:
        """Measure containers, and answer in parts."""
        found = await self._of_containers(request.filter)
        for start in range(0, len(found), BATCH):
            yield cri.StreamContainerStatsResponse(container_stats=found[start : start + BATCH])

    async def _of_containers(self, wanted: cri.ContainerStatsFilter) -> list[cri.ContainerStats]:
        runtime = await self._runtime.ready()
        return await runtime.stats.of_containers(
            each
            for each in runtime.containers.index
            if each.id.startswith(wanted.id)
            and each.data.pod.startswith(wanted.pod_sandbox_id)
            and labels_match(each.config.labels, wanted.label_selector)
        )

    async def pod_sandbox_stats(self, request: cri.PodSandboxStatsRequest, call: Call) -> cri.PodSandboxStatsResponse:
        """Measure a pod that is ready."""
        runtime = await self._runtime.ready()
        pod = runtime.pods.index.find(request.pod_sandbox_id)
        if pod is None:
            raise NotFound(f'an error occurred when trying to find sandbox "{request.pod_sandbox_id[:100]}": not found')
        return cri.PodSandboxStatsResponse(stats=await runtime.stats.of_pod(pod))

    async def list_pod_sandbox_stats(
        self, request: cri.ListPodSandboxStatsRequest, call: Call
    ) -> cri.ListPodSandboxStatsResponse:
        """Measure pods."""
        return cri.ListPodSandboxStatsResponse(stats=await self._of_pods(request.filter))

    async def stream_pod_sandbox_stats(
        self, request: cri.StreamPodSandboxStatsRequest, call: Call
    ) -> AsyncIterator[cri.StreamPodSandboxStatsResponse]:
        """Measure pods, and answer in parts."""
        found = await self._of_pods(request.filter)
        for start in range(0, len(found), BATCH):
            yield cri.StreamPodSandboxStatsResponse(pod_sandbox_stats=found[start : start + BATCH])

    async def _of_pods(self, wanted: cri.PodSandboxStatsFilter) -> list[cri.PodSandboxStats]:
        runtime = await self._runtime.ready()
        return await runtime.stats.of_pods(
            pod
            for pod in runtime.pods.index
            if pod.id.startswith(wanted.id) and labels_match(pod.config.labels, wanted.label_selector)
        )
