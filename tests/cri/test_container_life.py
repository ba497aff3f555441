"""Containers whose clients give up, whose pods stop meanwhile, and whose disks are full: nothing is left open."""

from __future__ import annotations

import asyncio
import gc
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from windlass.contracts.containers import Container as Row
from windlass.contracts.tasks import Exit, Process
from windlass.contracts.tasks import Status as TaskState
from windlass.errors import DeadlineExceeded, FailedPrecondition, Unavailable, Unknown
from windlass.hooks import Hooks
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Runtime, RuntimeConfig
from windlass_cri.containers import containerio, ends
from windlass_cri.containers import containers as module
from windlass_cri.containers.containers import Containers
from windlass_cri.containers.creation import Creation
from windlass_cri.containers.execs import Execs
from windlass_cri.events import Events
from windlass_cri.hooks.steps import PodSteps
from windlass_cri.ids import Index
from windlass_cri.images.images import Images
from windlass_cri.pods.pods import Pods
from windlass_cri.record import Container, ContainerData, Pod, PodData, Status
from windlass_local import fifos, launch
from windlass_local.fifos import Fifos
from windlass_local.inside import LocalNamespace
from windlass_oci.payloads import SPEC, to_payload

ID = "c" * 64


class Tasks:
    """One task, which runs until `ended` is set."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ended = asyncio.Event()
        self.wait_error: Exception | None = None
        self.kill_error: Exception | None = None
        self.at_start = asyncio.Event()
        self.at_start.set()
        self.exec_runs = False

    async def create(self, row: Row, options: object) -> int:
        self.calls.append("create")
        return 7

    async def exec(self, id: str, exec_id: str, spec: object, io: object) -> None:
        self.calls.append("exec")

    async def start(self, id: str, exec_id: str = "") -> int:
        self.calls.append("start")
        await self.at_start.wait()
        return 7

    async def wait(self, id: str, exec_id: str = "") -> Exit:
        if not exec_id:
            await self.ended.wait()
        self.exec_runs = False
        if self.wait_error is not None:
            raise self.wait_error
        return Exit(7, 3, 5)

    async def get(self, id: str, exec_id: str = "") -> Process:
        state = TaskState.STOPPED if self.ended.is_set() else TaskState.RUNNING
        return Process(id, pid=7, status=state)

    async def kill(self, id: str, number: int, exec_id: str = "", all: bool = False) -> None:
        if self.kill_error is not None:
            raise self.kill_error
        if not exec_id:
            self.ended.set()

    async def delete(self, id: str) -> Exit:
        self.calls.append("delete")
        return Exit(7, 3, 5)

    async def delete_exec(self, id: str, exec_id: str) -> Exit:
        if self.exec_runs:
            raise FailedPrecondition("cannot delete a running process")
        self.calls.append("delete exec")
        return Exit(7, 3, 5)


@dataclass
class Namespace:
    """Holds one container, without a file system."""

    tasks: Tasks
    row: Row
    containers: Namespace = field(init=False)
    snapshots: Namespace = field(init=False)

    def __post_init__(self) -> None:
        self.containers = self.snapshots = self

    async def get(self, id: str) -> Row:
        return self.row

    async def mounts(self, snapshotter: str, key: str) -> list[object]:
        return []


class KnownPods:
    """One pod, which is ready."""

    def __init__(self) -> None:
        config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="n"))
        self.pod = Pod("p" * 64, config, PodData("n_ns_u_0"), ready=True)
        self.index: Index[Pod] = Index("sandbox")
        self.index.add(self.pod.id, self.pod)

    def runtime(self, handler: str) -> Runtime:
        return Runtime(runtime_type="io.containerd.runc.v2")


@dataclass
class Node:
    """Containers on fakes."""

    tasks: Tasks
    pods: KnownPods
    containers: Containers
    container: Container
    steps: PodSteps

    @property
    def fifos(self) -> list[str]:
        return [name for name in open_files() if "/io/" in name]


def open_files() -> list[str]:
    found = []
    for each in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{each}"))
        except FileNotFoundError:
            pass  # that of the directory itself
    return found


@pytest.fixture
async def node(tmp_path: Path) -> Node:
    tasks, pods = Tasks(), KnownPods()
    document: dict[str, object] = {"process": {"args": ["x"], "user": {"uid": 0, "gid": 0}}, "linux": {}}
    row = Row(ID, spec=to_payload(SPEC, document))
    steps = PodSteps(Hooks())
    images = cast("Images", None)
    namespace = cast("LocalNamespace", Namespace(tasks, row))
    made = Containers(
        namespace, cast("Pods", pods), images, RuntimeConfig(), tmp_path, tmp_path / "state", Events(), steps
    )
    directory = tmp_path / "containers" / ID
    directory.mkdir(parents=True)
    (tmp_path / "state" / "containers" / ID).mkdir(parents=True)
    container = Container(ID, cri.ContainerConfig(), ContainerData("c_n", pods.pod.id), directory, Status(created_at=1))
    made.index.add(ID, container)
    return Node(tasks, pods, made, container, steps)


async def test_a_start_that_is_given_up_while_streams_are_opened_leaves_none(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, entered, go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    opened = containerio.opened

    def slowly(*arguments: Any) -> object:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
        return opened(*arguments)

    monkeypatch.setattr(module, "opened", slowly)
    starting = asyncio.create_task(node.containers.start(node.container))
    await asyncio.wait_for(entered.wait(), 20)
    starting.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert node.fifos == []
    assert node.container.status.reason == "StartError" and "given up" in node.container.status.message


async def test_a_container_does_not_run_on_in_a_pod_that_stopped_while_it_started(node: Node) -> None:
    node.tasks.at_start.clear()
    starting = asyncio.create_task(node.containers.start(node.container))
    while "start" not in node.tasks.calls:
        await asyncio.sleep(0.01)
    node.pods.pod.ready = False
    node.tasks.at_start.set()
    with pytest.raises(Unknown, match="is not running"):
        await starting
    assert node.tasks.calls == ["create", "start", "delete"] and node.fifos == []
    assert node.container.status.state == cri.CONTAINER_EXITED


async def test_a_container_whose_record_cannot_be_written_at_its_start_is_taken_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(monkeypatch)
    with pytest.raises(Unknown, match=r"container c_n: files: .*No space"):
        await node.containers.start(node.container)
    assert node.tasks.calls == ["create", "start", "delete"] and node.fifos == []
    assert node.container.status.state == cri.CONTAINER_EXITED and not node.container.starting


async def test_an_end_that_cannot_be_written_is_an_end(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task stays, so that the next daemon learns of it as well."""
    await node.containers.start(node.container)
    _fill(monkeypatch)
    await node.containers.stop(node.container, 0)
    assert node.container.status.state == cri.CONTAINER_EXITED and node.container.status.exit_code == 3
    assert node.tasks.calls == ["create", "start"] and node.fifos == []


async def test_a_container_ends_although_what_it_left_cannot_be_killed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "DRAIN", 0.01)
    monkeypatch.setattr(ends, "KILL_TIMEOUT", 0.5)
    await node.containers.start(node.container)
    stdout = next(name for name in node.fifos if name.endswith("stdout"))
    with open(stdout, "wb"):
        node.tasks.kill_error = Unavailable("the shim is gone")
        node.tasks.ended.set()
        async with asyncio.timeout(20):
            while node.container.status.state != cri.CONTAINER_EXITED:
                await asyncio.sleep(0.01)
    assert node.container.status.exit_code == 3


async def test_one_container_that_cannot_be_read_does_not_hold_up_the_others(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(self: Containers, container: Container) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Containers, "_find_task", find)
    monkeypatch.setattr(module, "container_of", lambda row, directory: node.container)
    node.containers.index.remove(ID)
    await node.containers._recover(Row(ID))
    assert ID in node.containers.index


async def test_a_container_is_not_made_in_a_pod_that_stopped_meanwhile(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    undone = []

    async def create(*arguments: Any, **options: Any) -> None:
        node.pods.pod.ready = False

    async def undo(namespace: object, id: str) -> None:
        undone.append(id)

    monkeypatch.setattr(launch, "create", create)
    monkeypatch.setattr(launch, "undo", undo)
    creation = node.containers.creation
    for part, made in {"_images": _Images(), "image_volumes": _NoVolumes()}.items():
        monkeypatch.setattr(creation, part, made)
    config = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="c"))
    with pytest.raises(Unknown, match="is not running"):
        await creation.create(node.pods.pod, "d" * 64, "c_n", config, "sha256:1", 0)
    assert undone == ["d" * 64] and not (creation.root / ("d" * 64)).exists()
    assert isinstance(creation, Creation)


async def test_a_removal_that_is_given_up_goes_on_to_its_end(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(namespace: object, id: str, force: bool) -> None:
        entered.set()
        await go_on.wait()

    monkeypatch.setattr(launch, "remove", slowly)
    removing = asyncio.create_task(node.containers.remove(node.container))
    await asyncio.wait_for(entered.wait(), 20)
    looked = asyncio.create_task(_look(node))
    removing.cancel()
    await asyncio.sleep(0.05)
    assert not looked.done() and not removing.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await removing
    # Who looks at all containers sees none whose record is gone.
    assert await looked == [] and ID not in node.containers.index


async def _look(node: Node) -> list[str]:
    async with node.steps.changes.still():
        return [each.id for each in node.containers.index]


async def test_an_exec_that_times_out_leaves_no_error_to_be_logged(node: Node) -> None:
    reported = _reports(asyncio.get_running_loop())
    await node.containers.start(node.container)
    node.tasks.at_start.clear()
    with pytest.raises(DeadlineExceeded, match=r"timeout 0\.05s exceeded"):
        await Execs(node.containers, cast("Pods", node.pods)).exec_sync(ID, ["/bin/sleep"], 0.05)
    await _nothing_more()
    assert reported == [] and node.tasks.calls[-1] == "delete exec"


async def test_an_exec_of_a_container_that_has_gone_leaves_no_error_to_be_logged(node: Node) -> None:
    reported = _reports(asyncio.get_running_loop())
    await node.containers.start(node.container)

    async def start(id: str, exec_id: str = "") -> int:
        await asyncio.sleep(0.01)  # the wait has failed before
        raise Unavailable("the shim is gone")

    node.tasks.wait_error = Unavailable("the shim is gone")
    node.tasks.start = start  # type: ignore[method-assign] # this test's
    with pytest.raises(Unknown, match="the shim is gone"):
        await Execs(node.containers, cast("Pods", node.pods)).exec_sync(ID, ["/bin/sleep"], 5)
    await _nothing_more()
    assert reported == []


async def test_an_exec_whose_start_is_given_up_is_deleted_once_it_has_ended(node: Node) -> None:
    node.container.change(started_at=1)
    node.tasks.at_start.clear()
    execs = Execs(node.containers, cast("Pods", node.pods))
    executing = asyncio.create_task(execs.exec_sync(ID, ["x"], 0))
    while "start" not in node.tasks.calls:
        await asyncio.sleep(0.01)
    node.tasks.exec_runs = True
    executing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await executing
    assert node.tasks.calls[-1] == "delete exec"


async def test_pipes_of_an_exec_are_below_the_container_s_directory(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There they go with the container, when a daemon was killed while it executed."""
    await node.containers.start(node.container)
    seen, make = [], fifos.make

    def note(*names: Any, **more: Any) -> Fifos:
        made = make(*names, **more)
        seen.append(Path(made.directory).parent)
        return made

    monkeypatch.setattr(fifos, "make", note)
    node.tasks.at_start.clear()
    with pytest.raises(DeadlineExceeded):
        await Execs(node.containers, cast("Pods", node.pods)).exec_sync(ID, ["/bin/sleep"], 0.05)
    assert seen == [node.containers.creation.state / ID / "io"]


async def test_an_exec_that_is_given_up_while_its_pipes_are_made_leaves_none(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loop, entered, go_on, make = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event(), fifos.make
    await node.containers.start(node.container)
    before = sorted(node.fifos)

    def slowly(*names: Any, **more: Any) -> Fifos:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
        made = make(*names, **more)
        loop.call_soon_threadsafe(entered.clear)
        return made

    monkeypatch.setattr(fifos, "make", slowly)
    running = asyncio.create_task(Execs(node.containers, cast("Pods", node.pods)).exec_sync(ID, ["/bin/sleep"], 5))
    await asyncio.wait_for(entered.wait(), 20)
    running.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    while entered.is_set():
        await asyncio.sleep(0.01)
    assert sorted(node.fifos) == before
    # The other directory is that of the container's own.
    assert len(list((tmp_path / "state" / "containers" / ID / "io").iterdir())) == 1


def _fill(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Status, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Status, "write", write)


def _reports(loop: asyncio.AbstractEventLoop) -> list[str]:
    found: list[str] = []
    loop.set_exception_handler(lambda _, context: found.append(context["message"]))
    return found


async def _nothing_more() -> None:
    await asyncio.sleep(0.05)
    gc.collect()
    await asyncio.sleep(0)


class _Images:
    snapshotter = "overlayfs"

    def get(self, id: str) -> None:
        return None

    def name_of(self, id: str) -> str:
        return "busybox"


class _NoVolumes:
    async def prepare(self, *arguments: object) -> None:
        pass
