"""A runtime of NRI's protocol, for tests of plugins: takes registrations and makes the calls that a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message

from windlass.errors import InvalidArgument, Unimplemented
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.mux import PLUGIN_SERVICE, RUNTIME_SERVICE, Mux

M = TypeVar("M", bound=Message)


class FakeRuntime:
    """Serves a socket; each plugin that registers is configured, and is then in ``plugins``."""

    name = "nri.pkg.api.v1alpha1.Runtime"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plugins: asyncio.Queue[ConnectedPlugin] = asyncio.Queue()
        self.refuse = ""
        self.silent = False
        self._connected: list[ConnectedPlugin] = []

    async def plugin(self) -> ConnectedPlugin:
        async with asyncio.timeout(30):
            return await self.plugins.get()

    def close(self) -> None:
        for each in self._connected:
            each.mux.close()

    def _accept(self, mux: Mux) -> None:
        plugin = ConnectedPlugin(self, mux)
        self._connected.append(plugin)
        mux.serve(RUNTIME_SERVICE, [plugin])


class ConnectedPlugin:
    """One plugin, as the runtime has it."""

    name = FakeRuntime.name

    def __init__(self, runtime: FakeRuntime, mux: Mux) -> None:
        self.runtime = runtime
        self.mux = mux
        self.client = mux.client(PLUGIN_SERVICE)
        self.registration = nri.RegisterPluginRequest()
        self.configuration = nri.ConfigureResponse()
        self.asked: list[nri.UpdateContainersRequest] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        if method == "UpdateContainers":
            self.asked.append(nri.UpdateContainersRequest.FromString(payload))
            failed = [each for each in self.asked[-1].update if each.container_id == "missing"]
            return nri.UpdateContainersResponse(failed=failed).SerializeToString()
        if method != "RegisterPlugin":
            raise Unimplemented(method)
        if self.runtime.refuse:
            raise InvalidArgument(self.runtime.refuse)
        self.registration = nri.RegisterPluginRequest.FromString(payload)
        if not self.runtime.silent:
            task = asyncio.create_task(self._configure())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return b""

    async def _configure(self) -> None:
        request = nri.ConfigureRequest(runtime_name="fake", runtime_version="1")
        self.configuration = await self.ask("Configure", request, nri.ConfigureResponse)
        self.runtime.plugins.put_nowait(self)

    async def ask(self, method: str, request: Message, kind: type[M], timeout: float = 30) -> M:
        service = "nri.pkg.api.v1alpha1.Plugin"
        return kind.FromString(await self.client.call(service, method, request.SerializeToString(), timeout))

    @property
    def events(self) -> set[str]:
        mask = self.configuration.events
        return {name for name, number in nri.Event.items() if number and mask & 1 << number - 1}


@contextlib.asynccontextmanager
async def fake_runtime(path: Path) -> AsyncIterator[FakeRuntime]:
    """A runtime that listens at ``path``."""
    runtime = FakeRuntime(path)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: _mux(runtime), path)
    try:
        yield runtime
    finally:
        server.close()
        runtime.close()
        await server.wait_closed()


def _mux(runtime: FakeRuntime) -> Mux:
    mux = Mux("a plugin")
    runtime._accept(mux)
    return mux
