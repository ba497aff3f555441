"""CRI as a service of the daemon's server: both of its gRPC services."""

from __future__ import annotations

from windlass.contracts import rpc
from windlass_api.runtime.v1.api_pb2 import DESCRIPTOR
from windlass_cri.imageservice import ImageService
from windlass_cri.runtime import CriRuntime
from windlass_cri.runtimeservice import RuntimeService


class CriService:
    """A `windlass.contracts.services.Service` that is two."""

    name = "runtime.v1.RuntimeService"

    def __init__(self, runtime: CriRuntime) -> None:
        """Serve ``runtime``."""
        self._objects = {"RuntimeService": RuntimeService(runtime), "ImageService": ImageService(runtime)}

    def register(self, server: rpc.Server) -> None:
        """Add both services to a server."""
        for name, implementation in self._objects.items():
            rpc.serve(server, DESCRIPTOR.services_by_name[name], implementation)
