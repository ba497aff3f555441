"""Pause containers in creation: what a crash leaves of one, the next daemon finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from windlass.contracts.sandboxes import SandboxOptions
from windlass.errors import NotFound, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Containerd, Runtime, RuntimeConfig
from windlass_cri.pods.handlers import Handlers
from windlass_cri.pods.leases import CONTAINER
from windlass_cri.podsandbox.controller import PauseContainers, Settings
from windlass_cri.record import Pod, PodData
from windlass_local import launch

NETNS = "/var/run/netns/cni-1"


class Empty:
    """A namespace that holds nothing."""

    def __init__(self) -> None:
        self.containers = self

    async def get(self, id: str) -> None:
        raise NotFound(id)


async def test_the_lease_of_a_pause_container_in_creation_is_of_those_that_the_next_daemon_sweeps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    purposes = []

    async def create(*arguments: object, purpose: str = "run", **more: object) -> None:
        purposes.append(purpose)
        raise Unknown("that is enough")

    monkeypatch.setattr(launch, "create", create)
    monkeypatch.setattr(PauseContainers, "_namespace", lambda self, name: Empty())
    runtimes = {"runc": Runtime(runtime_type="io.containerd.runc.v2")}
    handlers = Handlers(Containerd(runtimes=runtimes, default_runtime_name="runc"), cast("Any", None))
    settings = Settings(RuntimeConfig(), "pause.test/pause:3", "overlayfs")
    controller = PauseContainers(cast("Any", None), cast("Any", None), handlers, settings, tmp_path)
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="p"))
    pod = Pod("p" * 64, config, PodData("p", "runc", netns=NETNS, created_at=1))
    await controller.create("k8s.io", pod.to_sandbox("io.containerd.runc.v2", "podsandbox", None), SandboxOptions())
    with pytest.raises(Unknown, match="enough"):
        await controller.start("k8s.io", pod.id)
    assert purposes == [CONTAINER]
