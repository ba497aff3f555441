"""What a runtime calls of a plugin, passed on to the participants of the steps of pods."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterator, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from windlass.contracts.pods import Answer, PodHooks
from windlass.errors import Error, InvalidArgument, Unimplemented
from windlass.hooks import Hooks
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.merging import Contribution, MergedUpdate, StopMerger, UpdateMerger, merge
from windlass_nri.runtime import Runtime

R = TypeVar("R", bound=Message)
SERVICE = "nri.pkg.api.v1alpha1.Plugin"
EVENTS = {name.lower(): number for name, number in nri.Event.items() if number not in (nri.UNKNOWN, nri.LAST)}
"""The numbers of NRI's events, which are the steps of `windlass.contracts.pods.PodHooks`."""
FIELDS = {"overhead": "overhead_linux_resources", "resources": "linux_resources"}
"""Arguments of steps that have another name in NRI's requests."""

logger = logging.getLogger(__name__)


class PluginService:
    """Answers the runtime: a `windlass_nri.mux.Service`."""

    name = SERVICE

    def __init__(self, hooks: Hooks, runtime: Runtime) -> None:
        """Ask the participants of ``hooks``, and let them ask ``runtime``."""
        self._hooks = hooks
        self._runtime = runtime
        self._parts = nri.SynchronizeRequest()
        self.configured: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the runtime has configured the plugin."""
        self._serving: asyncio.Task[list[None]] | None = None

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        """Answer one call."""
        step = "".join(f"_{char.lower()}" if char.isupper() else char for char in method)[1:]
        kind = getattr(nri, f"{method}Request", nri.Empty)
        if method == "StateChange":
            kind = nri.StateChangeEvent
        try:
            request = kind.FromString(payload)
        except DecodeError as error:
            raise InvalidArgument(f"request {method} is damaged: {error}") from error
        own = getattr(self, f"_{step}", None)
        if own is not None:
            response = await own(request)
        elif step in EVENTS:
            await self._ask(step, request)
            response = getattr(nri, f"{method}Response")()
        else:
            raise Unimplemented(f"method {method} of {SERVICE}")
        assert isinstance(response, Message)
        return response.SerializeToString()

    async def _ask(self, step: str, request: Message) -> list[object]:
        function = getattr(PodHooks, step)
        names = [name for name in inspect.signature(function).parameters if name != "self"]
        arguments = [request if name == "request" else getattr(request, FIELDS.get(name, name)) for name in names]
        return list(await self._hooks.call(function, *arguments))

    async def _configure(self, request: nri.ConfigureRequest) -> nri.ConfigureResponse:
        events = sum(1 << number - 1 for step, number in EVENTS.items() if self._hooks.wanted(getattr(PodHooks, step)))
        logger.info("the runtime is %s %s", request.runtime_name, request.runtime_version)
        if request.config:
            logger.warning("the runtime's configuration for this plugin is not used; use a block of config.toml")
        self._serving = asyncio.ensure_future(self._hooks.call(PodHooks.serve_pods, self._runtime))
        asked = asyncio.ensure_future(self._runtime.asked.wait())
        # a participant that waits for all pods gets them after this call, not in it
        await asyncio.wait({self._serving, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not self.configured.done():
            self.configured.set_result(None)
        return nri.ConfigureResponse(events=events)

    async def _synchronize(self, request: nri.SynchronizeRequest) -> nri.SynchronizeResponse:
        self._parts.pods.extend(request.pods)
        self._parts.containers.extend(request.containers)
        if request.more:
            return nri.SynchronizeResponse(more=True)
        everything, self._parts = self._parts, nri.SynchronizeRequest()
        wanted = await self._runtime.show(list(everything.pods), list(everything.containers))
        updates = [update for update in wanted if isinstance(update, nri.ContainerUpdate)]
        return nri.SynchronizeResponse(update=updates)

    async def _shutdown(self, request: nri.Empty) -> nri.Empty:
        logger.info("the runtime shuts down")
        return nri.Empty()

    async def _state_change(self, request: nri.StateChangeEvent) -> nri.Empty:
        step = next((step for step, number in EVENTS.items() if number == request.event), "")
        if step and set(inspect.signature(getattr(PodHooks, step)).parameters) <= {"self", "pod", "container"}:
            await self._ask(step, request)
        return nri.Empty()

    async def _create_container(self, request: nri.CreateContainerRequest) -> nri.CreateContainerResponse:
        answers = list(_responses(await self._ask("create_container", request), nri.CreateContainerResponse))
        if len(answers) == 1:
            return answers[0][1]
        merged = merge(request.container, [Contribution(*answer) for answer in answers])
        return nri.CreateContainerResponse(
            adjust=merged.adjustment if answers else None, update=merged.updates, evict=merged.evictions
        )

    async def _update_container(self, request: nri.UpdateContainerRequest) -> nri.UpdateContainerResponse:
        answers = list(_responses(await self._ask("update_container", request), nri.UpdateContainerResponse))
        if len(answers) == 1:
            return answers[0][1]
        merger = UpdateMerger(request.container.id, request.linux_resources)
        for plugin, response in answers:
            merger.add(plugin, response)
        merged = merger.merged()
        return nri.UpdateContainerResponse(update=_updates(request.container.id, merged), evict=merged.evictions)

    async def _stop_container(self, request: nri.StopContainerRequest) -> nri.StopContainerResponse:
        merger = StopMerger()
        for plugin, response in _responses(await self._ask("stop_container", request), nri.StopContainerResponse):
            merger.add(plugin, response)
        return nri.StopContainerResponse(update=merger.merged().updates)

    async def _validate_container_adjustment(
        self, request: nri.ValidateContainerAdjustmentRequest
    ) -> nri.ValidateContainerAdjustmentResponse:
        try:
            await self._ask("validate_container_adjustment", request)
        except Error as error:
            return nri.ValidateContainerAdjustmentResponse(reject=True, reason=str(error))
        return nri.ValidateContainerAdjustmentResponse()


def _updates(id: str, merged: MergedUpdate) -> list[nri.ContainerUpdate]:
    if merged.requested is None:
        return list(merged.updates)
    linux = nri.LinuxContainerUpdate(resources=merged.requested)
    return [*merged.updates, nri.ContainerUpdate(container_id=id, linux=linux)]


def _responses(answers: Sequence[object], kind: type[R]) -> Iterator[tuple[str, R]]:
    for answer in answers:
        for each in answer if isinstance(answer, (list, tuple)) else [answer]:
            if not isinstance(each, Answer) or not isinstance(each.response, kind):
                raise InvalidArgument(
                    f"a hook plugin has answered with {each!r:.200}, not with an Answer of a {kind.__name__}"
                )
            yield each.plugin, each.response
