"""One plugin in a process of its own: its registration, its configuration, and requests to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from windlass import __version__
from windlass.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable, Unimplemented
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri import naming
from windlass_nri.mux import PLUGIN_SERVICE, Mux
from windlass_nri_plugins.config import Config

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=Message)

SERVICE = "nri.pkg.api.v1alpha1.Plugin"
NRI_VERSION = "v0.12.2"
"""The version of NRI that this is like, for plugins that want to know."""
STEPS = {name.lower(): number for name, number in nri.Event.items() if number not in (nri.UNKNOWN, nri.LAST)}
"""The events of NRI are the steps of `windlass.contracts.pods.PodHooks`."""
ALL = sum(1 << number - 1 for number in STEPS.values())
CHUNK = 3 << 20
"""Bytes of pods and containers in one message; a message may have 4 MiB."""


class Gone(Unavailable):
    """The plugin does not answer any more, and its connection has ended."""


class Peer:
    """A plugin, from its connection on; gets one request at a time."""

    def __init__(self, mux: Mux, config: Config, index: str = "", name: str = "") -> None:
        """Speak to a plugin that is about to register; one that the daemon starts has its name already."""
        self.index, self.name = index, name
        self.steps: frozenset[str] = frozenset()
        self.mux = mux
        self.registered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._launched = bool(name)
        self._config = config
        self._client = mux.client(PLUGIN_SERVICE)
        self._turn = asyncio.Lock()
        self._old: set[str] = set()
        """Steps that it wants as a StateChange."""

    def __str__(self) -> str:
        return f"{self.index}-{self.name}" if self.name else "a plugin without a name yet"

    @property
    def alive(self) -> bool:
        """Whether it is connected."""
        return not self.mux.gone.done() and not self.mux.reason

    def register(self, request: nri.RegisterPluginRequest) -> None:
        """Take its name. Raises InvalidArgument, FailedPrecondition."""
        if self.registered.done():
            raise FailedPrecondition(f'plugin "{self}" has registered already')
        try:
            if not self._launched:
                naming.check_name(request.plugin_name)
                naming.check_index(request.plugin_idx)
                self.name, self.index = request.plugin_name, request.plugin_idx
        except InvalidArgument as error:
            self.registered.set_exception(error)
            raise
        self.mux.name = f'plugin "{self}"'
        self.registered.set_result(None)

    async def configure(self, document: str) -> None:
        """Wait for its registration, hand over its configuration and learn its steps. Raises Error."""
        limit = self._config.registration_timeout
        done, _ = await asyncio.wait(
            {self.registered, self.mux.gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED
        )
        if self.registered not in done:
            reason = self.mux.reason or f"did not register within {limit:g} s"
            raise Unavailable(f"{self.mux.name} {reason}")
        self.registered.result()
        request = nri.ConfigureRequest(
            config=document,
            runtime_name="windlass",
            runtime_version=__version__,
            registration_timeout=int(limit * 1000),
            request_timeout=int(self._config.request_timeout * 1000),
            NRI_version=NRI_VERSION,
        )
        events = (await self._call("Configure", request, nri.ConfigureResponse)).events
        if events & ~ALL:
            raise InvalidArgument(f'plugin "{self}" wants events that do not exist: {events & ~ALL:#x}')
        events = events or ALL
        self.steps = frozenset(step for step, number in STEPS.items() if events & 1 << number - 1)

    async def synchronize(
        self, pods: Sequence[nri.PodSandbox], containers: Sequence[nri.Container]
    ) -> Sequence[nri.ContainerUpdate]:
        """Show it all pods and containers, in several messages where they are many; return what it wants changed."""
        requests = list(_chunks(pods, containers))
        for request in requests:
            response = await self._call("Synchronize", request, nri.SynchronizeResponse)
            if request.more and (response.update or not response.more):
                raise FailedPrecondition(
                    f'plugin "{self}" cannot synchronize with so many pods: not in several messages'
                )
        return response.update

    async def ask(self, step: str, request: Message, kind: type[M]) -> M:
        """Make a request of a step. Raises `Gone`, and the plugin's own error when it refuses."""
        async with self._turn:
            if not self.alive:
                raise Gone(f'plugin "{self}" {self.mux.reason or "is gone"}')
            try:
                return await self._ask(step, request, kind)
            except (Unavailable, DeadlineExceeded) as error:
                # The plugin itself may answer with such an error, which is a refusal.
                if not self.mux.reason and not isinstance(error.__cause__, (TimeoutError, DecodeError)):
                    raise
                self.close(f"is disconnected, it failed in {step}")
                raise Gone(f'plugin "{self}" is disconnected: {error}') from error

    async def _ask(self, step: str, request: Message, kind: type[M]) -> M:
        if step not in self._old:
            try:
                return await self._call(step.title().replace("_", ""), request, kind)
            except Unimplemented:
                if kind.DESCRIPTOR.fields:
                    raise
                logger.warning('plugin "%s" has no method for %s; it gets a StateChange. Update the plugin', self, step)
        change = nri.StateChangeEvent(event=nri.Event.ValueType(STEPS[step]))
        for field, value in request.ListFields():
            if field.name in ("pod", "container"):
                getattr(change, field.name).CopyFrom(value)
        await self._call("StateChange", change, nri.Empty)
        self._old.add(step)
        return kind()

    async def _call(self, method: str, request: Message, kind: type[M]) -> M:
        timeout = self._config.request_timeout
        payload = await self._client.call(SERVICE, method, request.SerializeToString(), timeout)
        try:
            return kind.FromString(payload)
        except DecodeError as error:
            raise Unavailable(f"its answer to {method} is damaged: {error}") from error

    def close(self, reason: str) -> None:
        """Disconnect it."""
        if self.alive:
            logger.warning('plugin "%s" %s', self, reason)
        self.mux.close(reason)


def _chunks(pods: Sequence[nri.PodSandbox], containers: Sequence[nri.Container]) -> Iterator[nri.SynchronizeRequest]:
    request, size = nri.SynchronizeRequest(), 0
    everything: list[nri.PodSandbox | nri.Container] = [*pods, *containers]
    for each in everything:
        more = each.ByteSize()
        if size and size + more > CHUNK:
            request.more = True
            yield request
            request, size = nri.SynchronizeRequest(), 0
        if isinstance(each, nri.PodSandbox):
            request.pods.append(each)
        else:
            request.containers.append(each)
        size += more
    yield request
