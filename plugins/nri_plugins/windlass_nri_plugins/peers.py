"""All plugins in processes of their own, in the order of their indices, and what they are asked."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TypeVar

from google.protobuf.message import Message

from windlass.contracts.pods import Answer, Pod, PodContainer, PodRuntime, Update
from windlass.errors import Error, FailedPrecondition
from windlass.records import dataclass
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.merging import Contribution, Merger, StopMerger, UpdateMerger
from windlass_nri.mux import RUNTIME_SERVICE, attach
from windlass_nri.validation import Config as ValidatorConfig
from windlass_nri.validation import DefaultValidator, Rejected
from windlass_nri_plugins.config import Config
from windlass_nri_plugins.hostservices import HostFunctions, RuntimeService
from windlass_nri_plugins.peer import Gone, Peer
from windlass_nri_plugins.policies import REFUSABLE, Policies

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Name:
    """What a plugin is called, and its configuration; empty for one that says so itself."""

    index: str = ""
    name: str = ""
    document: str = ""


class Peers:
    """The plugins that take part; used on the daemon's loop."""

    def __init__(self, config: Config, policies: Policies, runtime: Callable[[], PodRuntime | None]) -> None:
        """Have none yet; ``runtime`` returns who runs the pods, None while there are none."""
        self._config = config
        self._policies = policies
        self._runtime = runtime
        self._peers: list[Peer] = []
        rules = ValidatorConfig(**asdict(config.default_validator))
        self._default = DefaultValidator(rules) if rules.enable else None

    def has_say(self, step: str) -> bool:
        """Tell whether a plugin takes part in a step."""
        return any(step in peer.steps for peer in self._peers)

    def names(self) -> list[tuple[str, str]]:
        """Return index and name of each plugin."""
        return [(peer.index, peer.name) for peer in self._peers]

    async def serve(
        self, connection: socket.socket, who: Name | None = None, ready: Callable[[], None] = lambda: None
    ) -> None:
        """Let a plugin take part from its registration to the end of its connection. Raises Error when it cannot.

        ``who`` is what is known of one that the daemon starts; ``ready`` is called when it takes part.
        """
        who = who or Name()
        mux = await attach(
            connection, f'plugin "{who.index}-{who.name}"' if who.name else "a plugin without a name yet"
        )
        peer = Peer(mux, self._config, who.index, who.name)
        mux.serve(RUNTIME_SERVICE, [RuntimeService(peer, self._update), HostFunctions(peer)])
        try:
            await peer.configure(who.document)
            await self._synchronize(peer)
            ready()
            logger.info('plugin "%s" takes part in %s', peer, ", ".join(sorted(peer.steps)))
            await mux.gone
            logger.info('plugin "%s" %s', peer, mux.reason)
        finally:
            mux.close()
            if peer in self._peers:
                self._peers.remove(peer)

    async def _synchronize(self, peer: Peer) -> None:
        async def tell(pods: Sequence[Pod], containers: Sequence[PodContainer]) -> Sequence[Update]:
            shown = [each for each in pods if isinstance(each, nri.PodSandbox)]
            live = [each for each in containers if isinstance(each, nri.Container)]
            updates = await peer.synchronize(shown, live)
            # From here on, and before anything changes again, it is asked.
            self._peers.append(peer)
            self._peers.sort(key=lambda each: each.index)
            self._policies.registered(peer.index, peer.name, peer.steps)
            return updates

        runtime = self._runtime()
        if runtime is None:
            await tell((), ())
        else:
            await runtime.synchronize(tell)

    async def _update(self, peer: Peer, request: nri.UpdateContainersRequest) -> nri.UpdateContainersResponse:
        """Make the changes that a plugin wants without being asked. Raises FailedPrecondition."""
        runtime = self._runtime()
        if peer not in self._peers:
            raise FailedPrecondition(f'plugin "{peer}" is not synchronized yet; update containers after that')
        if runtime is None:
            return nri.UpdateContainersResponse(failed=request.update)
        await runtime.evict(request.evict)
        failed = await runtime.update(request.update)
        return nri.UpdateContainersResponse(failed=[each for each in failed if isinstance(each, nri.ContainerUpdate)])

    async def about(self, step: str, request: Message) -> None:
        """Show a pod or a container to each plugin. Raises FailedPrecondition when one refuses, where it can."""
        kind = _response(request)
        for peer in self._asked(step):
            try:
                await self._ask(peer, step, request, kind)
            except Error as error:
                if step in REFUSABLE:
                    raise
                logger.warning("%s", error)

    async def create_container(self, pod: nri.PodSandbox, container: nri.Container) -> list[Answer]:
        """Return what plugins want of a container; each sees what those before it have adjusted. Raises Error."""
        merger, answers = Merger(container), []
        for peer in self._asked("create_container"):
            request = nri.CreateContainerRequest(pod=pod, container=merger.container)
            response = await self._ask(peer, "create_container", request, nri.CreateContainerResponse)
            if response is not None:
                merger.add(Contribution(str(peer), response))
                answers.append(Answer(str(peer), response))
        return answers

    async def update_container(
        self, pod: nri.PodSandbox, container: nri.Container, resources: nri.LinuxResources
    ) -> list[Answer]:
        """Return what plugins want of new limits; each sees what those before it want. Raises Error."""
        merger, answers = UpdateMerger(container.id, resources), []
        for peer in self._asked("update_container"):
            request = nri.UpdateContainerRequest(pod=pod, container=container, linux_resources=merger.resources)
            response = await self._ask(peer, "update_container", request, nri.UpdateContainerResponse)
            if response is not None:
                merger.add(str(peer), response)
                answers.append(Answer(str(peer), response))
        return answers

    async def stop_container(self, pod: nri.PodSandbox, container: nri.Container) -> list[Answer]:
        """Show each plugin a container that has ended, and return what they want of others."""
        merger, answers = StopMerger(), []
        for peer in self._asked("stop_container"):
            try:
                request = nri.StopContainerRequest(pod=pod, container=container)
                response = await self._ask(peer, "stop_container", request, nri.StopContainerResponse)
                if response is not None:
                    merger.add(str(peer), response)
                    answers.append(Answer(str(peer), response))
            except Error as error:
                logger.warning("%s", error)
        return answers

    async def validate(self, request: nri.ValidateContainerAdjustmentRequest) -> None:
        """Let the default validator and all validators refuse. Raises Error; one that does not answer has refused."""
        asked = nri.ValidateContainerAdjustmentRequest()
        asked.CopyFrom(request)
        asked.plugins.extend(nri.PluginInstance(index=index, name=name) for index, name in self.names())
        if self._default is not None:
            self._default.validate(asked)
        step, kind = "validate_container_adjustment", nri.ValidateContainerAdjustmentResponse
        for peer in self._asked(step):
            try:
                response = await peer.ask(step, asked, kind)
            except Error as error:
                raise FailedPrecondition(f'validator plugin "{peer}" failed: {error}') from error
            if response.reject:
                raise Rejected(f'validator plugin "{peer}" rejects the adjustments: {response.reason or "no reason"}')

    def _asked(self, step: str) -> Iterator[Peer]:
        """Yield the plugins of a step that are there when it is their turn."""
        for peer in list(self._peers):
            if step in peer.steps:
                yield peer

    async def _ask(self, peer: Peer, step: str, request: Message, kind: type[M]) -> M | None:
        """Return a plugin's answer, None of one that fails and may. Raises FailedPrecondition, naming it."""
        try:
            return await peer.ask(step, request, kind)
        except Gone as error:
            if self._policies.refuses(peer.index, peer.name, step, _labels(request)):
                raise FailedPrecondition(f"{error}; its policy is to refuse then") from error
            logger.warning("%s; %s goes on without it", error, step)
            return None
        except Error as error:
            raise FailedPrecondition(f'plugin "{peer}" refuses {step}: {error}') from error


def _labels(request: Message) -> Mapping[str, str]:
    pod = getattr(request, "pod", None)
    return pod.labels if isinstance(pod, nri.PodSandbox) else {}


def _response(request: Message) -> type[Message]:
    name = type(request).__name__.removesuffix("Request")
    kind: type[Message] = getattr(nri, f"{name}Response")
    return kind
