"""The tasks service: started containers, their processes, and the client's part in keeping their exits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any as AnyMessage

from windlass.errors import Error, Unavailable
from windlass_api.containerd.services.tasks.v1 import tasks_pb2 as pb
from windlass_api.containerd.services.tasks.v1.tasks_pb2_grpc import TasksStub
from windlass_api.containerd.types.mount_pb2 import Mount
from windlass_api.containerd.v1.types.task_pb2 import Process, ProcessInfo
from windlass_client.connection import Connection

if TYPE_CHECKING:
    from windlass.contracts.tasks import IO
    from windlass_api.containerd.types.metrics_pb2 import Metric

RESTART = 20.0
"""How long a daemon that has gone may take to come back before a wait gives up."""


HOOK = "windlass-hook: "
"""What precedes the words of our own hook in an OCI runtime's error."""


class Tasks:
    """Tasks of the namespace; an empty ``exec_id`` is the task's first process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = TasksStub(connection.channel)

    async def create(self, id: str, rootfs: Sequence[Mount], streams: IO, options: AnyMessage | None = None) -> int:
        """Create the task of a container, not yet running, and return its pid."""
        request = pb.CreateTaskRequest(
            container_id=id,
            rootfs=rootfs,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=streams.terminal,
            options=options,
        )
        try:
            return (await self._connection.call(self._stub.Create, request)).pid
        except Error as error:
            raise _plain(id, error) from None

    async def exec(self, id: str, exec_id: str, process: AnyMessage, streams: IO) -> None:
        """Add a process to a task, not yet running."""
        request = pb.ExecProcessRequest(
            container_id=id,
            exec_id=exec_id,
            spec=process,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=streams.terminal,
        )
        await self._connection.call(self._stub.Exec, request)

    async def start(self, id: str, exec_id: str = "") -> int:
        """Start a process and return its pid."""
        return (await self._connection.call(self._stub.Start, pb.StartRequest(container_id=id, exec_id=exec_id))).pid

    async def wait(self, id: str, exec_id: str = "") -> int:
        """Wait for a process's end and return its exit status, as `ended` does."""
        return (await self.ended(id, exec_id)).exit_status

    async def ended(self, id: str, exec_id: str = "") -> pb.WaitResponse:
        """Wait for a process's end, and for a daemon that restarts meanwhile, for at most `RESTART` seconds."""
        request = pb.WaitRequest(container_id=id, exec_id=exec_id)
        loop = asyncio.get_running_loop()
        gone_since = 0.0
        while True:
            began = loop.time()
            try:
                return await self._connection.call(self._stub.Wait, request, None)
            except Unavailable:
                now = loop.time()
                # A wait that lasted means that the daemon had been back in between.
                gone_since = now if not gone_since or now - began > 1 else gone_since
                if now - gone_since > RESTART:
                    raise
            await asyncio.sleep(0.2)

    async def get(self, id: str, exec_id: str = "") -> Process:
        """Return the state of a process. Raises NotFound."""
        request = pb.GetRequest(container_id=id, exec_id=exec_id)
        return (await self._connection.call(self._stub.Get, request)).process

    async def list(self) -> Sequence[Process]:
        """Return the first process of every task."""
        return (await self._connection.call(self._stub.List, pb.ListTasksRequest())).tasks

    async def pids(self, id: str) -> Sequence[ProcessInfo]:
        """Return every process in a task."""
        return (await self._connection.call(self._stub.ListPids, pb.ListPidsRequest(container_id=id))).processes

    async def kill(self, id: str, signal: int, exec_id: str = "", all: bool = False) -> None:
        """Send a signal to a process, or to every process of the task. Raises NotFound when it is gone."""
        request = pb.KillRequest(container_id=id, exec_id=exec_id, signal=signal, all=all)
        await self._connection.call(self._stub.Kill, request)

    async def resize(self, id: str, exec_id: str, width: int, height: int) -> None:
        """Set the size of a process's terminal."""
        request = pb.ResizePtyRequest(container_id=id, exec_id=exec_id, width=width, height=height)
        await self._connection.call(self._stub.ResizePty, request)

    async def close_stdin(self, id: str, exec_id: str = "") -> None:
        """Let a process see the end of its standard input."""
        request = pb.CloseIORequest(container_id=id, exec_id=exec_id, stdin=True)
        await self._connection.call(self._stub.CloseIO, request)

    async def pause(self, id: str) -> None:
        """Freeze every process of a task."""
        await self._connection.call(self._stub.Pause, pb.PauseTaskRequest(container_id=id))

    async def resume(self, id: str) -> None:
        """Thaw a task."""
        await self._connection.call(self._stub.Resume, pb.ResumeTaskRequest(container_id=id))

    async def delete(self, id: str) -> pb.DeleteResponse:
        """Delete a stopped task and return how it ended. Raises NotFound."""
        return await self._connection.call(self._stub.Delete, pb.DeleteTaskRequest(container_id=id))

    async def delete_exec(self, id: str, exec_id: str) -> pb.DeleteResponse:
        """Delete a stopped process that was added, and return how it ended."""
        request = pb.DeleteProcessRequest(container_id=id, exec_id=exec_id)
        return await self._connection.call(self._stub.DeleteProcess, request)

    async def metrics(self, *filters: str) -> Sequence[Metric]:
        """Return what the tasks use that match one of the filters, in messages of the control groups' version."""
        return (await self._connection.call(self._stub.Metrics, pb.MetricsRequest(filters=filters))).metrics

    async def update(self, id: str, resources: AnyMessage) -> None:
        """Change the limits of a task. Raises NotFound."""
        await self._connection.call(self._stub.Update, pb.UpdateTaskRequest(container_id=id, resources=resources))


def _plain(id: str, error: Error) -> Error:
    """Return the error of a hook without what daemon, shim and runtime say around it; another error as it is."""
    # containerd puts the class of an error that it does not know behind it.
    reason = str(error).partition(HOOK)[2].removesuffix(": unknown")
    return type(error)(f"container {id}: {reason.strip()}") if reason else error
