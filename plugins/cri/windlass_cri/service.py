"""CRI as a service of the daemon's server: both of its gRPC services, imported when they are first needed.

Most daemons have no kubelet. What CRI imports would be a quarter of their start and 6 MB of their memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.contracts import rpc
from windlass.contracts.metadata import Metadata
from windlass.gate import offload, offloaded
from windlass.marks import quick
from windlass_api.runtime.v1.api_pb2 import DESCRIPTOR

if TYPE_CHECKING:
    from windlass_cri.runtime import CriRuntime

logger = logging.getLogger(__name__)

NAMESPACE = "k8s.io"
MISSING: dict[str, frozenset[str]] = {"RuntimeService": frozenset(), "ImageService": frozenset()}
"""What is not built; a test compares it with the classes."""
QUICK = frozenset(
    {
        "Version",
        "RuntimeConfig",
        "ListContainers",
        "ContainerStatus",
        "ListPodSandbox",
        "PodSandboxStatus",
        "ListImages",
        "ListMetricDescriptors",
        "ImageStatus",
    }
)
"""RPCs that answer from memory, once CRI runs; what is asked for verbosely waits, and gets its task then."""

Get = Callable[[str], Awaitable[object]]


class CriService:
    """A `windlass.contracts.services.Service` that is two."""

    name = "runtime.v1.RuntimeService"

    def __init__(self, make: Callable[[], CriRuntime], metadata: Metadata, root: Path) -> None:
        """Have ``make`` import and make CRI: at the start if the daemon before left pods, else with the first call.

        Below ``root`` each pod has a directory from its first moment to its last.
        """
        self._make = make
        self._metadata = metadata
        self._root = root
        self._starting: asyncio.Task[CriRuntime] | None = None
        self._services: dict[str, object] = {}

    def register(self, server: rpc.Server) -> None:
        """Add both services to a server."""
        for name, missing in MISSING.items():
            descriptor = DESCRIPTOR.services_by_name[name]
            rpc.serve(server, descriptor, _Late(self._service, self._services, name, missing))

    @property
    def methods(self) -> dict[str, dict[str, bool]]:
        """Every RPC, and whether it is served, by service."""
        services = DESCRIPTOR.services_by_name
        return {
            f"runtime.v1.{name}": {each.name: each.name not in missing for each in services[name].methods}
            for name, missing in MISSING.items()
        }

    async def start(self) -> None:
        """Go on with the pods of an earlier daemon, if there are any."""
        records = await offload(self._metadata.sandboxes(NAMESPACE).list)
        left = await asyncio.to_thread(self._has_left_overs)
        if records or left:
            await self._service("RuntimeService")

    def _has_left_overs(self) -> bool:
        places = (self._root / "sandboxes", self._root / "containers")
        return any(place.is_dir() and any(place.iterdir()) for place in places)

    async def stop(self) -> None:
        """Stop what was made, or is being made; pods go on."""
        if self._starting is None:
            return
        if not self._starting.done():
            self._starting.cancel()
            await asyncio.wait({self._starting})
        elif not self._starting.cancelled() and self._starting.exception() is None:
            await self._starting.result().stop()

    async def _service(self, name: str) -> object:
        """Return one of the services, once CRI has been started; the start goes on if its client leaves."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        starting = self._starting
        try:
            await asyncio.shield(starting)
        except Exception:
            if self._starting is starting:
                self._starting = None  # the next call tries again
            raise
        return self._services[name]

    async def _start(self) -> CriRuntime:
        made = await offloaded(self._make, deadline=None)()
        try:
            await made.start()
        except BaseException:
            await made.stop()
            raise
        from windlass_cri.services.images import ImageService
        from windlass_cri.services.runtime import RuntimeService

        self._services |= {"RuntimeService": RuntimeService(made), "ImageService": ImageService(made)}
        return made


class _Late:
    """Has the methods of a service; each asks for the service first, unless it is there."""

    def __init__(self, get: Get, there: Mapping[str, object], name: str, missing: frozenset[str]) -> None:
        for method in DESCRIPTOR.services_by_name[name].methods:
            if method.name not in missing:
                late = _streaming if method.server_streaming else _unary
                made = late(get, there, name, rpc.method_name(method.name))
                setattr(self, rpc.method_name(method.name), quick(made) if method.name in QUICK else made)


def _unary(get: Get, there: Mapping[str, object], name: str, method: str) -> Callable[..., object]:
    async def call(request: object, call: rpc.Call) -> object:
        return await getattr(there.get(name) or await get(name), method)(request, call)

    return call


def _streaming(get: Get, there: Mapping[str, object], name: str, method: str) -> Callable[..., object]:
    async def call(request: object, call: rpc.Call) -> AsyncIterator[object]:
        async for response in getattr(there.get(name) or await get(name), method)(request, call):
            yield response

    return call
