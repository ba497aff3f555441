"""A runtime by its name, through a daemon's containers and tasks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage

from windlass.contracts.tasks import Status
from windlass.errors import Error
from windlass_api.containerd.events import task_pb2
from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_api.containerd.services.containers.v1.containers_pb2_grpc import ContainersStub
from windlass_api.containerd.services.events.v1 import events_pb2
from windlass_api.containerd.services.events.v1.events_pb2_grpc import EventsStub
from windlass_api.containerd.services.tasks.v1 import tasks_pb2
from windlass_api.containerd.services.tasks.v1.tasks_pb2_grpc import TasksStub
from windlass_api.containerd.types.mount_pb2 import Mount
from windlass_conformance import boxes
from windlass_conformance.runtimes import PATIENCE, State
from windlass_remote.peer import Peer


def container_of(topic: str, event: bytes) -> str:
    """Return the container whose first process an event is about, empty for any other event."""
    if topic == "/tasks/create":
        return task_pb2.TaskCreate.FromString(event).container_id
    if topic == "/tasks/start":
        return task_pb2.TaskStart.FromString(event).container_id
    if topic == "/tasks/exit":
        exited = task_pb2.TaskExit.FromString(event)
        return exited.container_id if exited.id in ("", exited.container_id) else ""
    if topic == "/tasks/delete":
        deleted = task_pb2.TaskDelete.FromString(event)
        return deleted.container_id if deleted.id in ("", deleted.container_id) else ""
    return ""


class DaemonRuntime:
    """A `windlass_conformance.runtimes.Runtime`."""

    def __init__(self, peer: Peer, namespace: str, name: str, directory: Path) -> None:
        """Run containers of ``name`` in a namespace of the daemon's, with files below ``directory``."""
        self._peer = peer
        self._namespace = namespace
        self._name = name
        self._directory = directory
        self._tasks = TasksStub(peer.channel)
        self._containers = ContainersStub(peer.channel)
        self._events: list[tuple[str, str]] = []
        filters = [f"namespace=={namespace},topic~=^/tasks/"]
        self._call = EventsStub(peer.channel).Subscribe(events_pb2.SubscribeRequest(filters=filters))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def close(self) -> None:
        """Remove every container."""
        listed = self._peer.call(self._containers.List, containers_pb2.ListContainersRequest()).containers
        for container in listed:
            for step in (lambda id: self.kill(id, 9, "", True), self.wait, self.delete):
                with contextlib.suppress(Error):
                    step(container.id)
            self._peer.call(self._containers.Delete, containers_pb2.DeleteContainerRequest(id=container.id))
        self._call.cancel()
        self._thread.join()
        boxes.remove_group(self._namespace)

    def _listen(self) -> None:
        try:
            for envelope in self._call:
                self._events.append((container_of(envelope.topic, envelope.event.value), envelope.topic))
        except grpc.RpcError:
            pass  # it was cancelled

    def create(self, id: str, argv: Sequence[str], stdout: str = "") -> int:
        """Create a container and its task."""
        root = self._directory / id / "root"
        if not root.exists():
            boxes.make_root(root)
            spec = AnyMessage(type_url=boxes.SPEC, value=boxes.spec(argv, "rootfs", f"/{self._namespace}/{id}"))
            runtime = containers_pb2.Container.Runtime(name=self._name)
            container = containers_pb2.Container(id=id, runtime=runtime, spec=spec)
            self._peer.call(self._containers.Create, containers_pb2.CreateContainerRequest(container=container))
        mount = Mount(type="bind", source=str(root), options=["rbind", "rw"])
        request = tasks_pb2.CreateTaskRequest(container_id=id, rootfs=[mount], stdout=stdout, stderr=stdout)
        return self._peer.call(self._tasks.Create, request).pid

    def start(self, id: str, exec_id: str = "") -> int:
        """Start a process."""
        return self._peer.call(self._tasks.Start, tasks_pb2.StartRequest(container_id=id, exec_id=exec_id)).pid

    def exec(self, id: str, exec_id: str, argv: Sequence[str]) -> None:
        """Add a process."""
        process = AnyMessage(type_url=boxes.PROCESS, value=boxes.process_json(argv))
        request = tasks_pb2.ExecProcessRequest(container_id=id, exec_id=exec_id, spec=process)
        self._peer.call(self._tasks.Exec, request)

    def wait(self, id: str, exec_id: str = "") -> int:
        """Wait for a process."""
        request = tasks_pb2.WaitRequest(container_id=id, exec_id=exec_id)
        return self._peer.call(self._tasks.Wait, request, PATIENCE).exit_status

    def kill(self, id: str, number: int, exec_id: str = "", all: bool = False) -> None:
        """Send a signal."""
        request = tasks_pb2.KillRequest(container_id=id, exec_id=exec_id, signal=number, all=all)
        self._peer.call(self._tasks.Kill, request)

    def delete(self, id: str, exec_id: str = "") -> int:
        """Delete a process."""
        if exec_id:
            request = tasks_pb2.DeleteProcessRequest(container_id=id, exec_id=exec_id)
            return self._peer.call(self._tasks.DeleteProcess, request).exit_status
        return self._peer.call(self._tasks.Delete, tasks_pb2.DeleteTaskRequest(container_id=id)).exit_status

    def state(self, id: str, exec_id: str = "") -> State:
        """Describe a process."""
        found = self._peer.call(self._tasks.Get, tasks_pb2.GetRequest(container_id=id, exec_id=exec_id)).process
        return State(Status(found.status), found.pid, found.exit_status)

    def pids(self, id: str) -> list[int]:
        """Return the processes."""
        answer = self._peer.call(self._tasks.ListPids, tasks_pb2.ListPidsRequest(container_id=id))
        return [each.pid for each in answer.processes]

    def pause(self, id: str) -> None:
        """Freeze a container."""
        self._peer.call(self._tasks.Pause, tasks_pb2.PauseTaskRequest(container_id=id))

    def resume(self, id: str) -> None:
        """Thaw it."""
        self._peer.call(self._tasks.Resume, tasks_pb2.ResumeTaskRequest(container_id=id))

    def topics(self, id: str) -> list[str]:
        """Return the topics so far."""
        return [topic for container, topic in self._events if container == id]

    def file(self, name: str) -> str:
        """Return a path."""
        return str(self._directory / name)
