"""The Health service of gRPC, by which clients see that the daemon listens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection

from windlass.contracts.rpc import Call
from windlass.errors import NotFound
from windlass_api.grpc.health.v1 import health_pb2 as pb

SERVING = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING)


class Health:
    """``grpc.health.v1.Health``: a service that is registered is serving, and so is the daemon (``""``)."""

    def __init__(self, services: Callable[[], Collection[str]]) -> None:
        """Answer for the names that ``services`` returns."""
        self._services = services

    async def check(self, request: pb.HealthCheckRequest, call: Call) -> pb.HealthCheckResponse:
        """Return whether a service is served."""
        if request.service and request.service not in self._services():
            raise NotFound(f"service {request.service} is not served here")
        return SERVING

    async def list(self, request: pb.HealthListRequest, call: Call) -> pb.HealthListResponse:
        """Tell so of every service."""
        return pb.HealthListResponse(statuses=dict.fromkeys(["", *self._services()], SERVING))

    async def watch(self, request: pb.HealthCheckRequest, call: Call) -> AsyncIterator[pb.HealthCheckResponse]:
        """Tell so, and go on until the client leaves; a service's health does not change while the daemon runs."""
        known = not request.service or request.service in self._services()
        yield SERVING if known else pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
        await call.cancelled()
