"""Takes part in the steps of pods and containers for all plugins of NRI."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, TypeVar

from windlass.contracts.pods import Answer, Limits, Pod, PodContainer, PodRuntime, Validation
from windlass.errors import InvalidArgument
from windlass.hooks import hookimpl
from windlass_nri_plugins.server import NriServer

if TYPE_CHECKING:
    from windlass_nri_plugins.peers import Peers

R = TypeVar("R")
M = TypeVar("M")


class NriHooks:
    """The participant of `windlass.contracts.pods.PodHooks`; its methods run on a loop of their own."""

    def __init__(self, server: NriServer) -> None:
        """Speak for the plugins of ``server``."""
        self._server = server

    def has_say(self, step: str) -> bool:
        """Tell whether a step has to be called."""
        return self._server.has_say(step)

    @hookimpl
    async def serve_pods(self, runtime: PodRuntime) -> None:
        """Know who runs the pods."""
        await self._server.run(self._server.serve_pods(runtime))

    @hookimpl
    async def run_pod_sandbox(self, pod: Pod) -> None:
        """Ask all."""
        await self._about("run_pod_sandbox", pod)

    @hookimpl
    async def update_pod_sandbox(self, pod: Pod, overhead: Limits, resources: Limits) -> None:
        """Ask all."""
        from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri

        request = nri.UpdatePodSandboxRequest(
            pod=_as(nri.PodSandbox, pod),
            overhead_linux_resources=_as(nri.LinuxResources, overhead),
            linux_resources=_as(nri.LinuxResources, resources),
        )
        step = "update_pod_sandbox"
        await self._ask(step, pod, lambda peers: peers.about(step, request))

    @hookimpl
    async def post_update_pod_sandbox(self, pod: Pod) -> None:
        """Show it to all."""
        await self._about("post_update_pod_sandbox", pod)

    @hookimpl
    async def stop_pod_sandbox(self, pod: Pod) -> None:
        """Show it to all."""
        await self._about("stop_pod_sandbox", pod)

    @hookimpl
    async def remove_pod_sandbox(self, pod: Pod) -> None:
        """Show it to all."""
        await self._about("remove_pod_sandbox", pod)

    @hookimpl
    async def create_container(self, pod: Pod, container: PodContainer) -> list[Answer]:
        """Ask all, one after the other."""
        from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri

        shown, made = _as(nri.PodSandbox, pod), _as(nri.Container, container)
        return await self._ask("create_container", pod, lambda peers: peers.create_container(shown, made))

    @hookimpl
    async def validate_container_adjustment(self, request: Validation) -> None:
        """Ask the default validator, then all."""
        from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri

        asked = _as(nri.ValidateContainerAdjustmentRequest, request)
        await self._ask("validate_container_adjustment", request.pod, lambda peers: peers.validate(asked))

    @hookimpl
    async def post_create_container(self, pod: Pod, container: PodContainer) -> None:
        """Show it to all."""
        await self._about("post_create_container", pod, container)

    @hookimpl
    async def start_container(self, pod: Pod, container: PodContainer) -> None:
        """Ask all."""
        await self._about("start_container", pod, container)

    @hookimpl
    async def post_start_container(self, pod: Pod, container: PodContainer) -> None:
        """Show it to all."""
        await self._about("post_start_container", pod, container)

    @hookimpl
    async def update_container(self, pod: Pod, container: PodContainer, resources: Limits) -> list[Answer]:
        """Ask all, one after the other."""
        from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri

        shown, made = _as(nri.PodSandbox, pod), _as(nri.Container, container)
        limits = _as(nri.LinuxResources, resources)
        return await self._ask("update_container", pod, lambda peers: peers.update_container(shown, made, limits))

    @hookimpl
    async def post_update_container(self, pod: Pod, container: PodContainer) -> None:
        """Show it to all."""
        await self._about("post_update_container", pod, container)

    @hookimpl
    async def stop_container(self, pod: Pod, container: PodContainer) -> list[Answer]:
        """Show it to all."""
        from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri

        shown, made = _as(nri.PodSandbox, pod), _as(nri.Container, container)
        return await self._ask("stop_container", pod, lambda peers: peers.stop_container(shown, made))

    @hookimpl
    async def remove_container(self, pod: Pod, container: PodContainer) -> None:
        """Show it to all."""
        await self._about("remove_container", pod, container)

    async def _about(self, step: str, pod: Pod, container: PodContainer | None = None) -> None:
        from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri

        request = getattr(nri, f"{step.title().replace('_', '')}Request")(pod=_as(nri.PodSandbox, pod))
        if container is not None:
            request.container.CopyFrom(_as(nri.Container, container))
        await self._ask(step, pod, lambda peers: peers.about(step, request))

    async def _ask(self, step: str, pod: Pod, work: Callable[[Peers], Coroutine[object, object, R]]) -> R:
        async def ask() -> R:
            self._server.check_absent(step, dict(pod.labels))
            return await work(self._server.peers)

        return await self._server.run(ask())


def _as(kind: type[M], message: object) -> M:
    if not isinstance(message, kind):
        raise InvalidArgument(f"NRI speaks of a {kind.__name__}, not of a {type(message).__name__}")
    return message
