"""The RPCs of ``runtime.v1.RuntimeService`` about metrics, which the class of all of its RPCs has too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache

from windlass.contracts.rpc import Call, Encoded
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.runtime import CriRuntime
from windlass_cri.services.stats import BATCH
from windlass_cri.stats.descriptors import ALL


class MetricsService:
    """Metrics of pods and containers."""

    _runtime: CriRuntime

    async def list_metric_descriptors(self, request: cri.ListMetricDescriptorsRequest, call: Call) -> Encoded:
        """Say which metrics there are."""
        await self._runtime.ready()
        return _descriptors()

    async def list_pod_sandbox_metrics(
        self, request: cri.ListPodSandboxMetricsRequest, call: Call
    ) -> cri.ListPodSandboxMetricsResponse:
        """Measure all pods that are ready."""
        runtime = await self._runtime.ready()
        return cri.ListPodSandboxMetricsResponse(pod_metrics=await runtime.metrics.all())

    async def stream_pod_sandbox_metrics(
        self, request: cri.StreamPodSandboxMetricsRequest, call: Call
    ) -> AsyncIterator[cri.StreamPodSandboxMetricsResponse]:
        """Measure all pods that are ready, and answer in parts."""
        found = await (await self._runtime.ready()).metrics.all()
        for start in range(0, len(found), BATCH):
            yield cri.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=found[start : start + BATCH])


@cache
def _descriptors() -> Encoded:
    response = cri.ListMetricDescriptorsResponse()
    for each in ALL:
        response.descriptors.add(name=each.name, help=each.help, label_keys=each.labels)
    return Encoded(response.SerializeToString())
