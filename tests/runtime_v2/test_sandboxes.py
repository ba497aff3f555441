"""The sandbox controller: what it asks of a shim, and what becomes of sandboxes whose shims or daemons fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from runtime_v2.harness import (
    FORKED,
    RUNTIME,
    SPEC_TYPE,
    FakeContext,
    ProcessZygote,
    container,
    daemon,
    eventually,
    names,
    run,
)

from windlass import errors
from windlass.contracts.containers import Container
from windlass.contracts.mounts import Mount
from windlass.contracts.sandboxes import Sandbox, SandboxController, SandboxOptions
from windlass.contracts.shims import FORKED_SHIM
from windlass.contracts.tasks import CreateOptions
from windlass.contracts.values import Payload, Platform
from windlass.contracts.zygote import ZYGOTE
from windlass_runtime_v2.plugin import SHIM, ShimConfig, init_sandboxes

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="pidfds need Linux")

URI = "io.containerd.sandbox.controller.v1.shim"
NOW = SandboxOptions()


@dataclass
class Running:
    """A controller, and where it keeps what."""

    controller: SandboxController
    context: FakeContext

    @property
    def bundles(self) -> list[str]:
        return names(self.context.state)

    @property
    def sockets(self) -> list[str]:
        return sorted(path.name for path in (self.context.base / "state" / "s").iterdir())

    def calls(self, method: str) -> int:
        """Return how often shims were called."""
        return (self.context.state / "calls").read_text().split().count(method)


@contextlib.asynccontextmanager
async def controlling(base: Path, zygote: ProcessZygote, **timeouts: float) -> AsyncIterator[Running]:
    """Run a daemon's sandbox controller; what its shims keep stays when it ends."""
    instances = {ZYGOTE.uri: zygote, FORKED_SHIM.uri: {"fake": FORKED}, SHIM.uri: ShimConfig()}
    by_key = {f"{key.replace('_', '.')}": value for key, value in timeouts.items()}
    context = FakeContext(base, asyncio.get_running_loop(), instances, by_key, {}, uri=URI)
    controller = await asyncio.to_thread(init_sandboxes, context)  # type: ignore[arg-type] # as much of one as it uses
    for start in context.starts:
        await start()
    try:
        yield Running(controller, context)
    finally:
        for stop in reversed(context.stops):
            if (stopping := stop()) is not None:
                await stopping


# Any, here and below: JSON
def pod(id: str = "pod", **behaviour: Any) -> Sandbox:
    """A sandbox; ``behaviour`` is what `fake_shim.py` reads from the spec."""
    return Sandbox(id, RUNTIME, spec=Payload(SPEC_TYPE, json.dumps({"sandbox": True, **behaviour}).encode()))


def inside(id: str, pod: str, **behaviour: Any) -> Container:
    """A container of a sandbox."""
    made = container(id, **behaviour)
    return Container(made.id, made.runtime, spec=made.spec, sandbox=pod)


async def test_the_shim_is_asked_what_the_client_asks(tmp_path: Path, zygote: ProcessZygote) -> None:
    """From create to shutdown; then nothing is left."""
    async with controlling(tmp_path, zygote) as running:
        controller = running.controller
        options = SandboxOptions(
            rootfs=(Mount("bind", "/src", ("ro",)),),
            options=Payload("runtime.v1.PodSandboxConfig", b"conf"),
            netns_path="/run/netns/x",
            annotations={"a": "b"},
        )
        await controller.create("test", pod(), options)
        bundle = running.context.state / "test/pod"
        asked = (bundle / "asked").read_text()
        for part in (str(bundle), "/src", "PodSandboxConfig", "conf", "/run/netns/x", '"b"'):
            assert part in asked
        started = await controller.start("test", "pod")
        assert (started.pid, started.version) == (zygote.running[0], 3)
        assert started.address == f"ttrpc+unix://{tmp_path}/state/s/{running.sockets[0]}"
        assert await controller.platform("test", "pod") == Platform("linux", "arm", "v7")
        assert (await controller.status("test", "pod")).info == {}
        status = await controller.status("test", "pod", verbose=True)
        assert (status.id, status.state, status.info) == ("pod", "FINE", {"said": "all"})
        assert (await controller.metrics("test", "pod")).data.value == b"\x0a\x00"
        waits = [asyncio.create_task(controller.wait("test", "pod")) for _ in range(3)]
        await asyncio.sleep(0.1)
        await controller.stop("test", "pod", 0)
        assert {((await each).status, (await each).at) for each in waits} == {(9, 77_000_000_000)}
        assert running.calls("WaitSandbox") == 1
        await controller.update("test", pod(), ["labels"])

        await controller.shutdown("test", "pod")
        assert running.bundles == running.sockets == []
        await eventually(lambda: not zygote.running)


async def test_names_are_taken_once_in_each_namespace(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Also while the first one is being created."""
    async with controlling(tmp_path, zygote) as running:
        create = running.controller.create
        results = await asyncio.gather(
            *(create("test", pod(), NOW) for _ in range(3)), create("other", pod(), NOW), return_exceptions=True
        )
        assert sorted(type(each).__name__ for each in results) == [
            "AlreadyExists",
            "AlreadyExists",
            "NoneType",
            "NoneType",
        ]
        await running.controller.shutdown("test", "pod")
        await running.controller.shutdown("other", "pod")
        await create("test", pod(), NOW)
        await running.controller.shutdown("test", "pod")


@pytest.mark.parametrize("behaviour", [{"fail": {"CreateSandbox": [9, "no room"]}}, {"die": ["CreateSandbox"]}])
async def test_a_creation_that_fails_leaves_nothing(
    tmp_path: Path, zygote: ProcessZygote, behaviour: dict[str, Any]
) -> None:
    """The shim is gone, and so are its bundle and its socket; the reason is told."""
    async with controlling(tmp_path, zygote) as running:
        with pytest.raises(errors.Error, match="sandbox pod"):
            await running.controller.create("test", pod(**behaviour), NOW)
        assert running.bundles == running.sockets == [] and zygote.running == []
        await running.controller.create("test", pod(), NOW)
        await running.controller.shutdown("test", "pod")


async def test_a_start_that_fails_ends_the_sandbox(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Whoever waits is told."""
    async with controlling(tmp_path, zygote) as running:
        await running.controller.create("test", pod(fail={"StartSandbox": [2, "no network"]}), NOW)
        waiting = asyncio.create_task(running.controller.wait("test", "pod"))
        await asyncio.sleep(0.1)
        with pytest.raises(errors.Error, match="failed to start sandbox pod: no network"):
            await running.controller.start("test", "pod")
        assert (await waiting).status == 137
        assert running.bundles == running.sockets == []


async def test_a_client_that_goes_away_while_a_failed_start_is_undone_leaves_nothing(
    tmp_path: Path, zygote: ProcessZygote
) -> None:
    """The sandbox goes all the same, and those that wait for it get its end."""
    async with controlling(tmp_path, zygote, shim_cleanup=0.5, shim_shutdown=0.5) as running:
        failing = pod(fail={"StartSandbox": [2, "no network"]}, hang=["ShutdownSandbox"])
        await running.controller.create("test", failing, NOW)
        waiting = asyncio.create_task(running.controller.wait("test", "pod"))
        starting = asyncio.create_task(running.controller.start("test", "pod"))
        await eventually(lambda: running.calls("ShutdownSandbox") == 1)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert (await asyncio.wait_for(waiting, 30)).status == 137
        await eventually(lambda: not running.bundles and not running.sockets and not zygote.running, 60)


async def test_a_shim_that_never_answers_is_shut_down_all_the_same(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Within the deadlines, by SIGKILL."""
    async with controlling(tmp_path, zygote, shim_cleanup=0.2, shim_shutdown=0.2) as running:
        await running.controller.create("test", pod(hang=["ShutdownSandbox", "Shutdown"]), NOW)
        await asyncio.wait_for(running.controller.shutdown("test", "pod"), 5)
        await eventually(lambda: running.bundles == running.sockets == [], 60)
        await eventually(lambda: not zygote.running)


async def test_a_shim_that_dies_ends_its_sandbox(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Its bundle goes; it is unknown from then on, which for Status means exited."""
    async with controlling(tmp_path, zygote) as running:
        await running.controller.create("test", pod(), NOW)
        waiting = asyncio.create_task(running.controller.wait("test", "pod"))
        await asyncio.sleep(0.1)
        os.kill(zygote.running[0], signal.SIGKILL)
        assert (await asyncio.wait_for(waiting, 10)).status == 137
        assert running.bundles == running.sockets == []
        assert (await running.controller.status("test", "pod")).exited_at
        await running.controller.stop("test", "pod", 0)
        with pytest.raises(errors.NotFound):
            await running.controller.wait("test", "pod")


async def test_a_client_that_goes_away_gets_no_sandbox(tmp_path: Path, zygote: ProcessZygote) -> None:
    """It would not know that it is there."""
    async with controlling(tmp_path, zygote) as running:
        creating = asyncio.create_task(running.controller.create("test", pod(slow={"CreateSandbox": 0.3}), NOW))
        await asyncio.sleep(0.15)
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        await eventually(lambda: not running.bundles and not zygote.running)


async def test_sandboxes_are_found_again(tmp_path: Path, zygote: ProcessZygote) -> None:
    """By the next daemon, which can end them; whose shim has died meanwhile is cleaned up after."""
    async with controlling(tmp_path, zygote) as first:
        for id in ("a", "b", "dead"):
            await first.controller.create("test", pod(id), NOW)
    os.kill(zygote.running[2], signal.SIGKILL)
    zygote.children[2].wait()
    half = first.context.state / "test" / "half"
    half.mkdir()

    async with controlling(tmp_path, zygote) as second:
        assert (await second.controller.status("test", "a")).pid == zygote.running[0]
        with pytest.raises(errors.AlreadyExists):
            await second.controller.create("test", pod("b"), NOW)
        assert (await second.controller.status("test", "dead")).state == ""
        await asyncio.wait_for(second.context.ready.wait(), 10)
        assert second.bundles == ["a", "b"]
        for id in ("a", "b"):
            await second.controller.shutdown("test", id)
        assert second.bundles == second.sockets == []
        await eventually(lambda: not zygote.running)


async def test_a_container_of_a_sandbox_is_created_in_its_shim(tmp_path: Path, zygote: ProcessZygote) -> None:
    """By its record or an annotation of its spec; deleting it leaves the shim and its socket where they are."""
    async with controlling(tmp_path, zygote) as pods, daemon(tmp_path, zygote) as tasks:
        await pods.controller.create("test", pod(), NOW)
        await run(tasks.tasks, inside("box", "pod"))
        assert len(zygote.children) == 1
        await tasks.tasks.kill("test", "box", "", signal.SIGKILL)
        await tasks.tasks.delete("test", "box")
        assert tasks.bundles == []
        assert len(pods.sockets) == 1

        annotated = container("box", annotations={"io.kubernetes.cri.sandbox-id": "pod"})
        await run(tasks.tasks, annotated)
        assert len(zygote.children) == 1
        await run(tasks.tasks, inside("alone", "no-such-pod"))
        await run(tasks.tasks, container("odd", annotations={"io.kubernetes.cri.sandbox-id": "../pod"}))
        assert len(zygote.children) == 3


async def test_a_task_api_at_an_address_is_joined_too(tmp_path: Path, zygote: ProcessZygote) -> None:
    """For sandboxes of other controllers; deleting the task leaves alone what is there."""
    async with controlling(tmp_path / "else", zygote) as pods, daemon(tmp_path, zygote) as tasks:
        await pods.controller.create("test", pod(), NOW)
        address = (await pods.controller.start("test", "pod")).address
        box = inside("box", "pod")
        for bad in ("unix:///x", "ttrpc+", "http+unix:///x"):
            with pytest.raises(errors.InvalidArgument, match="task API address"):
                await tasks.tasks.create("test", box, CreateOptions(task_api_address=bad))
        with pytest.raises(errors.Unavailable, match="sandbox pod"):
            await tasks.tasks.create("test", box, CreateOptions(task_api_address=f"ttrpc+unix://{tmp_path}/nobody"))
        assert tasks.bundles == []

        await tasks.tasks.create("test", box, CreateOptions(task_api_address=address, task_api_version=3))
        assert len(zygote.children) == 1
        await tasks.tasks.delete("test", "box")
        assert tasks.bundles == []
        assert (await pods.controller.status("test", "pod")).state == "FINE"


async def test_a_task_in_a_sandbox_is_found_again_and_cleaned_up(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Its shim is not taken for its own: a daemon that ends it spares the sandbox."""
    async with controlling(tmp_path, zygote) as pods, daemon(tmp_path, zygote) as tasks:
        await pods.controller.create("test", pod(), NOW)
        await run(tasks.tasks, inside("box", "pod"))
    async with controlling(tmp_path, zygote) as pods, daemon(tmp_path, zygote) as tasks:
        assert (await tasks.tasks.get("test", "box")).pid
        waiting = asyncio.create_task(tasks.tasks.wait("test", "box"))
        await asyncio.sleep(0.1)
        os.kill(zygote.running[0], signal.SIGKILL)
        await asyncio.wait_for(waiting, 10)
        assert tasks.bundles == []
        assert tasks.exchange.topics == ["/tasks/exit", "/tasks/delete"]
        await eventually(lambda: pods.bundles == pods.sockets == [])


async def test_a_creation_that_fails_in_a_sandbox_spares_the_sandbox(tmp_path: Path, zygote: ProcessZygote) -> None:
    """Its shim is there for the next one."""
    async with controlling(tmp_path, zygote) as pods, daemon(tmp_path, zygote) as tasks:
        await pods.controller.create("test", pod(fail={"Create": [9, "no"]}), NOW)
        with pytest.raises(errors.Error, match="failed to create"):
            await run(tasks.tasks, inside("box", "pod"))
        assert tasks.bundles == []
        assert (await pods.controller.status("test", "pod")).state == "FINE"
        assert len(pods.sockets) == len(zygote.running) == 1
