"""Other limits for a container, in its spec and for its task if it runs (docs/containerd 5.4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import cast

from windlass.contracts.tasks import Resources
from windlass.errors import Error, NotFound, Unknown
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import RuntimeConfig
from windlass_cri.record import Container
from windlass_cri.spec.resources import Host, set_resources
from windlass_cri.spec.spec import limits_huge_pages
from windlass_local.inside import LocalNamespace
from windlass_oci.payloads import SPEC, spec_of, to_payload
from windlass_oci.runtime_spec import Spec

RESOURCES = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"


@dataclass(frozen=True)
class Decided:
    """New limits of a container; ``more`` sets in its spec those that CRI has not."""

    limits: cri.LinuxContainerResources
    more: Callable[[Spec], None] = lambda spec: None


class Updates:
    """Changes limits, of each container one change after the other."""

    def __init__(self, namespace: LocalNamespace, config: RuntimeConfig) -> None:
        """Work on containers of ``namespace``."""
        self._namespace = namespace
        self._config = config

    async def update(
        self,
        container: Container,
        wanted: cri.LinuxContainerResources,
        more: Callable[[Spec], None] = lambda spec: None,
    ) -> None:
        """Set what ``wanted`` says; one that does not run gets it at its start. When that fails all is as before.

        ``more`` sets limits that CRI has not. Raises Unknown, and as the runtime.
        """
        async with container.updating:
            if container.removing:
                raise Unknown(f'failed to update resources: container "{container.id}" is in removing state')
            old = spec_of(await self._namespace.containers.get(container.id))
            new = cast("Spec", json.loads(json.dumps(old)))
            host = await asyncio.to_thread(Host.read)
            set_resources(new, wanted, host, huge_pages=limits_huge_pages(self._config, host))
            more(new)
            await self._set(container, new)
            try:
                await self._tell(container, new)
            except BaseException:
                await asyncio.shield(self._set(container, old))
                raise

    async def _set(self, container: Container, spec: Spec) -> None:
        await self._namespace.containers.set_spec(container.id, to_payload(SPEC, spec))
        container.learn(spec)

    async def _tell(self, container: Container, spec: Spec) -> None:
        if container.status.state != cri.CONTAINER_RUNNING:
            return
        payload = to_payload(RESOURCES, cast("dict[str, object]", spec["linux"]["resources"]))
        try:
            await self._namespace.tasks.update(container.id, Resources(payload))
        except NotFound:
            return  # it has ended
        except Error as error:
            raise Unknown(f"failed to update resources: {error}") from error
