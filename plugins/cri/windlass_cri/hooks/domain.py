"""What hook plugins may do without being asked: see all pods and containers at once, update and evict containers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from windlass.contracts.pods import Eviction, Told, Update
from windlass.errors import Error, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import RuntimeConfig
from windlass_cri.containers.containers import Containers
from windlass_cri.hooks.steps import Known, PodSteps
from windlass_cri.images.images import Images
from windlass_cri.pods.pods import Pods
from windlass_cri.record import Container
from windlass_oci.runtime_spec import Spec

if TYPE_CHECKING:
    from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
    from windlass_cri.hooks.adjusting import Wishes
    from windlass_nri.applying import Unresolved

logger = logging.getLogger(__name__)

LIVE = (cri.CONTAINER_CREATED, cri.CONTAINER_RUNNING)


class PodDomain(Known):
    """All pods and containers, for hook plugins. The messages are imported with the first of them."""

    def __init__(
        self, steps: PodSteps, pods: Pods, containers: Containers, images: Images, config: RuntimeConfig
    ) -> None:
        """Show and change these."""
        self._steps = steps
        self._pods = pods
        self._containers = containers
        self._images = images
        self._config = config

    def pod(self, container: Container) -> nri.PodSandbox:
        """Return the pod of a container, with its ID alone if it has gone."""
        from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
        from windlass_cri.hooks.messages import pod_message

        if container.data.pod in self._pods.index:
            return pod_message(self._pods.index.get(container.data.pod))
        return nri.PodSandbox(id=container.data.pod)

    async def container(self, container: Container, spec: Spec | None) -> nri.Container:
        """Return a container as it is now."""
        from windlass_cri.hooks.messages import container_message

        pid = 0
        if spec is None:
            spec = await self._containers.spec(container)
            with suppress(Error):  # without a task
                pid = (await self._containers.namespace.tasks.get(container.id)).pid
        return container_message(container, spec, self._images.get(container.data.image_id), pid)

    async def synchronize(self, tell: Told) -> None:
        """Await ``tell`` while nothing changes, then make the updates that it returns."""
        from windlass_cri.hooks.messages import pod_message

        async with self._steps.changes.still():
            live = [each for each in self._containers.index if each.status.state in LIVE]
            pods = [pod_message(each) for each in self._pods.index]
            await self.update(await tell(pods, [await self.container(each, None) for each in live]))

    async def update(self, updates: Sequence[Update]) -> Sequence[Update]:
        """Change limits of containers; return what failed, but not what may fail."""
        failed = []
        for each in updates:
            try:
                await self._update(each)
            except Error as error:
                logger.warning("a hook plugin's update of container %s failed: %s", each.container_id[:100], error)
                if not each.ignore_failure:
                    failed.append(each)
        return failed

    async def _update(self, update: Update) -> None:
        from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
        from windlass_cri.hooks.adjusting import beyond
        from windlass_cri.hooks.messages import wanted_limits

        if not isinstance(update, nri.ContainerUpdate):
            raise Unknown(f"a hook plugin's update is a ContainerUpdate, not a {type(update).__name__}")
        if update.container_id in self._containers.index:
            container = self._containers.index.get(update.container_id)
            found = update.linux.resources
            await self._containers.updates.update(container, wanted_limits(found), beyond(found))

    async def evict(self, evictions: Sequence[Eviction]) -> None:
        """Stop containers; what fails is logged."""
        for each in evictions:
            if each.container_id not in self._containers.index:
                continue
            logger.info("a hook plugin evicts container %s: %s", each.container_id, each.reason[:200])
            try:
                await self._containers.stop(self._containers.index.get(each.container_id), 0)
            except Error as error:
                logger.warning("container %s cannot be evicted: %s", each.container_id, error)

    async def resolve(self, spec: Spec, left: Unresolved) -> None:
        """Inject devices of CDI, and set classes."""
        from windlass_cri.hooks.adjusting import resolve

        await asyncio.to_thread(resolve, spec, left, self._config)

    async def fulfil(self, wishes: Wishes) -> None:
        """Evict, then update, as participants of a step want it."""
        await self.evict(wishes.evictions)
        await self.update(wishes.updates)
