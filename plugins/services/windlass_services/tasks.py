"""The Tasks service."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from windlass.contracts.checkpoints import Checkpoints
from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call
from windlass.contracts.tasks import IO, CreateOptions, Exit, Process, Resources, Tasks
from windlass.contracts.values import Payload
from windlass.errors import InvalidArgument, Unimplemented
from windlass.gate import offload
from windlass_api.containerd.runc.v1 import options_pb2
from windlass_api.containerd.services.tasks.v1 import tasks_pb2 as pb
from windlass_api.containerd.types import metrics_pb2
from windlass_api.containerd.v1.types import task_pb2
from windlass_remote.messages import from_any, from_descriptor, from_mounts, to_any, to_descriptor, to_timestamp

RESTORE_FROM_PATH = "RestoreFromPath"
"""Annotation of a descriptor by which the CRI of containerd 2 restored from a directory of its own."""


def to_proto(process: Process) -> task_pb2.Process:
    """Return a process as a message."""
    return task_pb2.Process(
        container_id=process.container_id,
        id=process.exec_id or process.container_id,
        pid=process.pid,
        status=task_pb2.Status.ValueType(process.status),
        stdin=process.io.stdin,
        stdout=process.io.stdout,
        stderr=process.io.stderr,
        terminal=process.io.terminal,
        exit_status=process.exit_status,
        exited_at=to_timestamp(process.exited_at),
    )


def _deleted(id: str, exit: Exit) -> pb.DeleteResponse:
    return pb.DeleteResponse(id=id, pid=exit.pid, exit_status=exit.status, exited_at=to_timestamp(exit.at))


class TasksService:
    """``containerd.services.tasks.v1.Tasks``."""

    def __init__(self, tasks: Tasks, metadata: Metadata, checkpoints: Checkpoints | None = None) -> None:
        """Translate for ``tasks``; containers are looked up in ``metadata``, and None answers UNIMPLEMENTED."""
        self._tasks = tasks
        self._given_checkpoints = checkpoints
        self._metadata = metadata

    async def create(self, request: pb.CreateTaskRequest, call: Call) -> pb.CreateTaskResponse:
        """Create a container's task."""
        namespace = call.namespace
        container = await offload(self._metadata.containers(namespace).get, request.container_id)
        options = CreateOptions(
            rootfs=from_mounts(request.rootfs),
            io=IO(request.stdin, request.stdout, request.stderr, request.terminal),
            options=from_any(request.options),
            checkpoint=criu_image_path(request.options),
            runtime_path=request.runtime_path,
            task_api_address=request.task_api_address,
            task_api_version=request.task_api_version,
        )
        if request.HasField("checkpoint") and not options.checkpoint:
            desc = from_descriptor(request.checkpoint)
            if RESTORE_FROM_PATH in desc.annotations:
                raise Unimplemented(f"annotation {RESTORE_FROM_PATH}; give runc's option CriuImagePath instead")
            pid = await self._checkpoints.restore(namespace, container, options, desc)
        else:
            pid = await self._tasks.create(namespace, container, options)
        return pb.CreateTaskResponse(container_id=container.id, pid=pid)

    async def start(self, request: pb.StartRequest, call: Call) -> pb.StartResponse:
        """Start a process."""
        return pb.StartResponse(pid=await self._tasks.start(call.namespace, request.container_id, request.exec_id))

    async def delete(self, request: pb.DeleteTaskRequest, call: Call) -> pb.DeleteResponse:
        """Delete a task."""
        return _deleted(request.container_id, await self._tasks.delete(call.namespace, request.container_id))

    async def delete_process(self, request: pb.DeleteProcessRequest, call: Call) -> pb.DeleteResponse:
        """Delete an exec."""
        exit = await self._tasks.delete_process(call.namespace, request.container_id, request.exec_id)
        return _deleted(request.exec_id, exit)

    async def get(self, request: pb.GetRequest, call: Call) -> pb.GetResponse:
        """Describe a process."""
        process = await self._tasks.get(call.namespace, request.container_id, request.exec_id)
        return pb.GetResponse(process=to_proto(process))

    async def list(self, request: pb.ListTasksRequest, call: Call) -> pb.ListTasksResponse:
        """Describe all tasks; the filter is ignored (docs/containerd 3.11)."""
        return pb.ListTasksResponse(tasks=map(to_proto, await self._tasks.list(call.namespace)))

    async def kill(self, request: pb.KillRequest, call: Call) -> Empty:
        """Send a signal."""
        await self._tasks.kill(call.namespace, request.container_id, request.exec_id, request.signal, request.all)
        return Empty()

    async def exec(self, request: pb.ExecProcessRequest, call: Call) -> Empty:
        """Add a process."""
        if not request.exec_id:
            raise InvalidArgument("exec ID must not be empty")
        io = IO(request.stdin, request.stdout, request.stderr, request.terminal)
        spec = Payload(request.spec.type_url, request.spec.value)
        await self._tasks.exec(call.namespace, request.container_id, request.exec_id, spec, io)
        return Empty()

    async def resize_pty(self, request: pb.ResizePtyRequest, call: Call) -> Empty:
        """Set a terminal's size."""
        await self._tasks.resize_pty(
            call.namespace, request.container_id, request.exec_id, request.width, request.height
        )
        return Empty()

    async def close_io(self, request: pb.CloseIORequest, call: Call) -> Empty:
        """Close a process's input."""
        if request.stdin:
            await self._tasks.close_stdin(call.namespace, request.container_id, request.exec_id)
        else:
            # As in containerd, it is an error also then when there is no such process.
            await self._tasks.get(call.namespace, request.container_id, request.exec_id)
        return Empty()

    async def pause(self, request: pb.PauseTaskRequest, call: Call) -> Empty:
        """Freeze a task."""
        await self._tasks.pause(call.namespace, request.container_id)
        return Empty()

    async def resume(self, request: pb.ResumeTaskRequest, call: Call) -> Empty:
        """Thaw a task."""
        await self._tasks.resume(call.namespace, request.container_id)
        return Empty()

    async def list_pids(self, request: pb.ListPidsRequest, call: Call) -> pb.ListPidsResponse:
        """Return a task's processes."""
        processes = await self._tasks.pids(call.namespace, request.container_id)
        return pb.ListPidsResponse(
            processes=[task_pb2.ProcessInfo(pid=each.pid, info=to_any(each.info)) for each in processes]
        )

    async def checkpoint(self, request: pb.CheckpointTaskRequest, call: Call) -> pb.CheckpointTaskResponse:
        """Write a task's state to the content store, or to the directory that the options name."""
        namespace = call.namespace
        container = await offload(self._metadata.containers(namespace).get, request.container_id)
        options, path = from_any(request.options), image_path(request.options)
        if path:
            await self._tasks.checkpoint(namespace, container.id, path, options)
            return pb.CheckpointTaskResponse()
        saved = await self._checkpoints.save(namespace, call.lease, container, options)
        return pb.CheckpointTaskResponse(descriptors=map(to_descriptor, saved))

    async def update(self, request: pb.UpdateTaskRequest, call: Call) -> Empty:
        """Change a task's limits."""
        payload = Payload(request.resources.type_url, request.resources.value)
        resources = Resources(payload, dict(request.annotations))
        await self._tasks.update(call.namespace, request.container_id, resources)
        return Empty()

    async def metrics(self, request: pb.MetricsRequest, call: Call) -> pb.MetricsResponse:
        """Measure tasks."""
        metrics = await self._tasks.metrics(call.namespace, _ids(request.filters))
        return pb.MetricsResponse(
            metrics=[
                metrics_pb2.Metric(timestamp=to_timestamp(each.timestamp), id=each.id, data=to_any(each.data))
                for each in metrics
            ]
        )

    async def wait(self, request: pb.WaitRequest, call: Call) -> pb.WaitResponse:
        """Return how a process ended."""
        exit = await self._tasks.wait(call.namespace, request.container_id, request.exec_id)
        return pb.WaitResponse(exit_status=exit.status, exited_at=to_timestamp(exit.at))

    @property
    def _checkpoints(self) -> Checkpoints:
        if self._given_checkpoints is None:
            raise Unimplemented("checkpoints as blobs: the plugin io.windlass.checkpoint.v1.blobs did not start")
        return self._given_checkpoints


def criu_image_path(options: AnyMessage) -> str:
    """Return the directory to restore from that a task's options name: it goes before a blob (docs/containerd 3.11)."""
    found = options_pb2.Options()
    return found.criu_image_path if _unpacked(options, found) else ""


def image_path(options: AnyMessage) -> str:
    """Return the directory that a checkpoint's options name. Raises InvalidArgument for options of another kind."""
    found = options_pb2.CheckpointOptions()
    if (options.type_url or options.value) and not _unpacked(options, found):
        raise InvalidArgument(f"checkpoint options of type {options.type_url[:100]!r} are not known")
    return found.image_path


def _unpacked(options: AnyMessage, into: Message) -> bool:
    """Parse options if they are of that kind; containerd's type names have no host before them."""
    if options.type_url.rpartition("/")[2] != into.DESCRIPTOR.full_name:
        return False
    try:
        into.ParseFromString(options.value)
    except DecodeError as error:
        raise InvalidArgument(f"options of type {into.DESCRIPTOR.full_name} cannot be parsed: {error}") from error
    return True


def _ids(expressions: Sequence[str]) -> list[str]:
    """Return the IDs that ``id==`` filters name; other filters than id and namespace never match.

    Source: docs/containerd 3.1.
    """
    ids = []
    for expression in expressions:
        for term in expression.split(","):
            field, _, value = term.partition("==")
            if field.strip() == "id":
                ids.append(value.strip().strip('"'))
    return ids
