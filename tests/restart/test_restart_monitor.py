"""The restart monitor against small stores and tasks that remember what was done to them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Sequence

import pytest

from windlass.contracts.containers import Container
from windlass.contracts.mounts import Mount
from windlass.contracts.namespaces import Namespace
from windlass.contracts.tasks import CreateOptions, Exit, Process, Status
from windlass.contracts.values import Payload
from windlass.errors import AlreadyExists, DeadlineExceeded, Error, NotFound, Unavailable
from windlass.plugin import InitContext
from windlass_restart.monitor import Monitor
from windlass_restart.plugin import migrate
from windlass_restart.policy import COUNT, LOG_URI, POLICY, STATUS

MOUNTS = (Mount("overlay", "overlay", ("ro",)),)
INTERVAL = 3600.0


class Stores:
    """As much of a metadata store as the monitor uses."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Container]] = {"default": {}, "other": {}}

    def namespaces(self) -> Stores:
        return self

    def list(self) -> list[Namespace]:
        return [Namespace(name) for name in self.found]

    def containers(self, namespace: str) -> Containers:
        return Containers(self.found[namespace])

    def snapshotter(self, name: str, namespace: str, lease: str = "") -> Stores:
        assert name == "overlayfs"
        return self

    def mounts(self, key: str) -> tuple[Mount, ...]:
        if key == "gone":
            raise NotFound("snapshot gone does not exist")
        return MOUNTS


class Containers:
    """One namespace's."""

    def __init__(self, found: dict[str, Container]) -> None:
        self._found = found

    def list(self, filters: Sequence[str]) -> list[Container]:
        assert filters == ['labels."containerd.io/restart.status"']
        return [each for each in self._found.values() if STATUS in each.labels]

    def update(self, container: Container, fieldpaths: Sequence[str]) -> Container:
        old = self._found[container.id]
        assert fieldpaths == [f"labels.{COUNT}"]
        self._found[container.id] = dataclasses.replace(old, labels={**old.labels, **container.labels})
        return self._found[container.id]


class Tasks:
    """Tasks that exist on paper."""

    def __init__(self) -> None:
        self.tasks: dict[str, Process] = {}
        self.created: list[CreateOptions] = []
        self.done: list[str] = []
        self.fail: dict[str, Error] = {}

    def _task(self, verb: str, id: str) -> Process:
        if verb != "get":
            self.done.append(f"{verb} {id}")
        if error := self.fail.get(f"{verb} {id}"):
            raise error
        if id not in self.tasks:
            raise NotFound(f"task {id} does not exist")
        return self.tasks[id]

    def put(self, id: str, status: Status, exit_status: int = 0) -> None:
        self.tasks[id] = Process(id, status=status, exit_status=exit_status)

    async def get(self, namespace: str, id: str, exec_id: str = "") -> Process:
        return self._task("get", id)

    async def create(self, namespace: str, container: Container, options: CreateOptions) -> int:
        self.done.append(f"create {container.id}")
        if container.id in self.tasks:
            raise AlreadyExists(container.id)
        self.created.append(options)
        self.put(container.id, Status.CREATED)
        return 1

    async def start(self, namespace: str, id: str, exec_id: str = "") -> int:
        self._task("start", id)
        self.put(id, Status.RUNNING)
        return 1

    async def kill(self, namespace: str, id: str, exec_id: str, signal: int, all: bool = False) -> None:
        assert (exec_id, signal, all) == ("", 9, True)
        if self._task("kill", id).status == Status.STOPPED:
            raise NotFound("process already finished")
        self.put(id, Status.STOPPED, 137)

    async def wait(self, namespace: str, id: str, exec_id: str = "") -> Exit:
        return Exit(1, self._task("wait", id).exit_status, 0)

    async def delete(self, namespace: str, id: str) -> Exit:
        self._task("delete", id)
        del self.tasks[id]
        return Exit(1, 0, 0)


class World:
    """A monitor, and what it works on."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self.stores, self.tasks = Stores(), Tasks()
        self.monitor = Monitor(self.stores, self.tasks, interval)  # type: ignore[arg-type] # as much as it uses

    def add(self, id: str = "box", namespace: str = "default", spec: object = None, **fields: object) -> None:
        labels = {STATUS: "running", **fields.pop("labels", {})}  # type: ignore[dict-item]
        made = {"spec": Payload("json", json.dumps(spec).encode()), "created_at": 1, "labels": labels, **fields}
        self.stores.found[namespace][id] = Container(id, **made)  # type: ignore[arg-type]

    def count(self, id: str = "box") -> str:
        return self.stores.found["default"][id].labels.get(COUNT, "")

    async def round(self) -> list[str]:
        self.tasks.done.clear()
        await self.monitor.look()
        await self.monitor.settle()
        return self.tasks.done


async def test_a_stopped_container_is_started_again() -> None:
    """Its old task is deleted, its count goes up, its rootfs is its snapshot."""
    world = World()
    world.add(snapshotter="overlayfs", snapshot_key="box")
    world.tasks.put("box", Status.STOPPED, 1)
    assert await world.round() == ["kill box", "wait box", "delete box", "create box", "start box"]
    assert world.count() == "1"
    assert world.tasks.created[0].rootfs == MOUNTS
    assert world.tasks.created[0].io.stdout == ""
    assert await world.round() == []

    world.tasks.put("box", Status.STOPPED)
    await world.round()
    assert world.count() == "2"


async def test_a_container_without_task_is_started_in_every_namespace() -> None:
    """As after a reboot."""
    world = World()
    world.add()
    world.add("there", namespace="other")
    assert {"start box", "start there"} <= set(await world.round())


async def test_a_container_without_the_label_is_left_alone() -> None:
    """However dead it is."""
    world = World()
    world.stores.found["default"]["box"] = Container("box")
    assert await world.round() == []


async def test_a_container_that_is_to_be_stopped_is_stopped() -> None:
    """By SIGKILL for all of it; its task goes, the container stays."""
    world = World()
    world.add(labels={STATUS: "stopped"})
    world.tasks.put("box", Status.RUNNING)
    assert await world.round() == ["kill box", "wait box", "delete box"]
    assert await world.round() == []


async def test_a_policy_that_does_not_parse_never_restarts() -> None:
    """And the others are restarted all the same."""
    world = World()
    world.add("bad", labels={POLICY: "always:7"})
    world.add("good")
    assert await world.round() == ["kill good", "wait good", "create good", "start good"]


async def test_the_log_goes_where_the_label_says() -> None:
    """Both streams; with a terminal there is one."""
    world = World()
    for number, uri in enumerate(("file:///tmp/a%20log", "file:/tmp/log")):
        world.add(f"box{number}", labels={LOG_URI: uri})
        await world.round()
        io = world.tasks.created[number].io
        assert (io.stdout, io.stderr) == (uri, uri)

    world.add("tty", spec={"process": {"terminal": True}}, labels={LOG_URI: "binary:///bin/log"})
    await world.round()
    io = world.tasks.created[2].io
    assert (io.stdout, io.stderr, io.terminal) == ("binary:///bin/log", "", True)


async def test_what_cannot_be_started_changes_nothing() -> None:
    """A label that is no URI, a snapshot that is gone: the old task and the count stay."""
    world = World()
    world.add("log", labels={LOG_URI: "/etc/passwd"})
    world.add("root", snapshotter="overlayfs", snapshot_key="gone")
    world.tasks.put("log", Status.STOPPED)
    assert await world.round() == []
    assert world.count("log") == world.count("root") == ""


async def test_a_task_that_does_not_start_is_deleted_and_tried_again() -> None:
    """Nothing piles up meanwhile."""
    world = World()
    world.add()
    world.tasks.fail["start box"] = Unavailable("no")
    assert (await world.round())[2:] == ["create box", "start box", "kill box", "wait box", "delete box"]
    assert await world.round()
    assert (world.count(), world.tasks.tasks) == ("2", {})


async def test_a_task_that_does_not_answer_is_not_killed_for_it() -> None:
    """The machine may only be slow."""
    world = World()
    world.add()
    world.tasks.put("box", Status.RUNNING)
    world.tasks.fail["get box"] = DeadlineExceeded("slow")
    await world.round()
    assert world.tasks.tasks["box"].status == Status.RUNNING


async def test_a_client_has_time_to_start_what_it_creates() -> None:
    """A new container waits one interval, a task that is only created until it is seen again."""
    world = World()
    world.add(created_at=time.time_ns())
    assert await world.round() == []
    world.add("made")
    world.tasks.put("made", Status.CREATED)
    assert await world.round() == []
    assert await world.round() == ["kill made", "wait made", "delete made", "create made", "start made"]


async def test_it_looks_again_and_again_until_it_is_stopped() -> None:
    """The interval is the configuration's."""
    world = World(0.01)
    await world.monitor.start()
    world.add()
    async with asyncio.timeout(5):
        while world.count() != "2":
            await asyncio.sleep(0.01)
            world.tasks.tasks.pop("box", None)
    await world.monitor.stop()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_container_that_hangs_delays_no_other_one() -> None:
    """And no second attempt is made while the first is under way."""
    world = World()
    world.add("stuck")
    asked = 0
    gate = asyncio.Event()
    create = world.tasks.create

    async def slow(namespace: str, container: Container, options: CreateOptions) -> int:
        nonlocal asked
        if container.id == "stuck":
            asked += 1
            await gate.wait()
        return await create(namespace, container, options)

    world.tasks.create = slow  # type: ignore[method-assign] # one task is slow
    await world.monitor.look()
    await asyncio.sleep(0.05)
    world.add("quick")
    await world.monitor.look()
    async with asyncio.timeout(5):
        while "start quick" not in world.tasks.done:
            await asyncio.sleep(0.01)
    assert asked == 1
    gate.set()
    await world.monitor.settle()


@pytest.mark.parametrize("version", [2, 3])
def test_the_old_name_of_the_block_still_counts(version: int) -> None:
    """In files of version 2 and 3; a block of the new name wins."""
    plugins: dict[str, object] = {"io.containerd.internal.v1.restart": {"interval": "3s"}}
    migrate(1, plugins)
    assert list(plugins) == ["io.containerd.internal.v1.restart"]
    migrate(version, plugins)
    assert plugins == {"io.containerd.monitor.container.v1.restart": {"interval": "3s"}}


@pytest.mark.parametrize("interval", ["0s", "soon", "-1s"])
def test_an_interval_that_is_none_is_refused(interval: str) -> None:
    """With the key's name."""
    from windlass_restart.plugin import Config, init

    class Context:
        def config(self, kind: type[Config]) -> Config:
            return kind(interval)

    context: InitContext = Context()  # type: ignore[assignment] # as much of one as init uses before it refuses
    with pytest.raises(Error, match="interval"):
        init(context)
