"""The steps in the life of pods and containers in which hook plugins take part: NRI, and plugins in the daemon.

What speaks NRI's messages is imported when a participant has a say for the first time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from windlass.contracts.pods import PodHooks, PodRuntime
from windlass.errors import Error, Unknown
from windlass.hooks import Hooks
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.containers.updates import Decided
from windlass_cri.hooks.changes import Changes
from windlass_cri.record import Container, Pod
from windlass_oci.runtime_spec import Spec

if TYPE_CHECKING:
    from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
    from windlass_cri.hooks.adjusting import Wishes
    from windlass_nri.applying import Unresolved

logger = logging.getLogger(__name__)

Step = Callable[..., object]


class Known(PodRuntime, Protocol):
    """Knows pods and containers, and shows them as NRI's messages."""

    def pod(self, container: Container) -> nri.PodSandbox:
        """Return the pod of a container."""

    async def container(self, container: Container, spec: Spec | None) -> nri.Container:
        """Return a container; ``spec`` is None for one that the daemon has a record of."""

    async def resolve(self, spec: Spec, left: Unresolved) -> None:
        """Put into a spec what only the configuration can say. Raises Unknown."""

    async def fulfil(self, wishes: Wishes) -> None:
        """Update and evict other containers; what fails is logged."""


class PodSteps:
    """Asks the participants. Who calls holds `changes`, over the step and over what it is about.

    Each pod and container is told to stop once, whatever ends it, and before it is told to be removed.
    """

    known: Known
    """Set before the first step."""

    def __init__(self, hooks: Hooks) -> None:
        """Ask by ``hooks``."""
        self.changes = Changes()
        self._hooks = hooks
        self._stopped: set[str] = set()
        """The IDs of what has been told to stop, and not yet to be removed."""
        self._creating: dict[str, Spec] = {}
        """The specs of containers that have no record yet."""
        self._ending: dict[str, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Make known who runs the pods."""
        await self._hooks.call(PodHooks.serve_pods, self.known)

    def had_stopped(self, id: str) -> None:
        """Know of a pod or container that it had ended before this daemon began."""
        self._stopped.add(id)

    async def run_pod(self, pod: Pod) -> None:
        """Let participants refuse a pod; all of them then see it go. Raises FailedPrecondition."""
        try:
            await self._about_pod(PodHooks.run_pod_sandbox, pod)
        except BaseException:
            await asyncio.shield(self.remove_pod(pod))
            raise

    async def update_pod(
        self, pod: Pod, overhead: cri.LinuxContainerResources, resources: cri.LinuxContainerResources
    ) -> None:
        """Let participants refuse new limits of a pod. Raises Unknown."""
        if not self._hooks.wanted(PodHooks.update_pod_sandbox):
            return
        from windlass_cri.hooks.messages import limits, pod_message

        try:
            await self._hooks.call(PodHooks.update_pod_sandbox, pod_message(pod), limits(overhead), limits(resources))
        except Error as error:
            raise Unknown(f"pod {pod.data.name}: {error}") from error

    async def pod_updated(self, pod: Pod) -> None:
        """Show a pod with new limits."""
        await self._about_pod(PodHooks.post_update_pod_sandbox, pod)

    async def stop_pod(self, pod: Pod) -> None:
        """Show a pod that has stopped, once."""
        if pod.id not in self._stopped:
            self._stopped.add(pod.id)
            await self._about_pod(PodHooks.stop_pod_sandbox, pod)

    async def remove_pod(self, pod: Pod) -> None:
        """Show a pod that goes."""
        await self.stop_pod(pod)
        await self._about_pod(PodHooks.remove_pod_sandbox, pod)
        self._stopped.discard(pod.id)

    async def _about_pod(self, step: Step, pod: Pod) -> None:
        if self._hooks.wanted(step):
            from windlass_cri.hooks.messages import pod_message

            await self._hooks.call(step, pod_message(pod))

    async def create_container(self, container: Container, spec: Spec) -> None:
        """Let participants adjust a spec, in place. Raises Unknown; when the creation fails, `undo` it."""
        self._creating[container.id] = spec
        wanted = self._hooks.wanted
        if not wanted(PodHooks.create_container) and not wanted(PodHooks.validate_container_adjustment):
            return
        from windlass_cri.hooks.adjusting import adjust

        pod, shown = self.known.pod(container), await self.known.container(container, spec)
        try:
            left, wishes = await adjust(self._hooks, pod, shown, spec)
            await self.known.resolve(spec, left)
        except Error as error:
            raise Unknown(_about(container, error)) from error
        await self.known.fulfil(wishes)

    async def container_created(self, container: Container) -> None:
        """Show a container with all adjustments."""
        self._creating.pop(container.id, None)
        await self._about(PodHooks.post_create_container, container)

    async def start_container(self, container: Container) -> None:
        """Let participants refuse the start of a container whose process waits for it. Raises Unknown."""
        try:
            await self._about(PodHooks.start_container, container)
        except Error as error:
            raise Unknown(_about(container, error)) from error

    async def container_started(self, container: Container) -> None:
        """Show a container that runs."""
        await self._about(PodHooks.post_start_container, container)

    async def update_container(self, container: Container, wanted: cri.LinuxContainerResources) -> Decided:
        """Return new limits of a container as participants want them. Raises Unknown."""
        if not self._hooks.wanted(PodHooks.update_container):
            return Decided(wanted)
        from windlass_cri.hooks.adjusting import adjust_update

        pod, shown = self.known.pod(container), await self._shown(container)
        try:
            decided, wishes = await adjust_update(self._hooks, pod, shown, wanted)
        except Error as error:
            raise Unknown(_about(container, error)) from error
        await self.known.fulfil(wishes)
        return decided

    async def container_updated(self, container: Container) -> None:
        """Show a container with new limits."""
        await self._about(PodHooks.post_update_container, container)

    def container_ended(self, container: Container) -> None:
        """Show a container that has ended; `told` waits for that.

        Who waits for the end of a container, such as for an eviction, may hold `changes`, for which this waits.
        """
        self._ending[container.id] = asyncio.create_task(self._end(container))

    async def _end(self, container: Container) -> None:
        try:
            async with self.changes.one():
                await self.stop_container(container)
        finally:
            self._ending.pop(container.id, None)

    async def told(self, *containers: Container) -> None:
        """Wait until participants have seen these containers end, of those that have."""
        if tasks := {self._ending[each.id] for each in containers if each.id in self._ending}:
            await asyncio.wait(tasks)

    async def stop_container(self, container: Container) -> None:
        """Show a container that has ended, once, and update others as participants want it."""
        if container.id in self._stopped:
            return
        self._stopped.add(container.id)
        if not self._hooks.wanted(PodHooks.stop_container):
            return
        from windlass_cri.hooks.adjusting import after_stop

        try:
            pod, shown = self.known.pod(container), await self._shown(container)
            await self.known.fulfil(await after_stop(self._hooks, pod, shown))
        except Error as error:
            logger.warning("%s", _about(container, error))

    async def undo(self, container: Container) -> None:
        """Show a container go that has not come about."""
        if container.id in self._creating:
            await self.remove_container(container)

    async def remove_container(self, container: Container) -> None:
        """Show a container that goes."""
        if container.id in self._stopped:
            await self.told(container)
        await self.stop_container(container)
        if (task := self._ending.pop(container.id, None)) is not None:
            task.cancel()  # it has not begun
        try:
            await self._about(PodHooks.remove_container, container)
        except Error as error:
            # Its record is gone already: a removal that failed half-way is tried again.
            logger.warning("%s", _about(container, error))
        self._stopped.discard(container.id)
        self._creating.pop(container.id, None)

    async def _about(self, step: Step, container: Container) -> None:
        if self._hooks.wanted(step):
            await self._hooks.call(step, self.known.pod(container), await self._shown(container))

    async def _shown(self, container: Container) -> nri.Container:
        return await self.known.container(container, self._creating.get(container.id))

    def close(self) -> None:
        """Show no further end."""
        for task in self._ending.values():
            task.cancel()


def _about(container: Container, error: Error) -> str:
    return f"container {container.data.name}: {error}"
