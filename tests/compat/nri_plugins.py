"""Plugins of NRI that tests run: in a thread, on a loop of its own, as the daemon does not know any other way."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TypeVar

from compat.scratch_daemon import wait_until
from nri.fake_plugin import FakePlugin

from windlass.contracts.pods import Answer, Pod, PodContainer, PodRuntime, Update
from windlass.errors import PermissionDenied
from windlass.hooks import hookimpl
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.stub import Stub, hooks_of

R = TypeVar("R")


class Background:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Coroutine[object, object, R]]) -> R:
        """Await something on the loop."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()


class Watcher:
    """A plugin by `windlass_nri.stub`: keeps what it sees, adjusts containers, and refuses what it is set to."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.containers: dict[str, nri.Container] = {}
        self.there: list[str] | None = None
        """The IDs of pods and containers that it was shown at first; None before that."""
        self.refuses = ""
        self.adjust = nri.ContainerAdjustment()
        self.loop: asyncio.AbstractEventLoop | None = None
        """On which it asks the runtime."""

    def _note(self, step: str, container: PodContainer | None = None) -> None:
        self.seen.append(step)
        if isinstance(container, nri.Container):
            self.containers[step] = container
        if step == self.refuses:
            raise PermissionDenied(f"{step} is not for you")

    @hookimpl
    async def serve_pods(self, runtime: PodRuntime) -> None:
        async def tell(pods: Sequence[Pod], containers: Sequence[PodContainer]) -> Sequence[Update]:
            self.there = sorted([*(each.id for each in pods), *(each.id for each in containers)])
            return ()

        loop = self.loop
        assert loop is not None
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(runtime.synchronize(tell), loop))

    @hookimpl
    def run_pod_sandbox(self, pod: Pod) -> None:
        self._note("run pod")

    @hookimpl
    def stop_pod_sandbox(self, pod: Pod) -> None:
        self._note("stop pod")

    @hookimpl
    def remove_pod_sandbox(self, pod: Pod) -> None:
        self._note("remove pod")

    @hookimpl
    def create_container(self, pod: Pod, container: PodContainer) -> Answer:
        self._note("create", container)
        return Answer("watcher", nri.CreateContainerResponse(adjust=self.adjust))

    @hookimpl
    def post_create_container(self, pod: Pod, container: PodContainer) -> None:
        self._note("created", container)

    @hookimpl
    def start_container(self, pod: Pod, container: PodContainer) -> None:
        self._note("start", container)

    @hookimpl
    def post_start_container(self, pod: Pod, container: PodContainer) -> None:
        self._note("started", container)

    @hookimpl
    def update_container(self, pod: Pod, container: PodContainer, resources: nri.LinuxResources) -> Answer:
        self._note("update", container)
        update = nri.ContainerUpdate(container_id=container.id)
        update.linux.resources.CopyFrom(resources)
        update.linux.resources.cpu.shares.value = 222
        return Answer("watcher", nri.UpdateContainerResponse(update=[update]))

    @hookimpl
    def post_update_container(self, pod: Pod, container: PodContainer) -> None:
        self._note("updated", container)

    @hookimpl
    def stop_container(self, pod: Pod, container: PodContainer) -> None:
        self._note("stop", container)

    @hookimpl
    def remove_container(self, pod: Pod, container: PodContainer) -> None:
        self._note("remove", container)


class Plugins:
    """Connects plugins to a daemon, and disconnects them at the end."""

    def __init__(self, path: Path) -> None:
        """``path`` is the socket's."""
        self.path = path
        self.loop = Background()
        self._close: list[Callable[[], None]] = []

    def watch(self, participant: Watcher, index: str = "10", name: str = "watcher") -> Stub:
        """Connect a participant of the steps, and return when the daemon has shown it all pods."""

        async def start() -> Stub:
            participant.loop = asyncio.get_running_loop()
            stub = Stub(hooks_of(participant, name), name, index)
            await stub.start(str(self.path))
            self._close.append(stub.close)
            return stub

        stub = self.loop.run(start)
        assert wait_until(lambda: participant.there is not None)
        return stub

    def fake(self, plugin: FakePlugin) -> FakePlugin:
        """Connect a plugin that answers as a test chooses, and return when the daemon shows it all pods."""

        async def start() -> FakePlugin:
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(str(self.path))
            await plugin.connect(peer)
            self._close.append(plugin.mux.close)
            return plugin

        self.loop.run(start)
        assert wait_until(lambda: "Synchronize" in plugin.asked)
        return plugin

    def disconnect(self) -> None:
        """End all connections."""

        async def end() -> None:
            for close in self._close:
                close()
            self._close.clear()

        self.loop.run(end)

    def close(self) -> None:
        self.disconnect()
        self.loop.close()
