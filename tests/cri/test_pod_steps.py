"""Hook plugins in the life of pods and containers: each sees an end once, and all changes stand still for who looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from windlass.contracts.pods import Answer, PodHooks, Told, Update
from windlass.errors import FailedPrecondition, NotFound, PermissionDenied, Unknown
from windlass.gate import Gate
from windlass.hooks import Hooks, hookimpl
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.hooks.adjusting import Wishes, beyond
from windlass_cri.hooks.changes import Changes
from windlass_cri.hooks.messages import container_message, limits, pod_message, wanted_limits
from windlass_cri.hooks.steps import PodSteps
from windlass_cri.record import Container, ContainerData, Pod, PodData, Status
from windlass_oci.runtime_spec import Spec

POD = Pod(
    "p" * 64, cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="n", namespace="ns")), PodData("n_ns_u_0")
)
SPEC = cast(
    "Spec",
    {
        "process": {
            "args": ["sh"],
            "env": ["A=1"],
            "cwd": "/",
            "user": {"uid": 1, "gid": 2, "additionalGids": [3]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 5, "soft": 4}],
            "oomScoreAdj": 0,
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
            "scheduler": {"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RECLAIM"]},
        },
        "root": {"path": "rootfs"},
        "annotations": {"a": "b"},
        "mounts": [{"destination": "/x", "type": "bind", "source": "/y", "options": ["ro"]}],
        "hooks": {"createRuntime": [{"path": "/h", "timeout": 5}]},
        "linux": {
            "namespaces": [{"type": "pid"}],
            "cgroupsPath": "/g",
            "sysctl": {"k": "v"},
            "netDevices": {"eth1": {"name": "net1"}},
            "intelRdt": {"closID": "gold"},
            "resources": {
                "memory": {"limit": 7, "disableOOMKiller": True},
                "pids": {"limit": 9},
                "devices": [{"allow": False, "access": "rwm"}],
                "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
            },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "defaultErrnoRet": 38,
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
            },
        },
    },
)


def container(tmp_path: Path) -> Container:
    config = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="main"), labels={"l": "m"})
    return Container("c" * 64, config, ContainerData("main_n_ns_u_0", POD.id), tmp_path, Status(created_at=5))


class Watches:
    """Takes part in most steps."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.refuses = ""
        self.wants = nri.CreateContainerResponse()

    def _note(self, step: str) -> None:
        self.seen.append(step)
        if step == self.refuses:
            raise PermissionDenied("not here")

    @hookimpl
    def run_pod_sandbox(self) -> None:
        self._note("run")

    @hookimpl
    def stop_pod_sandbox(self) -> None:
        self._note("stop pod")

    @hookimpl
    def remove_pod_sandbox(self) -> None:
        self._note("remove pod")

    @hookimpl
    def create_container(self) -> Answer:
        self._note("create")
        return Answer("watcher", self.wants)

    @hookimpl
    def validate_container_adjustment(self) -> None:
        self._note("validate")

    @hookimpl
    def start_container(self) -> None:
        self._note("start")

    @hookimpl
    def stop_container(self) -> list[Answer]:
        self._note("stop")
        return [Answer("watcher", nri.StopContainerResponse(update=[nri.ContainerUpdate(container_id="other")]))]

    @hookimpl
    def update_container(self) -> Answer:
        self._note("update")
        return Answer("watcher", nri.StopContainerResponse())

    @hookimpl
    def remove_container(self) -> None:
        self._note("remove")


class Here:
    """Knows one pod, and keeps what participants wish."""

    def __init__(self) -> None:
        self.wishes: list[Wishes] = []

    def pod(self, container: Container) -> nri.PodSandbox:
        return pod_message(POD)

    async def container(self, container: Container, spec: Spec | None) -> nri.Container:
        return container_message(container, spec or SPEC, None)

    async def resolve(self, spec: Spec, left: object) -> None: ...

    async def fulfil(self, wishes: Wishes) -> None:
        self.wishes.append(wishes)

    async def synchronize(self, tell: Told) -> None: ...

    async def update(self, updates: Sequence[Update]) -> Sequence[Update]:
        return ()

    async def evict(self, evictions: object) -> None: ...


@pytest.fixture
async def hooks() -> AsyncIterator[Hooks]:
    made = Hooks()
    yield made
    made.close()


@pytest.fixture
async def watcher(hooks: Hooks) -> AsyncIterator[Watches]:
    gate, participant = Gate("io.windlass.hook.v1.watcher", own_loop=True), Watches()
    hooks.add(participant, gate, (PodHooks,))
    yield participant
    gate.close()


@pytest.fixture
def steps(hooks: Hooks, watcher: Watches) -> PodSteps:
    made = PodSteps(hooks)
    made.known = Here()
    return made


async def test_a_refused_pod_is_seen_to_go(steps: PodSteps, watcher: Watches) -> None:
    await steps.run_pod(POD)
    watcher.refuses = "run"
    with pytest.raises(FailedPrecondition, match=r"hook.v1.watcher refuses run_pod_sandbox: .*not here"):
        await steps.run_pod(POD)
    assert watcher.seen == ["run", "run", "stop pod", "remove pod"]


async def test_an_end_is_seen_once(steps: PodSteps, watcher: Watches, tmp_path: Path) -> None:
    """By whatever it comes; and also of a pod or a container that never ran."""
    made = container(tmp_path)
    steps.container_ended(made)
    await steps.told(made)
    await steps.stop_container(made)
    await steps.remove_container(made)
    await steps.stop_pod(POD)
    await steps.stop_pod(POD)
    await steps.remove_pod(POD)
    assert watcher.seen == ["stop", "remove", "stop pod", "remove pod"]


async def test_a_container_whose_record_is_gone_can_still_be_removed(
    steps: PodSteps, watcher: Watches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(container: Container, spec: Spec | None) -> nri.Container:
        raise NotFound(f"container {container.id} does not exist")

    monkeypatch.setattr(steps.known, "container", gone)
    await steps.remove_container(container(tmp_path))
    assert watcher.seen == []


async def test_what_has_ended_before_the_daemon_began_is_not_seen_to_end(steps: PodSteps, watcher: Watches) -> None:
    steps.had_stopped(POD.id)
    await steps.remove_pod(POD)
    assert watcher.seen == ["remove pod"]


async def test_a_container_that_does_not_come_about_is_seen_to_go(
    steps: PodSteps, watcher: Watches, tmp_path: Path
) -> None:
    made = container(tmp_path)
    await steps.undo(made)
    assert watcher.seen == []
    watcher.refuses = "validate"
    with pytest.raises(Unknown, match=r"container main_n_ns_u_0: .*watcher refuses validate_container_adjustment"):
        await steps.create_container(made, SPEC)
    await steps.undo(made)
    assert watcher.seen == ["create", "validate", "stop", "remove"]


async def test_a_participant_in_the_daemon_adjusts_a_spec(steps: PodSteps, watcher: Watches, tmp_path: Path) -> None:
    watcher.wants.adjust.env.add(key="SITE", value="berlin")
    watcher.wants.update.add(container_id="other").linux.resources.memory.limit.value = 5
    spec = cast("Spec", {**SPEC, "process": {**SPEC["process"], "env": ["A=1"]}})
    await steps.create_container(container(tmp_path), spec)
    assert spec["process"]["env"] == ["A=1", "SITE=berlin"]
    assert isinstance(steps.known, Here)
    assert [each.container_id for each in steps.known.wishes[0].updates] == ["other"]


async def test_an_answer_of_another_kind_is_refused(steps: PodSteps, tmp_path: Path) -> None:
    with pytest.raises(Unknown, match="return an Answer with a UpdateContainerResponse"):
        await steps.update_container(container(tmp_path), cri.LinuxContainerResources())


async def test_without_participants_nothing_is_made(hooks: Hooks, tmp_path: Path) -> None:
    steps = PodSteps(hooks)  # which knows nothing
    made = container(tmp_path)
    await steps.run_pod(POD)
    await steps.create_container(made, SPEC)
    await steps.start_container(made)
    wanted = cri.LinuxContainerResources(cpu_shares=5)
    assert (await steps.update_container(made, wanted)).limits is wanted
    steps.container_ended(made)
    await steps.told(made)
    await steps.remove_container(made)
    await steps.remove_pod(POD)


async def test_all_stands_still_for_one_who_looks() -> None:
    changes, order = Changes(), list[str]()
    begun = asyncio.Event()

    async def change(name: str, wait: asyncio.Event | None = None) -> None:
        async with changes.one():
            order.append(f"{name} begins")
            if wait is not None:
                await wait.wait()
            order.append(f"{name} ends")

    async def look(name: str) -> None:
        async with changes.still():
            order.append(f"{name} looks")
            await asyncio.sleep(0)
            order.append(f"{name} has looked")

    first = asyncio.create_task(change("first", begun))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(each) for each in (look("a"), change("second"), look("b"))]
    await asyncio.sleep(0.01)
    assert order == ["first begins"]
    begun.set()
    await asyncio.gather(first, *tasks)
    looks = [each for each in order if "look" in each]
    assert looks == ["a looks", "a has looked", "b looks", "b has looked"]
    assert order[:3] == ["first begins", "first ends", "a looks"]
    assert order.index("second ends") == order.index("second begins") + 1
    async with changes.one():
        pass


async def test_a_look_that_is_given_up_holds_up_no_change() -> None:
    changes = Changes()
    async with changes.one():
        looking = asyncio.create_task(_look(changes))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(_change(changes))
        await asyncio.sleep(0)
        looking.cancel()
        await asyncio.wait_for(waiting, 20)
    with pytest.raises(ValueError, match="seen"):
        async with changes.still():
            raise ValueError("seen")
    await asyncio.wait_for(_change(changes), 20)


async def _look(changes: Changes) -> None:
    async with changes.still():
        raise AssertionError("a change is under way")


async def _change(changes: Changes) -> None:
    async with changes.one():
        pass


def test_a_container_is_shown_as_its_spec_has_it(tmp_path: Path) -> None:
    shown = container_message(container(tmp_path), SPEC, None, 77)
    assert (shown.id, shown.pod_sandbox_id, shown.name, shown.pid) == ("c" * 64, POD.id, "main", 77)
    assert shown.state == nri.CONTAINER_CREATED and dict(shown.annotations) == {"a": "b"}
    assert list(shown.args) == ["sh"] and list(shown.user.additional_gids) == [3]
    assert shown.mounts[0].options == ["ro"] and shown.hooks.create_runtime[0].timeout.value == 5
    assert shown.rlimits[0].soft == 4
    linux = shown.linux
    assert linux.HasField("oom_score_adj") and linux.oom_score_adj.value == 0
    assert getattr(linux.io_priority, "class") == nri.IOPRIO_CLASS_BE
    assert linux.scheduler.policy == nri.SCHED_BATCH and list(linux.scheduler.flags) == [nri.SCHED_FLAG_RECLAIM]
    assert linux.net_devices["eth1"].name == "net1" and linux.rdt.clos_id.value == "gold"
    assert linux.resources.memory.limit.value == 7 and linux.resources.memory.disable_oom_killer.value
    assert not linux.resources.memory.HasField("swap") and linux.resources.pids.limit == 9
    assert linux.resources.hugepage_limits[0].page_size == "2MB"
    assert linux.seccomp_policy.default_errno.value == 38 and list(linux.seccomp_policy.syscalls[0].names) == ["read"]


def test_an_update_may_have_limits_that_cri_has_not() -> None:
    found = nri.LinuxResources(pids=nri.LinuxPids(limit=5))
    found.memory.limit.value, found.memory.reservation.value, found.cpu.shares.value = 7, 6, 0
    spec = cast("Spec", {"linux": {"resources": {"memory": {"limit": 3}}}})
    beyond(found)(spec)
    assert spec["linux"]["resources"] == {"memory": {"limit": 3, "reservation": 6}, "pids": {"limit": 5}}


def test_limits_go_to_nri_and_back() -> None:
    wanted = cri.LinuxContainerResources(
        cpu_shares=1, cpu_quota=-1, cpu_period=3, cpuset_cpus="0", memory_limit_in_bytes=5, unified={"a": "b"}
    )
    wanted.hugepage_limits.add(page_size="2MB", limit=1)
    assert wanted_limits(limits(wanted)) == wanted
    assert limits(cri.LinuxContainerResources()).memory.HasField("limit")


async def test_an_end_that_cannot_be_shown_holds_up_nothing(
    steps: PodSteps, watcher: Watches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The record of a container is out of reach while a disk hangs."""

    async def show(self: Here, container: Container, spec: Spec | None) -> nri.Container:
        raise Unknown("the records do not answer")

    monkeypatch.setattr(Here, "container", show)
    made = container(tmp_path)
    steps.container_ended(made)
    await steps.told(made)
    assert "the records do not answer" in caplog.text and not steps._ending
