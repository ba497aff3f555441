"""A shim that holds several containers and a sandbox, as the shim of a pod does."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim_runc.fake_runtime import ForkingRuntime, Parts

from windlass import errors
from windlass_shim_runc import container, messages, records, sandbox
from windlass_shim_runc.inventory import Inventory
from windlass_shim_runc.keeper import Handover
from windlass_shim_runc.sandbox_service import SandboxRequest, SandboxService, StopSandboxRequest
from windlass_shim_runc.services import services
from windlass_shim_runc.task_service import TaskService

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll and splice are Linux's")


class Pod:
    """A shim's inventory and its services; ``ends`` has what the shim was asked to end by."""

    def __init__(self, parts: Parts, directory: Path) -> None:
        self.ends: list[str] = []
        self.inventory = Inventory(parts.shim, lambda: self.ends.append("vacant"))
        self.task = TaskService(self.inventory, lambda: self.ends.append("shutdown"))
        self.sandbox = SandboxService(self.inventory, lambda: self.ends.append("sandbox shutdown"))
        self.directory = directory

    def request(self, id: str, **fields: object) -> messages.CreateTaskRequest:
        """Return a request to create a container."""
        bundle = self.directory / id
        bundle.mkdir(exist_ok=True)
        (bundle / "config.json").write_text("{}")
        return messages.CreateTaskRequest(id=id, bundle=str(bundle), **fields)

    async def start(self, *ids: str) -> None:
        """Create and start containers."""
        for id in ids:
            await self.task.create(self.request(id))
            await self.task.start(messages.ProcessRequest(id=id))


@pytest.fixture
def pod(parted: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    """A pod, whose processes are gone afterwards."""
    monkeypatch.setattr(container, "runtime_of", ForkingRuntime)
    made = Pod(parted, tmp_path)
    yield made
    for box in made.inventory.containers.values():
        if box.init.pid and not box.init.exited.is_set:
            os.kill(box.init.pid, signal.SIGKILL)
            os.waitpid(box.init.pid, 0)


POD = SandboxRequest(sandbox_id="pod")


def test_a_shim_ends_when_the_last_container_is_gone(parted: Parts, pod: Pod) -> None:
    """And not before: a Shutdown that comes for one of two is not for the shim."""

    async def live() -> None:
        await pod.start("one", "two")
        for id in ("one", "two"):
            await pod.task.kill(messages.KillRequest(id=id, signal=9))
            assert (await pod.task.wait(messages.ProcessRequest(id=id))).exit_status == 137
            await pod.task.delete(messages.ProcessRequest(id=id))
            await pod.task.shutdown(messages.ShutdownRequest(id=id))
            assert pod.ends == ([] if id == "one" else ["vacant", "shutdown"])

    parted.run(live())


def test_a_sandbox_keeps_a_shim_without_containers(parted: Parts, pod: Pod) -> None:
    async def live() -> None:
        await pod.sandbox.create_sandbox(POD)
        await pod.start("one")
        await pod.task.kill(messages.KillRequest(id="one", signal=9))
        await pod.task.wait(messages.ProcessRequest(id="one"))
        await pod.task.delete(messages.ProcessRequest(id="one"))
        await pod.task.shutdown(messages.ShutdownRequest())
        assert (pod.inventory.vacant, pod.ends) == (False, [])
        await pod.sandbox.shutdown_sandbox(POD)
        assert (pod.inventory.vacant, pod.ends) == (True, ["sandbox shutdown"])

    parted.run(live())


def test_a_sandbox_is_ready_from_its_start_to_its_stop(parted: Parts, pod: Pod) -> None:
    """In the words of the CRI; its pid is the shim's."""

    async def live() -> None:
        await pod.sandbox.create_sandbox(POD)
        assert (await pod.sandbox.sandbox_status(POD)).state == "SANDBOX_NOTREADY"
        assert (await pod.sandbox.start_sandbox(POD)).pid == os.getpid()
        assert (await pod.sandbox.sandbox_status(POD)).state == "SANDBOX_READY"
        await pod.sandbox.stop_sandbox(StopSandboxRequest(sandbox_id="pod"))
        status = await pod.sandbox.sandbox_status(POD)
        assert status.state == "SANDBOX_NOTREADY"
        assert (await pod.sandbox.wait_sandbox(POD)).exited_at == status.exited_at
        with pytest.raises(errors.FailedPrecondition, match="sandbox pod has been stopped; create another one"):
            await pod.sandbox.start_sandbox(POD)

    parted.run(live())


def test_stopping_a_sandbox_ends_its_containers(parted: Parts, pod: Pod) -> None:
    """By SIGTERM when there is time for that; they stay to be deleted."""

    async def live() -> None:
        await pod.sandbox.create_sandbox(POD)
        await pod.start("one", "two")
        await pod.sandbox.stop_sandbox(StopSandboxRequest(sandbox_id="pod", timeout_secs=10))
        ends = [box.init.exit_status for box in pod.inventory.containers.values()]
        assert ends == [128 + signal.SIGTERM] * 2

    parted.run(live())


def test_containers_that_do_not_end_are_named(parted: Parts, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox is not stopped then."""
    monkeypatch.setattr(sandbox, "END_TIMEOUT", 0.05)

    async def ignore(*_: object) -> None:
        return

    async def live() -> None:
        await pod.sandbox.create_sandbox(POD)
        await pod.start("one")
        monkeypatch.setattr(pod.inventory.container("one").runtime, "kill", ignore)
        with pytest.raises(errors.DeadlineExceeded, match="sandbox pod: one did not end within"):
            await pod.sandbox.stop_sandbox(StopSandboxRequest(sandbox_id="pod"))
        assert pod.inventory.sandbox is not None and not pod.inventory.sandbox.exited.is_set

    parted.run(live())


def test_another_sandbox_is_refused(parted: Parts, pod: Pod) -> None:
    """A shim has one; a name that is not its own is not found."""

    async def live() -> None:
        with pytest.raises(errors.NotFound, match="sandbox pod does not exist in this shim"):
            await pod.sandbox.ping_sandbox(POD)
        await pod.sandbox.create_sandbox(POD)
        await pod.sandbox.ping_sandbox(POD)
        with pytest.raises(errors.AlreadyExists, match="this shim is that of sandbox pod already"):
            await pod.sandbox.create_sandbox(SandboxRequest(sandbox_id="other"))
        with pytest.raises(errors.InvalidArgument, match=r"sandbox '\.\./x' is not a valid identifier"):
            await pod.sandbox.create_sandbox(SandboxRequest(sandbox_id="../x"))

    parted.run(live())


def test_a_name_is_taken_while_its_container_is_created(parted: Parts, pod: Pod) -> None:
    """And free again when that has failed."""
    seen: list[str] = []

    async def second() -> None:
        try:
            await pod.task.create(pod.request("one"))
        except errors.AlreadyExists as error:
            seen.append(str(error))

    async def live() -> None:
        pod.inventory._creating.add("one")
        await second()
        pod.inventory._creating.clear()
        await pod.task.create(pod.request("one"))
        await second()

    parted.run(live())
    assert seen == ["container one exists already"] * 2


def test_a_deleted_container_is_not_found(parted: Parts, pod: Pod) -> None:
    async def live() -> None:
        await pod.task.create(pod.request("one"))
        await pod.task.delete(messages.ProcessRequest(id="one"))
        for ask in (pod.task.state, pod.task.wait, pod.task.delete):
            with pytest.raises(errors.NotFound, match="container one does not exist in this shim"):
                await ask(messages.ProcessRequest(id="one"))
        answer = await pod.task.connect(messages.TaskRequest(id="one"))
        assert (answer.shim_pid, answer.task_pid) == (os.getpid(), 0)

    parted.run(live())


def test_pids_name_the_execs(parted: Parts, pod: Pod) -> None:
    """A client sees which exec a process is of."""

    async def live() -> None:
        await pod.start("one")
        spec = messages.AnyMessage(value=b"waits")
        await pod.task.exec(messages.ExecProcessRequest(id="one", exec_id="shell", spec=spec))
        pid = (await pod.task.start(messages.ProcessRequest(id="one", exec_id="shell"))).pid
        found = (await pod.task.pids(messages.TaskRequest(id="one"))).processes
        named = {each.pid: messages.decode(messages.ProcessDetails, each.info.value).exec_id for each in found}
        assert named == {pod.inventory.container("one").init.pid: "", pid: "shell"}
        await pod.task.kill(messages.KillRequest(id="one", exec_id="shell", signal=9))
        await pod.task.wait(messages.ProcessRequest(id="one", exec_id="shell"))

    parted.run(live())


def test_a_container_that_has_ended_has_no_cgroup(parted: Parts, pod: Pod) -> None:
    """Its numbers would be another's by now."""

    async def live() -> None:
        await pod.start("one")
        stats = (await pod.task.stats(messages.TaskRequest(id="one"))).stats
        assert stats.type_url == "test/Metrics"
        await pod.task.kill(messages.KillRequest(id="one", signal=9))
        await pod.task.wait(messages.ProcessRequest(id="one"))
        for ask in (pod.task.stats, pod.task.pids):
            with pytest.raises(errors.NotFound, match="cgroup of container one is gone: its process has ended"):
                await ask(messages.TaskRequest(id="one"))

    parted.run(live())


def test_a_pod_is_taken_over_whole(parted: Parts, pod: Pod) -> None:
    """Every container with its process, and the sandbox in its state."""

    async def live() -> None:
        await pod.sandbox.create_sandbox(POD)
        await pod.sandbox.start_sandbox(POD)
        await pod.start("one", "two")

    parted.run(live())
    handover = Handover()
    record = records.read(pod.inventory.to_record(handover).encode())
    parted.reaper._watched.clear()
    later = Inventory(parted.shim, lambda: None)
    later.take_over(handover, record)
    assert {id: box.init.pid for id, box in later.containers.items()} == {
        id: box.init.pid for id, box in pod.inventory.containers.items()
    }
    assert later.sandbox is not None and later.sandbox.is_ready
    pod.inventory.containers = later.containers

    async def end() -> None:
        for box in later.containers.values():
            await box.kill(box.init, 9, all=False)
            await box.init.exited.wait(5)

    parted.run(end())


def test_both_apis_are_served_by_their_names(pod: Pod) -> None:
    """Versions 2 and 3 of the Task API by one object."""
    found = services(pod.inventory, lambda: None)
    assert sorted(found) == [
        "containerd.runtime.sandbox.v1.Sandbox",
        "containerd.task.v2.Task",
        "containerd.task.v3.Task",
    ]
    assert found["containerd.task.v2.Task"] is found["containerd.task.v3.Task"]
    for methods, service in found.values():
        assert all(callable(getattr(service, name)) for _, name in methods.values())
