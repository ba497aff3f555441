"""What hook plugins of pods can count on when a runtime calls them by NRI."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from nri.fake_runtime import FakeRuntime, fake_runtime

from windlass.contracts.pods import Answer, Limits, Pod, PodContainer, PodRuntime, Validation
from windlass.errors import Error, FailedPrecondition, InvalidArgument, PermissionDenied, Unavailable
from windlass.hooks import hookimpl
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri import naming
from windlass_nri.mux import PLUGIN_SERVICE, RUNTIME_SERVICE, attach
from windlass_nri.stub import Stub, hooks_of


def environment(plugin: str, key: str, value: str) -> Answer:
    adjust = nri.ContainerAdjustment(env=[nri.KeyValue(key=key, value=value)])
    return Answer(plugin, nri.CreateContainerResponse(adjust=adjust))


class Adjusts:
    """A plugin with a few steps, plain and async."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def run_pod_sandbox(self, pod: Pod) -> None:
        self.seen.append(f"run {pod.name} in {threading.current_thread().name != 'MainThread'}")
        if pod.name == "bad":
            raise PermissionDenied("no bad pods")

    @hookimpl
    async def create_container(self, container: PodContainer) -> Answer | Sequence[Answer] | None:
        if container.name == "plain":
            return None
        if container.name == "wrong":
            return [Answer("adjusts", nri.StopContainerResponse())]
        one = environment("adjusts", "A", container.name)
        if container.name == "two":
            return [one, environment("other", "B", "2")]
        if container.name == "clash":
            return [one, environment("other", "A", "2")]
        return one

    @hookimpl
    def update_container(self, pod: Pod, container: PodContainer, resources: Limits) -> Answer:
        assert isinstance(resources, nri.LinuxResources)
        update = nri.ContainerUpdate(container_id=container.id)
        update.linux.resources.cpu.shares.value = resources.cpu.shares.value * 2
        return Answer("adjusts", nri.UpdateContainerResponse(update=[update]))

    @hookimpl
    def validate_container_adjustment(self, request: Validation) -> None:
        if request.container.name == "bad":
            raise PermissionDenied("bad adjustment")

    @hookimpl
    def remove_container(self, pod: Pod, container: PodContainer) -> None:
        self.seen.append(f"remove {pod.name} {container.name}")


@contextlib.asynccontextmanager
async def served(path: Path, participant: object, name: str = "adjusts") -> AsyncIterator[tuple[Stub, FakeRuntime]]:
    """A plugin that has registered with a fake runtime."""
    async with fake_runtime(path / "nri.sock") as runtime:
        hooks = hooks_of(participant, name)
        stub = Stub(hooks, name, "10")
        await stub.start(str(runtime.path))
        try:
            yield stub, runtime
        finally:
            stub.close()
            hooks.close()


async def test_a_plugin_registers_and_subscribes_to_what_it_implements(tmp_path: Path) -> None:
    """Name and index arrive, and the events are the steps that the class has."""
    async with served(tmp_path, Adjusts()) as (_, runtime):
        plugin = await runtime.plugin()
        assert (plugin.registration.plugin_name, plugin.registration.plugin_idx) == ("adjusts", "10")
        assert plugin.registration.NRI_version.startswith("v0.")
        assert plugin.events == {
            "RUN_POD_SANDBOX",
            "CREATE_CONTAINER",
            "UPDATE_CONTAINER",
            "VALIDATE_CONTAINER_ADJUSTMENT",
            "REMOVE_CONTAINER",
        }


async def test_events_reach_the_steps(tmp_path: Path) -> None:
    """Pod and container are what the runtime sent; a plain method is off the loop; StateChange comes to the same."""
    adjusts = Adjusts()
    pod, container = nri.PodSandbox(id="p", name="pod"), nri.Container(id="c", name="box")
    async with served(tmp_path, adjusts) as (_, runtime):
        plugin = await runtime.plugin()
        await plugin.ask("RunPodSandbox", nri.RunPodSandboxRequest(pod=pod), nri.RunPodSandboxResponse)
        request = nri.RemoveContainerRequest(pod=pod, container=container)
        await plugin.ask("RemoveContainer", request, nri.RemoveContainerResponse)
        change = nri.StateChangeEvent(event=nri.REMOVE_CONTAINER, pod=pod, container=container)
        await plugin.ask("StateChange", change, nri.Empty)
        await plugin.ask("StopContainer", nri.StopContainerRequest(pod=pod), nri.StopContainerResponse)
        await plugin.ask("Shutdown", nri.Empty(), nri.Empty)
    assert adjusts.seen == ["run pod in True", "remove pod box", "remove pod box"]


async def test_a_refusal_reaches_the_runtime_with_its_reason(tmp_path: Path) -> None:
    """A closed step fails the call; a validator's error becomes a rejection."""
    async with served(tmp_path, Adjusts()) as (_, runtime):
        plugin = await runtime.plugin()
        request = nri.RunPodSandboxRequest(pod=nri.PodSandbox(name="bad"))
        with pytest.raises(FailedPrecondition, match="no bad pods"):
            await plugin.ask("RunPodSandbox", request, nri.RunPodSandboxResponse)
        verdicts = [
            await plugin.ask(
                "ValidateContainerAdjustment",
                nri.ValidateContainerAdjustmentRequest(container=nri.Container(name=name)),
                nri.ValidateContainerAdjustmentResponse,
            )
            for name in ("bad", "good")
        ]
    assert verdicts[0].reject and "bad adjustment" in verdicts[0].reason
    assert not verdicts[1].reject


async def test_answers_become_responses(tmp_path: Path) -> None:
    """One answer is sent as it is, several are merged, none adjusts nothing, and a clash or a wrong message fails."""
    async with served(tmp_path, Adjusts()) as (_, runtime):
        plugin = await runtime.plugin()

        async def create(name: str) -> dict[str, str]:
            request = nri.CreateContainerRequest(container=nri.Container(id="c", name=name))
            response = await plugin.ask("CreateContainer", request, nri.CreateContainerResponse)
            return {each.key: each.value for each in response.adjust.env}

        assert await create("box") == {"A": "box"}
        assert await create("two") == {"A": "two", "B": "2"}
        assert await create("plain") == {}
        with pytest.raises(Error, match='plugins "other" and "adjusts" both tried to set Env A'):
            await create("clash")
        with pytest.raises(InvalidArgument, match="not with an Answer of a CreateContainerResponse"):
            await create("wrong")


async def test_an_update_is_answered(tmp_path: Path) -> None:
    """The step sees the resources that the client wants, and its update goes back."""
    async with served(tmp_path, Adjusts()) as (_, runtime):
        plugin = await runtime.plugin()
        request = nri.UpdateContainerRequest(container=nri.Container(id="c"))
        request.linux_resources.cpu.shares.value = 512
        response = await plugin.ask("UpdateContainer", request, nri.UpdateContainerResponse)
        assert [(each.container_id, each.linux.resources.cpu.shares.value) for each in response.update] == [("c", 1024)]


class Watches:
    """A plugin that wants to see all pods, and asks for updates by itself."""

    def __init__(self) -> None:
        self.shown: list[tuple[list[str], list[str]]] = []
        self.runtime: PodRuntime | None = None
        self.loop = asyncio.get_running_loop()

    @hookimpl
    async def serve_pods(self, runtime: PodRuntime) -> None:
        self.runtime = runtime
        asked = asyncio.run_coroutine_threadsafe(runtime.synchronize(self.tell), self.loop)
        await asyncio.wrap_future(asked)

    async def tell(self, pods: Sequence[Pod], containers: Sequence[PodContainer]) -> Sequence[nri.ContainerUpdate]:
        self.shown.append(([pod.name for pod in pods], [each.name for each in containers]))
        return [nri.ContainerUpdate(container_id=each.id) for each in containers]

    @hookimpl
    def remove_pod_sandbox(self, pod: Pod) -> None:
        """Be a plugin that has an event."""


async def test_a_plugin_sees_all_pods_once(tmp_path: Path) -> None:
    """What comes in several messages is shown at once, and the updates that it wants are the answer."""
    watches = Watches()
    async with served(tmp_path, watches, "watches") as (_, runtime):
        plugin = await runtime.plugin()
        first = nri.SynchronizeRequest(pods=[nri.PodSandbox(name="a"), nri.PodSandbox(name="b")], more=True)
        response = await plugin.ask("Synchronize", first, nri.SynchronizeResponse)
        assert response.more and not watches.shown
        last = nri.SynchronizeRequest(containers=[nri.Container(id="1", name="x")])
        response = await plugin.ask("Synchronize", last, nri.SynchronizeResponse)
        assert not response.more and [each.container_id for each in response.update] == ["1"]
        assert watches.shown == [(["a", "b"], ["x"])]
        assert watches.runtime is not None
        with pytest.raises(FailedPrecondition, match="once"):
            await watches.runtime.synchronize(watches.tell)


async def test_a_plugin_that_fails_to_look_wants_nothing(tmp_path: Path) -> None:
    """The runtime gets an answer all the same, and the plugin goes on."""

    class Fails(Watches):
        async def tell(self, pods: Sequence[Pod], containers: Sequence[PodContainer]) -> Sequence[nri.ContainerUpdate]:
            raise PermissionDenied("not today")

    async with served(tmp_path, Fails(), "fails") as (_, runtime):
        plugin = await runtime.plugin()
        response = await plugin.ask("Synchronize", nri.SynchronizeRequest(), nri.SynchronizeResponse)
        assert not response.update
        request = nri.RemovePodSandboxRequest(pod=nri.PodSandbox(name="a"))
        await plugin.ask("RemovePodSandbox", request, nri.RemovePodSandboxResponse)


async def test_a_plugin_asks_for_updates_by_itself(tmp_path: Path) -> None:
    """Updates and evictions reach the runtime, and those that failed come back."""
    watches = Watches()
    async with served(tmp_path, watches, "watches") as (_, runtime):
        plugin = await runtime.plugin()
        assert watches.runtime is not None
        updates = [nri.ContainerUpdate(container_id=id) for id in ("there", "missing")]
        failed = await watches.runtime.update(updates)
        await watches.runtime.evict([nri.ContainerEviction(container_id="c", reason="full")])
        assert [each.container_id for each in failed] == ["missing"]
        assert [len(each.update) for each in plugin.asked] == [2, 0]
        assert plugin.asked[1].evict[0].reason == "full"


async def test_a_plugin_without_steps_is_refused() -> None:
    """A runtime would take no events for all events."""

    class Nothing:
        @hookimpl
        def serve_pods(self, runtime: PodRuntime) -> None:
            """Take part in what is no event."""

    with pytest.raises(InvalidArgument, match="takes part in no step of pods"):
        Stub(hooks_of(Nothing(), "nothing"), "nothing", "10")


@pytest.mark.parametrize(("name", "index"), [("", "10"), ("a b", "10"), ("a", "1"), ("a", "x0"), ("a", "٣٣")])
async def test_names_and_indexes_are_checked(name: str, index: str) -> None:
    """Before anything is connected."""
    with pytest.raises(InvalidArgument, match=r"plugin (name|index)"):
        Stub(hooks_of(Adjusts(), "adjusts"), name, index)


async def test_what_goes_wrong_at_registration_is_said(tmp_path: Path) -> None:
    """No runtime, a runtime that refuses, and one that never configures."""
    stub = Stub(hooks_of(Adjusts(), "adjusts"), "adjusts", "10", registration=0.2)
    path = tmp_path / "nri.sock"
    with pytest.raises(Unavailable, match="cannot connect to the NRI socket"):
        await stub.start(str(path))
    async with fake_runtime(path) as runtime:
        runtime.refuse = "no such plugins here"
        with pytest.raises(InvalidArgument, match="no such plugins here"):
            await stub.start(str(path))
        runtime.refuse, runtime.silent = "", True
        with pytest.raises(Unavailable, match=r"did not configure plugin 10-adjusts within 0\.2 s"):
            await stub.start(str(path))


async def test_the_end_of_the_runtime_ends_the_plugin(tmp_path: Path) -> None:
    """`run` returns after `close`, and raises when the runtime has gone; it can be run again."""
    stub = Stub(hooks_of(Adjusts(), "adjusts"), "adjusts", "10")
    for _ in range(2):
        async with fake_runtime(tmp_path / "nri.sock") as runtime:
            running = asyncio.create_task(stub.run(str(runtime.path)))
            (await runtime.plugin()).mux.close()
            with pytest.raises(Unavailable, match="has closed the connection"):
                await running
    async with fake_runtime(tmp_path / "nri.sock") as runtime:
        running = asyncio.create_task(stub.run(str(runtime.path)))
        await runtime.plugin()
        stub.close()
        await running


async def test_a_socket_that_was_handed_over_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the runtime does it for plugins that it starts."""
    ours, theirs = socket.socketpair()
    descriptor = os.dup(theirs.fileno())
    theirs.close()
    monkeypatch.setenv(naming.SOCKET_VARIABLE, str(descriptor))
    mux = await attach(ours, "plugin")
    from nri.fake_runtime import ConnectedPlugin

    runtime = FakeRuntime(Path("unused"))
    plugin = ConnectedPlugin(runtime, mux)
    mux.serve(RUNTIME_SERVICE, [plugin])
    stub = Stub(hooks_of(Adjusts(), "adjusts"), "adjusts", "10")
    await stub.start()
    assert await runtime.plugin() is plugin
    assert PLUGIN_SERVICE == 1
    stub.close()
    mux.close()
    monkeypatch.setenv(naming.SOCKET_VARIABLE, "nonsense")
    with pytest.raises(InvalidArgument, match="is not a socket's descriptor"):
        await stub.start()


def test_plugin_files_have_index_and_name() -> None:
    """As in the directory of plugins that a runtime starts."""
    assert naming.split("10-logger") == ("10", "logger")
    assert naming.split("05-a-b.c+d_e") == ("05", "a-b.c+d_e")
    for bad in ("logger", "1-logger", "10-", "10-a/b", "xx-logger"):
        with pytest.raises(InvalidArgument):
            naming.split(bad)
