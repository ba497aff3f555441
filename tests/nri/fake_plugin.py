"""A plugin of NRI as the daemon meets it: over a socket, with answers that a test chooses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping

from google.protobuf.message import Message

from windlass.errors import Unimplemented
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.mux import PLUGIN_SERVICE, RUNTIME_SERVICE, Mux, attach

Answer = Callable[[bytes], object]
"""Gets a request and returns a message, or a coroutine of one."""


class FakePlugin:
    """Takes part in the given steps; what is asked of it is in `asked`."""

    name = "nri.pkg.api.v1alpha1.Plugin"

    def __init__(self, index: str, name: str, answers: Mapping[str, Answer], events: int = 0) -> None:
        """``answers`` are by method; without one the method has an empty response."""
        self.index, self.plugin = index, name
        self.answers = dict(answers)
        self.events = events
        self.asked: list[str] = []
        self.requests: list[bytes] = []
        self.mux: Mux

    async def connect(self, peer: socket.socket) -> None:
        """Be a plugin on a connected socket, and register."""
        self.mux = await attach(peer, "the runtime")
        self.mux.serve(PLUGIN_SERVICE, [self])
        self.runtime = self.mux.client(RUNTIME_SERVICE)
        await self.tell("RegisterPlugin", nri.RegisterPluginRequest(plugin_name=self.plugin, plugin_idx=self.index))

    async def tell(self, method: str, request: Message) -> bytes:
        """Call the runtime."""
        return await self.runtime.call("nri.pkg.api.v1alpha1.Runtime", method, request.SerializeToString(), 10)

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        """Answer the runtime."""
        self.asked.append(method)
        self.requests.append(payload)
        if method in self.answers:
            answer = self.answers[method](payload)
            found = await answer if asyncio.iscoroutine(answer) else answer
            assert isinstance(found, Message)
            return found.SerializeToString()
        if method == "Configure":
            return nri.ConfigureResponse(events=self.events).SerializeToString()
        if method == "Synchronize":
            return nri.SynchronizeResponse(more=nri.SynchronizeRequest.FromString(payload).more).SerializeToString()
        if method == "Missing":
            raise Unimplemented(method)
        return b""


def event(*names: str) -> int:
    """Return the mask of some events."""
    return sum(1 << nri.Event.Value(name) - 1 for name in names)


async def hang(request: bytes) -> Message:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError("cannot be reached")
