"""Plugins in processes of their own: asked in order, by the steps that they want, and what their failures mean."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from google.protobuf.message import Message
from nri.fake_plugin import FakePlugin, event, hang

from windlass.contracts.pods import Eviction, Told, Update
from windlass.errors import Error, FailedPrecondition, InvalidArgument, NotFound, Unavailable, Unimplemented
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.validation import Rejected
from windlass_nri_plugins.config import Config, DefaultValidator, Policy
from windlass_nri_plugins.peer import CHUNK
from windlass_nri_plugins.peers import Peers
from windlass_nri_plugins.policies import Policies

POD = nri.PodSandbox(id="p", name="pod", labels={"app": "web"})
CONTAINER = nri.Container(id="c", pod_sandbox_id="p", name="main")
SHORT = Config(plugin_request_timeout="200ms", plugin_registration_timeout="500ms")
PATIENT = Config(plugin_request_timeout="20s", plugin_registration_timeout="20s")


class Runtime:
    """Runs pods, as far as plugins see it."""

    def __init__(self) -> None:
        self.pods: list[nri.PodSandbox] = []
        self.updated: list[str] = []
        self.evicted: list[str] = []

    async def synchronize(self, tell: Told) -> None:
        await self.update(await tell(self.pods, []))

    async def update(self, updates: Sequence[Update]) -> Sequence[Update]:
        self.updated += [each.container_id for each in updates]
        return [each for each in updates if each.container_id == "sick"]

    async def evict(self, evictions: Sequence[Eviction]) -> None:
        self.evicted += [each.container_id for each in evictions]


class Stage:
    """The plugins of a daemon, and fakes that are connected to it."""

    def __init__(self, config: Config) -> None:
        self.runtime = Runtime()
        self.peers = Peers(config, Policies(config.policies), lambda: self.runtime)
        self.serving: list[asyncio.Task[None]] = []

    async def add(self, plugin: FakePlugin) -> FakePlugin:
        """Connect a plugin, and return it when it takes part."""
        task = await self.begin(plugin)
        while (plugin.index, plugin.plugin) not in self.peers.names():
            assert not task.done(), task.exception()
            await asyncio.sleep(0.001)
        return plugin

    async def begin(self, plugin: FakePlugin) -> asyncio.Task[None]:
        ours, theirs = socket.socketpair()
        self.serving.append(asyncio.create_task(self.peers.serve(ours)))
        await plugin.connect(theirs)
        return self.serving[-1]

    def connect(self) -> socket.socket:
        """Return a connection on which nothing has been said."""
        ours, theirs = socket.socketpair()
        self.serving.append(asyncio.create_task(self.peers.serve(ours)))
        return theirs

    async def close(self) -> None:
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)


@contextlib.asynccontextmanager
async def stage(config: Config = PATIENT) -> AsyncIterator[Stage]:
    made = Stage(config)
    try:
        yield made
    finally:
        await made.close()


def env(key: str, value: str) -> Callable[[bytes], Message]:
    adjust = nri.ContainerAdjustment(env=[nri.KeyValue(key=key, value=value)])
    return lambda request: nri.CreateContainerResponse(adjust=adjust)


def create(stage: Stage) -> asyncio.Task[list[str]]:
    async def run() -> list[str]:
        return [each.plugin for each in await stage.peers.create_container(POD, CONTAINER)]

    return asyncio.create_task(run())


async def test_plugins_are_asked_in_order_and_see_what_the_earlier_ones_did() -> None:
    async with stage() as here:
        last = await here.add(FakePlugin("20", "last", {"CreateContainer": env("B", "2")}))
        await here.add(FakePlugin("10", "first", {"CreateContainer": env("A", "1")}))
        assert await create(here) == ["10-first", "20-last"]
        assert list(nri.CreateContainerRequest.FromString(last.requests[-1]).container.env) == ["A=1"]


async def test_what_another_plugin_owns_cannot_be_set() -> None:
    async with stage() as here:
        await here.add(FakePlugin("10", "first", {"CreateContainer": env("A", "1")}))
        await here.add(FakePlugin("20", "last", {"CreateContainer": env("A", "2")}))
        with pytest.raises(Error, match='"20-last" and "10-first" both tried'):
            await create(here)
        assert len(here.peers.names()) == 2


async def test_a_plugin_gets_the_events_that_it_wants() -> None:
    async with stage() as here:
        assert not here.peers.has_say("create_container")
        plugin = await here.add(FakePlugin("10", "x", {}, event("CREATE_CONTAINER", "STOP_POD_SANDBOX")))
        assert here.peers.has_say("create_container") and not here.peers.has_say("start_container")
        await here.peers.about("start_container", nri.StartContainerRequest(pod=POD, container=CONTAINER))
        await here.peers.about("stop_pod_sandbox", nri.StopPodSandboxRequest(pod=POD))
        assert plugin.asked == ["Configure", "Synchronize", "StopPodSandbox"]
        plugin.mux.close()
        await here.serving[0]
        assert not here.peers.has_say("create_container")


async def test_an_error_of_a_plugin_is_a_refusal_in_steps_that_can_be_refused() -> None:
    def refuse(request: bytes) -> Message:
        raise NotFound("no such class")

    async with stage() as here:
        await here.add(FakePlugin("10", "x", {"RunPodSandbox": refuse, "RemovePodSandbox": refuse}))
        other = await here.add(FakePlugin("20", "other", {}))
        with pytest.raises(FailedPrecondition, match='"10-x" refuses run_pod_sandbox: no such class'):
            await here.peers.about("run_pod_sandbox", nri.RunPodSandboxRequest(pod=POD))
        await here.peers.about("remove_pod_sandbox", nri.RemovePodSandboxRequest(pod=POD))
        assert other.asked[-1] == "RemovePodSandbox" and "RunPodSandbox" not in other.asked


async def test_an_error_that_a_plugin_answers_is_no_failure_whatever_it_says() -> None:
    def refuse(request: bytes) -> Message:
        raise Unavailable("the store is down")

    async with stage() as here:
        await here.add(FakePlugin("10", "x", {"CreateContainer": refuse}))
        with pytest.raises(FailedPrecondition, match='"10-x" refuses create_container: the store is down'):
            await create(here)
        assert here.peers.names() == [("10", "x")]


@pytest.mark.parametrize("how", ["hangs", "dies", "garbage"])
async def test_a_plugin_that_fails_is_left_out_and_the_others_are_asked(how: str) -> None:
    """Its policy is open, as containerd has it."""
    async with stage(SHORT if how == "hangs" else PATIENT) as here:
        sick = await here.add(_sick(how))
        await here.add(FakePlugin("20", "well", {"CreateContainer": env("A", "1")}))
        assert await create(here) == ["20-well"]
        await asyncio.wait({here.serving[0]})
        assert here.peers.names() == [("20", "well")]
        assert sick.asked[-1] == "CreateContainer"


def _sick(how: str) -> FakePlugin:
    def answer(request: bytes) -> object:
        if how == "dies":
            plugin.mux.close()
        if how == "garbage":
            return nri.RegisterPluginRequest(plugin_name="\x7f" * 50)  # which is no response at all
        return hang(request)

    plugin = FakePlugin("10", "sick", {"CreateContainer": answer})
    return plugin


@pytest.mark.parametrize("how", ["hangs", "dies", "garbage"])
async def test_a_closed_policy_refuses_what_its_plugin_cannot_answer(how: str) -> None:
    policies = {"sick": Policy("closed", {"app": "policy"})}
    config = Config(plugin_request_timeout="200ms", policies=policies) if how == "hangs" else Config(policies=policies)
    async with stage(config) as here:
        await here.add(_sick(how))
        with pytest.raises(FailedPrecondition, match=r'"10-sick".*its policy is to refuse'):
            await create(here)
        await asyncio.wait({here.serving[0]})
        assert here.peers.names() == []


async def test_the_policys_own_pod_is_let_through() -> None:
    config = Config(plugin_request_timeout="200ms", policies={"10-sick": Policy("closed", {"app": "policy"})})
    async with stage(config) as here:
        await here.add(_sick("hangs"))
        exempt = nri.PodSandbox(id="q", labels={"app": "policy", "more": "x"})
        assert await here.peers.create_container(exempt, CONTAINER) == []


def test_an_absent_plugin_refuses_the_steps_that_it_took_part_in() -> None:
    """Before it was there for the first time it might want any; what stops and goes is never refused."""
    policies = Policies({"guard": Policy("closed"), "10-other": Policy()})
    assert set(policies.absent("run_pod_sandbox", [])) == {"guard"}
    assert not policies.absent("run_pod_sandbox", [("05", "guard")])
    assert not policies.absent("stop_container", [])
    policies.registered("05", "guard", ["create_container"])
    assert not policies.absent("run_pod_sandbox", [])
    assert set(policies.absent("create_container", [("10", "other")])) == {"guard"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"on_failure": "shut"}, 'is "open" or "closed"'), ({"exempt_labels": {"a": "b"}}, "has no effect")],
)
def test_a_policy_that_makes_no_sense_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(**fields)  # type: ignore[arg-type] # as a configuration has it


async def test_an_old_plugin_gets_state_changes() -> None:
    def missing(request: bytes) -> Message:
        raise Unimplemented("no such method")

    async with stage() as here:
        plugin = await here.add(
            FakePlugin("10", "old", {"StartContainer": missing, "StateChange": lambda _: nri.Empty()})
        )
        for _ in range(2):
            await here.peers.about("start_container", nri.StartContainerRequest(pod=POD, container=CONTAINER))
        assert plugin.asked[2:] == ["StartContainer", "StateChange", "StateChange"]
        change = nri.StateChangeEvent.FromString(plugin.requests[-1])
        assert (change.event, change.pod.id, change.container.id) == (nri.START_CONTAINER, "p", "c")


async def test_many_pods_are_shown_in_several_messages() -> None:
    async with stage() as here:
        here.runtime.pods = [nri.PodSandbox(id=str(n), annotations={"a": "x" * (CHUNK // 4)}) for n in range(10)]
        plugin = await here.add(FakePlugin("10", "x", {}))
        parts = [nri.SynchronizeRequest.FromString(each) for each in plugin.requests[1:]]
        assert [pod.id for part in parts for pod in part.pods] == [str(n) for n in range(10)]
        assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False] and len(parts) > 2


async def test_a_plugin_that_knows_no_several_messages_is_turned_away() -> None:
    async with stage() as here:
        here.runtime.pods = [nri.PodSandbox(id=str(n), annotations={"a": "x" * (CHUNK // 2)}) for n in range(4)]
        old = FakePlugin("10", "x", {"Synchronize": lambda _: nri.SynchronizeResponse()})
        with pytest.raises(FailedPrecondition, match="not in several messages"):
            await (await here.begin(old))
        assert here.peers.names() == []


async def test_updates_come_also_without_being_asked() -> None:
    wanted = nri.SynchronizeResponse(update=[nri.ContainerUpdate(container_id="at-start")])
    async with stage() as here:
        plugin = await here.add(FakePlugin("10", "x", {"Synchronize": lambda _: wanted}))
        updates = [nri.ContainerUpdate(container_id=each) for each in ("well", "sick")]
        request = nri.UpdateContainersRequest(update=updates, evict=[nri.ContainerEviction(container_id="old")])
        answer = nri.UpdateContainersResponse.FromString(await plugin.tell("UpdateContainers", request))
        assert [each.container_id for each in answer.failed] == ["sick"]
        assert here.runtime.updated == ["at-start", "well", "sick"] and here.runtime.evicted == ["old"]
        with pytest.raises(FailedPrecondition, match="has registered already"):
            await plugin.tell("RegisterPlugin", nri.RegisterPluginRequest(plugin_name="y", plugin_idx="11"))
        with pytest.raises(Unimplemented):
            await plugin.tell("Nothing", nri.Empty())


async def test_a_plugin_may_update_containers_while_it_answers() -> None:
    """In containerd that waits for the answer, and ends with the request's time."""

    async def answer(request: bytes) -> Message:
        await plugin.tell(
            "UpdateContainers", nri.UpdateContainersRequest(update=[nri.ContainerUpdate(container_id="o")])
        )
        return nri.CreateContainerResponse()

    async with stage() as here:
        plugin = await here.add(FakePlugin("10", "x", {"CreateContainer": answer}))
        assert await create(here) == ["10-x"]
        assert here.runtime.updated == ["o"]


async def test_a_plugin_writes_to_the_daemons_log(caplog: pytest.LogCaptureFixture) -> None:
    async with stage() as here:
        plugin = await here.add(FakePlugin("10", "x", {}))
        request = nri.LogRequest(msg="all is well", level=nri.LogRequest.LEVEL_WARN)
        await plugin.runtime.call("nri.pkg.api.v1alpha1.HostFunctions", "Log", request.SerializeToString(), 10)
        assert ("WARNING", 'plugin "10-x": all is well') in [(each.levelname, each.message) for each in caplog.records]


@pytest.mark.parametrize(("index", "name"), [("1", "x"), ("ab", "x"), ("10", ""), ("10", "a/b")])
async def test_a_name_that_is_none_is_refused(index: str, name: str) -> None:
    async with stage() as here:
        with pytest.raises(InvalidArgument):
            await here.begin(FakePlugin(index, name, {}))
        with pytest.raises(InvalidArgument):
            await here.serving[0]


async def test_unknown_events_are_refused() -> None:
    async with stage() as here:
        task = await here.begin(FakePlugin("10", "x", {}, events=1 << 20))
        with pytest.raises(InvalidArgument, match="events that do not exist: 0x100000"):
            await task


async def test_who_does_not_register_is_disconnected() -> None:
    async with stage(SHORT) as here:
        with here.connect(), pytest.raises(Unavailable, match=r"did not register within 0.5 s"):
            await here.serving[0]


@pytest.mark.parametrize(
    "sent", [b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\2\x7f\xff\xff\xff" + bytes(1 << 16)]
)
async def test_garbage_ends_its_own_connection(sent: bytes) -> None:
    """The last announces two gigabytes."""
    async with stage() as here:
        well = await here.add(FakePlugin("20", "well", {"CreateContainer": env("A", "1")}))
        with here.connect() as peer:
            peer.sendall(sent)
            with pytest.raises(Unavailable):
                await here.serving[1]
        assert await create(here) == ["20-well"] and well.mux.reason == ""


async def test_validators_see_all_and_may_reject() -> None:
    seen = []

    def judge(request: bytes) -> Message:
        seen.append(nri.ValidateContainerAdjustmentRequest.FromString(request))
        return nri.ValidateContainerAdjustmentResponse(reject=len(seen) > 1, reason="not twice")

    async with stage() as here:
        await here.add(FakePlugin("20", "judge", {"ValidateContainerAdjustment": judge}))
        request = nri.ValidateContainerAdjustmentRequest(pod=POD, container=CONTAINER)
        await here.peers.validate(request)
        with pytest.raises(Rejected, match='"20-judge" rejects the adjustments: not twice'):
            await here.peers.validate(request)
        assert [(each.index, each.name) for each in seen[0].plugins] == [("20", "judge")] and not request.plugins


async def test_a_validator_that_does_not_answer_has_rejected() -> None:
    async with stage(SHORT) as here:
        await here.add(FakePlugin("20", "judge", {"ValidateContainerAdjustment": hang}))
        with pytest.raises(FailedPrecondition, match='validator plugin "20-judge" failed'):
            await here.peers.validate(nri.ValidateContainerAdjustmentRequest(pod=POD, container=CONTAINER))


async def test_the_default_validator_misses_required_plugins() -> None:
    config = Config(default_validator=DefaultValidator(enable=True, required_plugins=("guard",)))
    async with stage(config) as here:
        request = nri.ValidateContainerAdjustmentRequest(pod=POD, container=CONTAINER)
        with pytest.raises(Rejected, match="guard"):
            await here.peers.validate(request)
        await here.add(FakePlugin("20", "guard", {}, event("RUN_POD_SANDBOX")))
        await here.peers.validate(request)


async def test_one_request_at_a_time_and_those_that_wait_go_on_when_the_plugin_hangs() -> None:
    async with stage(SHORT) as here:
        sick = await here.add(_sick("hangs"))
        assert await asyncio.gather(*(create(here) for _ in range(5))) == [[]] * 5
        assert sick.asked.count("CreateContainer") == 1
