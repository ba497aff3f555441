"""The runtime, as a plugin asks it: a `windlass.contracts.pods.PodRuntime` over ttrpc."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from windlass.contracts.pods import Eviction, PodRuntime, Told, Update
from windlass.errors import FailedPrecondition, Unavailable
from windlass.typing import override
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.mux import Client

M = TypeVar("M", bound=Message)
SERVICE = "nri.pkg.api.v1alpha1.Runtime"
VERSION = "v0.12.2"
"""The version of NRI that plugins served by this are like."""
UPDATE = 60.0
"""Seconds for updates that no event caused."""


class Runtime(PodRuntime):
    """What participants may ask; one for a connection."""

    def __init__(self, client: Client) -> None:
        """Ask by ``client``."""
        self._client = client
        self._waiting: list[tuple[Told, asyncio.Future[None]]] = []
        self._synchronized = False
        self.asked = asyncio.Event()
        """Set when a participant has called `synchronize`."""

    async def register(self, name: str, index: str, timeout: float) -> None:
        """Tell the runtime who this is."""
        request = nri.RegisterPluginRequest(plugin_name=name, plugin_idx=index, NRI_version=VERSION)
        await self._call("RegisterPlugin", request, nri.Empty, timeout)

    @override
    async def synchronize(self, tell: Told) -> None:
        # NRI shows all pods once, after registration; what ``tell`` wants is the answer to that.
        if self._synchronized:
            raise FailedPrecondition("a runtime shows its pods to a plugin once; call synchronize in serve_pods")
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((tell, done))
        self.asked.set()
        await done

    async def show(self, pods: Sequence[nri.PodSandbox], containers: Sequence[nri.Container]) -> list[Update]:
        """Show all pods to participants that wait for them, and return what they want to have changed.

        One that fails gets its own error from `synchronize`, and wants nothing.
        """
        self._synchronized = True
        waiting, self._waiting = self._waiting, []
        answers = await asyncio.gather(*(tell(pods, containers) for tell, _ in waiting), return_exceptions=True)
        wanted: list[Update] = []
        for (_, done), answer in zip(waiting, answers, strict=True):
            if not isinstance(answer, BaseException):
                wanted += answer
            if not done.done():
                done.set_exception(answer) if isinstance(answer, BaseException) else done.set_result(None)
        return wanted

    def ended(self, reason: str) -> None:
        """Let no participant wait for what does not come."""
        for _, done in self._waiting:
            if not done.done():
                done.set_exception(Unavailable(reason))
        self._waiting.clear()

    @override
    async def update(self, updates: Sequence[Update]) -> Sequence[Update]:
        request = nri.UpdateContainersRequest(update=_as(nri.ContainerUpdate, updates))
        return (await self._call("UpdateContainers", request, nri.UpdateContainersResponse, UPDATE)).failed

    @override
    async def evict(self, evictions: Sequence[Eviction]) -> None:
        request = nri.UpdateContainersRequest(evict=_as(nri.ContainerEviction, evictions))
        await self._call("UpdateContainers", request, nri.UpdateContainersResponse, UPDATE)

    async def _call(self, method: str, request: Message, kind: type[M], timeout: float) -> M:
        payload = await self._client.call(SERVICE, method, request.SerializeToString(), timeout)
        try:
            return kind.FromString(payload)
        except DecodeError as error:
            raise Unavailable(f"the runtime's answer to {method} is damaged: {error}") from error


def _as(kind: type[M], messages: Iterable[object]) -> list[M]:
    found = [each for each in messages if isinstance(each, kind)]
    if len(found) != len(list(messages)):
        raise FailedPrecondition(f"NRI takes messages {kind.__name__}, and nothing else")
    return found
