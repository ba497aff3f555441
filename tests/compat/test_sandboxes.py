"""Sandboxes through the daemon's socket: a shim that several containers share, with the real shim and runc."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from compat.conftest import IMAGE
from compat.images import Archive
from compat.machines import Machine, eventually

from windlass_api.containerd.events import sandbox_pb2 as events_pb
from windlass_api.containerd.services.events.v1 import events_pb2, events_pb2_grpc
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2 as pb
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2_grpc
from windlass_api.containerd.types import sandbox_pb2 as types_pb

RUNC = "io.containerd.runc.v2"
GROUP = "io.kubernetes.cri.sandbox-id"


class Client:
    """Speaks to the store and the controller, for one sandboxer."""

    def __init__(self, machine: Machine) -> None:
        self.channel = grpc.insecure_channel(f"unix:{machine.address}")
        self.metadata = (("containerd-namespace", machine.namespace),)
        self.store = sandbox_pb2_grpc.StoreStub(self.channel)
        self.controller = sandbox_pb2_grpc.ControllerStub(self.channel)

    # Any: the answer of the method
    def __call__(self, method: str, id: str, sandboxer: str = "shim", timeout: float = 30, **fields: object) -> Any:
        request = getattr(pb, f"Controller{method}Request")(sandbox_id=id, sandboxer=sandboxer, **fields)
        return getattr(self.controller, method)(request, metadata=self.metadata, timeout=timeout)

    def create(self, id: str, runtime: str = RUNC) -> types_pb.Sandbox:
        sandbox = types_pb.Sandbox(sandbox_id=id, runtime=types_pb.Sandbox.Runtime(name=runtime), sandboxer="shim")
        self.store.Create(pb.StoreCreateRequest(sandbox=sandbox), metadata=self.metadata, timeout=10)
        self("Create", id, sandbox=sandbox)
        return sandbox

    def forget(self, id: str) -> None:
        with contextlib.suppress(grpc.RpcError):
            self("Shutdown", id)
        with contextlib.suppress(grpc.RpcError):
            self.store.Delete(pb.StoreDeleteRequest(sandbox_id=id), metadata=self.metadata, timeout=10)


@contextlib.contextmanager
def refused(code: grpc.StatusCode, words: str) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    error = caught.value
    assert (error.code(), words in (error.details() or "")) == (code, True), error.details()


@pytest.fixture
def client(windlass: Machine) -> Iterator[Client]:
    client = Client(windlass)
    yield client
    client.channel.close()


@pytest.fixture
def pod(windlass: Machine, client: Client) -> Iterator[str]:
    """A sandbox that runs, in a shim of ours."""
    id = windlass.new_id()
    client.create(id)
    client("Start", id)
    yield id
    client.forget(id)


def run_in(machine: Machine, pod: str, *command: str) -> str:
    """Start a container in a pod."""
    id = machine.new_id()
    machine.ctr("run", "-d", "--annotation", f"{GROUP}={pod}", IMAGE, id, *(command or ("/bin/sleep", "1000")))
    return id


def parent(machine: Machine, container: str) -> int:
    """Return the pid of the shim of a task."""
    stat = Path(f"/proc/{machine.rows('tasks', 'ls')[container][1]}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def bundles(machine: Machine) -> list[str]:
    return [each.name for each in machine.state.glob("io.containerd.sandbox.controller.v1.shim/*/*")]


def test_a_sandbox_is_created_started_waited_for_and_shut_down(windlass: Machine, client: Client) -> None:
    """Its states have the CRI's words, its events come in order, and nothing of it is left."""
    id = windlass.new_id()
    subscription = events_pb2_grpc.EventsStub(client.channel).Subscribe(
        events_pb2.SubscribeRequest(filters=[f"namespace=={windlass.namespace},topic~=^/sandboxes/"]), timeout=60
    )
    with ThreadPoolExecutor(1) as pool:
        next_event = pool.submit(next, subscription)
        client.create(id)
        assert next_event.result(10).topic == "/sandboxes/create"
        created = client("Status", id, verbose=True)
        assert created.state == "SANDBOX_NOTREADY"
        assert created.HasField("extra")

        started = client("Start", id)
        assert next(subscription).topic == "/sandboxes/start"
        assert (Path(f"/proc/{started.pid}/comm").read_text(), started.version) == ("windlass-shim\n", 3)
        assert started.address.startswith("ttrpc+unix:///")
        status = client("Status", id)
        assert (status.state, status.pid, status.address) == ("SANDBOX_READY", started.pid, started.address)
        assert client("Platform", id).platform.os == "linux"

        waiting = client.controller.Wait.future(
            pb.ControllerWaitRequest(sandbox_id=id, sandboxer="shim"), metadata=client.metadata, timeout=30
        )
        client("Stop", id)
        assert waiting.result().exit_status == 0
        envelope = next(subscription)
        exit = events_pb.SandboxExit.FromString(envelope.event.value)
        assert (envelope.topic, exit.sandbox_id) == ("/sandboxes/exit", id)
        assert client("Status", id).state == "SANDBOX_NOTREADY"
        client("Shutdown", id)
        subscription.cancel()
    assert id not in bundles(windlass)
    eventually(lambda: not Path(f"/proc/{started.pid}").exists())
    client.forget(id)


def test_containers_of_a_sandbox_share_its_shim(windlass: Machine, client: Client, pod: str) -> None:
    """Which stays when they are gone, and takes them along when it is shut down."""
    shim = client("Status", pod).pid
    first, second = run_in(windlass, pod), run_in(windlass, pod, "/bin/sh", "-c", "exit 4")
    assert parent(windlass, first) == shim
    eventually(lambda: windlass.status(second) == "STOPPED")
    assert "non-zero exit code 4" in windlass.try_ctr("tasks", "rm", second).stderr
    assert windlass.ctr("tasks", "exec", "--exec-id", "one", first, "/bin/echo", "fine") == "fine\n"
    windlass.remove(first)
    assert client("Status", pod).state == "SANDBOX_READY"

    third = run_in(windlass, pod)
    assert parent(windlass, third) == shim
    client("Shutdown", pod)
    eventually(lambda: windlass.status(third) == "")
    eventually(lambda: not Path(f"/proc/{shim}").exists())


def test_stopping_a_sandbox_stops_its_containers(windlass: Machine, client: Client, pod: str) -> None:
    """They are stopped and still there, as with the CRI's pods."""
    container = run_in(windlass, pod)
    client("Stop", pod)
    assert windlass.status(container) == "STOPPED"
    assert "non-zero exit code 137" in windlass.try_ctr("tasks", "rm", container).stderr


def test_a_sandbox_outlives_the_daemon(tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> None:
    """After kill -9 the next daemon has sandbox and container, and new containers join."""
    machine = Machine("windlass", tmp_path_factory.mktemp("s"))
    try:
        machine.start()
        machine.ctr("images", "import", str(busy.path))
        client = Client(machine)
        client.create("pod")
        shim = client("Start", "pod").pid
        first = run_in(machine, "pod")
        client.channel.close()
        machine.kill()
        machine.start()

        client = Client(machine)
        status = client("Status", "pod")
        assert (status.pid, status.state) == (shim, "SANDBOX_READY")
        assert machine.status(first) == "RUNNING"
        assert parent(machine, run_in(machine, "pod")) == shim
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client, "Wait", "pod")
            time.sleep(0.2)
            os.kill(shim, signal.SIGKILL)
            assert waiting.result(30).exit_status == 137
        eventually(lambda: machine.rows("tasks", "ls") == {})
        assert bundles(machine) == []
        client.channel.close()
    finally:
        machine.close()


def test_refusals_name_the_sandbox_and_what_is_wrong(client: Client, pod: str) -> None:
    """With the reference's codes (3.12)."""
    with refused(grpc.StatusCode.ALREADY_EXISTS, pod):
        client("Create", pod, sandbox=types_pb.Sandbox(sandbox_id=pod, runtime=types_pb.Sandbox.Runtime(name=RUNC)))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "sandboxer"):
        client("Status", pod, sandboxer="")
    with refused(grpc.StatusCode.NOT_FOUND, "elsewhere"):
        client("Status", pod, sandboxer="elsewhere")
    with refused(grpc.StatusCode.UNKNOWN, "nobody"):
        client("Start", "nobody")
    for method in ("Wait", "Platform", "Metrics", "Shutdown"):
        with refused(grpc.StatusCode.NOT_FOUND, "nobody"):
            client(method, "nobody")
    client("Stop", "nobody")
    unknown = client("Status", "nobody")
    assert (unknown.sandbox_id, unknown.state, unknown.HasField("exited_at")) == ("nobody", "", True)
    with refused(grpc.StatusCode.NOT_FOUND, "nobody"):
        client("Create", "nobody")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "../x"):
        client(
            "Create", "../x", sandbox=types_pb.Sandbox(sandbox_id="../x", runtime=types_pb.Sandbox.Runtime(name=RUNC))
        )
    with refused(grpc.StatusCode.UNKNOWN, "record"):
        client("Update", pod)
    client("Update", pod, sandbox=types_pb.Sandbox(sandbox_id=pod))
    with refused(grpc.StatusCode.UNIMPLEMENTED, "SandboxMetrics"):
        client("Metrics", pod)


def test_a_runtime_without_sandboxes_is_refused_and_leaves_nothing(windlass: Machine, client: Client) -> None:
    """Debian's shim has no Sandbox service; a runtime that is not installed says what was looked for."""
    id = windlass.new_id()
    shim = Path("/usr/bin/containerd-shim-runc-v2")
    if shim.exists():
        with refused(grpc.StatusCode.UNIMPLEMENTED, id):
            client(
                "Create", id, sandbox=types_pb.Sandbox(sandbox_id=id, runtime=types_pb.Sandbox.Runtime(name=str(shim)))
            )
    with refused(grpc.StatusCode.UNKNOWN, "containerd-shim-nothing-v1"):
        client(
            "Create",
            id,
            sandbox=types_pb.Sandbox(sandbox_id=id, runtime=types_pb.Sandbox.Runtime(name="io.containerd.nothing.v1")),
        )
    assert id not in bundles(windlass)
    client.create(id)
    client.forget(id)
