"""Pods whose making is cut off by the daemon's end: what was under way is waited for, and taken back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from windlass.contracts.metadata import Metadata
from windlass.errors import NotFound
from windlass.hooks import Hooks
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Containerd, Runtime
from windlass_cri.events import Events
from windlass_cri.hooks.steps import PodSteps
from windlass_cri.pods import files
from windlass_cri.pods.handlers import Handlers
from windlass_cri.pods.network import PodNetwork
from windlass_cri.pods.pods import Pods


class Records:
    """Those of pods, and of leases."""

    def sandboxes(self, namespace: str) -> Records:
        return self

    def leases(self, namespace: str) -> Records:
        return self

    def create(self, *arguments: object) -> None:
        pass

    def delete(self, id: str) -> None:
        raise NotFound(id)


class Network:
    """Makes a namespace, which is a file, when it is let."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.entered, self.go_on = asyncio.Event(), threading.Event()
        self._loop = asyncio.get_running_loop()

    def path_of(self, id: str) -> str:
        return str(self.place / id)

    def slowly(self, work: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self.go_on.wait(20)
        work()

    async def make_namespace(self, id: str, user: object) -> str:
        path = Path(self.path_of(id))
        await asyncio.to_thread(self.slowly, path.touch)
        return str(path)

    async def detach(self, id: str, path: str) -> None:
        pass

    async def remove_namespace(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)


class NoSandboxes:
    """A controller that was never asked for one."""

    async def shutdown(self, namespace: str, id: str) -> None:
        raise NotFound(id)


def pods(tmp_path: Path, network: Network) -> Pods:
    runtimes = {"runc": Runtime(runtime_type="io.containerd.runc.v2", sandboxer="windlass")}
    handlers = Handlers(Containerd(runtimes=runtimes, default_runtime_name="runc"), cast("Any", None))
    return Pods(
        cast("Metadata", Records()),
        cast("Any", {"windlass": NoSandboxes()}),
        cast("PodNetwork", network),
        handlers,
        tmp_path,
        Events(),
        PodSteps(Hooks()),
    )


async def cut_off(made: Pods, network: Network) -> None:
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="p"))
    config.linux.security_context.namespace_options.ipc = cri.NODE
    running = asyncio.create_task(made.run(config, ""))
    await asyncio.wait_for(network.entered.wait(), 20)
    closing = asyncio.create_task(made.close())
    await asyncio.sleep(0.05)
    network.go_on.set()
    await asyncio.wait_for(closing, 20)
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_network_namespace_that_is_being_made_goes(tmp_path: Path) -> None:
    (tmp_path / "netns").mkdir()
    network = Network(tmp_path / "netns")
    await cut_off(pods(tmp_path, network), network)
    await asyncio.sleep(0.05)
    assert list(network.place.iterdir()) == [] and list((tmp_path / "sandboxes").iterdir()) == []


async def test_files_that_are_being_made_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, make = Network(tmp_path / "netns"), files.PodFiles.make
    monkeypatch.setattr(files.PodFiles, "make", lambda self, config: network.slowly(lambda: make(self, config)))
    await cut_off(pods(tmp_path, network), network)
    await asyncio.sleep(0.05)
    assert list((tmp_path / "sandboxes").iterdir()) == []
