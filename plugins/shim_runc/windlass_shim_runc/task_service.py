"""The Task service of a shim: requests to containers, answers from them."""

from __future__ import annotations

import os

from windlass.errors import InvalidArgument, NotFound
from windlass_shim_runc import disk, messages, placement
from windlass_shim_runc.container import Container
from windlass_shim_runc.options import runc_options
from windlass_shim_runc.shim import check_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from windlass_shim_runc.inventory import Inventory
    from windlass_shim_runc.server import Method

TASK = ("containerd.task.v3.Task", "containerd.task.v2.Task")
"""Version 2 has the same messages under another name."""

TASK_METHODS: Mapping[str, Method] = {
    "Create": (messages.CreateTaskRequest, "create"),
    "Start": (messages.ProcessRequest, "start"),
    "State": (messages.ProcessRequest, "state"),
    "Wait": (messages.ProcessRequest, "wait"),
    "Delete": (messages.ProcessRequest, "delete"),
    "Kill": (messages.KillRequest, "kill"),
    "Exec": (messages.ExecProcessRequest, "exec"),
    "Pids": (messages.TaskRequest, "pids"),
    "ResizePty": (messages.ResizePtyRequest, "resize_pty"),
    "CloseIO": (messages.CloseIORequest, "close_io"),
    "Pause": (messages.TaskRequest, "pause"),
    "Resume": (messages.TaskRequest, "resume"),
    "Update": (messages.UpdateTaskRequest, "update"),
    "Stats": (messages.TaskRequest, "stats"),
    "Connect": (messages.TaskRequest, "connect"),
    "Checkpoint": (messages.CheckpointTaskRequest, "checkpoint"),
    "Shutdown": (messages.ShutdownRequest, "shutdown"),
}
"""What `TaskService` serves, by the names of the wire."""


class TaskService:
    """Serves the containers of one shim: one, or all of a pod."""

    def __init__(self, inventory: Inventory, on_shutdown: Callable[[], None]) -> None:
        self._inventory = inventory
        self._shim = inventory.shim
        self._on_shutdown = on_shutdown

    async def create(self, request: messages.CreateTaskRequest) -> messages.PidResponse:
        """Create a container."""
        check_identifier("container", request.id)
        self._inventory.require_new(request.id)
        if not is_absolute_directory(request.bundle):
            raise InvalidArgument(f"bundle {request.bundle[:200]!r} is not a directory with an absolute path")
        if request.checkpoint and not is_absolute_directory(request.checkpoint):
            raise InvalidArgument(f"checkpoint {request.checkpoint[:200]!r} is not a directory with an absolute path")
        options = runc_options(request.options)
        if options.shim_cgroup:
            for pid in {self._shim.pid, os.getpid()}:
                placement.join(options.shim_cgroup, pid)
        names = request.stdin, request.stdout, request.stderr, request.terminal
        container = Container(self._shim, request.id, request.bundle, names, options)
        await self._inventory.create(container, request)
        return messages.PidResponse(pid=container.init.pid)

    async def start(self, request: messages.ProcessRequest) -> messages.PidResponse:
        """Start init or an exec."""
        return messages.PidResponse(pid=await self._inventory.container(request.id).start(request.exec_id))

    async def state(self, request: messages.ProcessRequest) -> messages.StateResponse:
        """Describe a process."""
        container, process = self._inventory.process(request)
        streams = process.streams
        return messages.StateResponse(
            id=container.id,
            bundle=container.bundle,
            pid=process.pid,
            status=container.status(process),
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=streams.terminal,
            exit_status=process.exit_status,
            exited_at=messages.timestamp(process.exited_at),
            exec_id=process.exec_id,
        )

    async def wait(self, request: messages.ProcessRequest) -> messages.WaitResponse:
        """Return when a process has ended."""
        container, process = self._inventory.process(request)
        await process.exited.rest()
        if not process.exited_at:
            name = (
                f"exec {process.exec_id} of container {container.id}"
                if process.exec_id
                else f"container {container.id}"
            )
            raise NotFound(f"{name} was deleted before it was started")
        return messages.WaitResponse(exit_status=process.exit_status, exited_at=messages.timestamp(process.exited_at))

    async def delete(self, request: messages.ProcessRequest) -> messages.DeleteResponse:
        """Delete a container or an exec."""
        container, process = self._inventory.process(request)
        if process.exec_id:
            await container.execs.delete(process)
        else:
            await self._inventory.delete(container)
        return messages.DeleteResponse(
            pid=process.pid, exit_status=process.exit_status, exited_at=messages.timestamp(process.exited_at)
        )

    async def kill(self, request: messages.KillRequest) -> None:
        """Send a signal."""
        container = self._inventory.container(request.id)
        await container.kill(container.process(request.exec_id), request.signal, request.all)

    async def exec(self, request: messages.ExecProcessRequest) -> None:
        """Add an exec."""
        self._inventory.container(request.id).execs.add(request)

    async def pids(self, request: messages.TaskRequest) -> messages.PidsResponse:
        """List the processes in the container's cgroup."""
        container = self._running(request.id)
        execs = {process.pid: exec_id for exec_id, process in container.execs.by_id.items()}
        return messages.PidsResponse(
            processes=tuple(
                messages.ProcessInfo(pid=pid, info=messages.pack(messages.ProcessDetails(exec_id=execs[pid])))
                if pid in execs
                else messages.ProcessInfo(pid=pid)
                for pid in container.runtime.pids(container.init.pid)
            )
        )

    async def resize_pty(self, request: messages.ResizePtyRequest) -> None:
        """Set the size of a process's terminal."""
        self._inventory.container(request.id).process(request.exec_id).streams.resize(request.width, request.height)

    async def close_io(self, request: messages.CloseIORequest) -> None:
        """Close the shim's own end of a process's input."""
        process = self._inventory.container(request.id).process(request.exec_id)
        if request.stdin:
            process.streams.close_stdin()

    async def pause(self, request: messages.TaskRequest) -> None:
        """Freeze a container."""
        await self._inventory.container(request.id).pause()

    async def resume(self, request: messages.TaskRequest) -> None:
        """Thaw a container."""
        await self._inventory.container(request.id).resume()

    async def update(self, request: messages.UpdateTaskRequest) -> None:
        """Change resource limits."""
        await self._inventory.container(request.id).update(request.resources.value)

    async def stats(self, request: messages.TaskRequest) -> messages.StatsResponse:
        """Measure the container's cgroup."""
        container = self._running(request.id)
        return messages.StatsResponse(stats=container.runtime.metrics(container.init.pid))

    async def connect(self, request: messages.TaskRequest) -> messages.ConnectResponse:
        """Return the pids of the shim and of init, 0 for a container that is not known."""
        container = self._inventory.containers.get(request.id)
        return messages.ConnectResponse(shim_pid=self._shim.pid, task_pid=container.init.pid if container else 0)

    async def checkpoint(self, request: messages.CheckpointTaskRequest) -> None:
        """Write the state of all processes to a directory."""
        await self._inventory.container(request.id).checkpoint(request)

    async def shutdown(self, _request: messages.ShutdownRequest) -> None:
        """End the shim, unless it has containers."""
        if self._inventory.vacant:
            self._on_shutdown()

    def _running(self, id: str) -> Container:
        container = self._inventory.container(id)
        if container.init.exited.is_set:
            raise NotFound(f"cgroup of container {id} is gone: its process has ended")
        return container


def is_absolute_directory(path: str) -> bool:
    """Return whether a directory is there under an absolute path."""
    return path.startswith("/") and disk.exists(f"{path}/")
