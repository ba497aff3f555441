"""The task manager: what the daemon answers when it is asked about tasks (docs/containerd 3.11)."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import json
import posixpath
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from windlass import tracing
from windlass.contracts.containers import Container, ContainerHooks
from windlass.contracts.tasks import IO, CreateOptions, Exit, Metric, Process, ProcessInfo, Resources, Status, Tasks
from windlass.contracts.values import Payload, check_identifier
from windlass.errors import DeadlineExceeded, Error, InvalidArgument, NotFound, Unavailable
from windlass.hooks import Hooks
from windlass.typing import override
from windlass_api.containerd.task.v3 import shim_pb2 as pb
from windlass_api.containerd.types.introspection_pb2 import RuntimeInfo
from windlass_runtime_v2 import wire
from windlass_runtime_v2.lifecycle import Lifecycle, spec_of
from windlass_runtime_v2.recovery import Recovery
from windlass_runtime_v2.shared import Shared
from windlass_runtime_v2.task import Task, now

M = TypeVar("M", bound=Message)
R = TypeVar("R")


class ShimTasks(Tasks):
    """The task manager of this daemon: every task is kept by a shim."""

    def __init__(self, lifecycle: Lifecycle, recovery: Recovery, hooks: Hooks) -> None:
        """Answer from what ``lifecycle`` knows, after ``recovery`` has found what was there before."""
        self._lifecycle = lifecycle
        self._recovery = recovery
        self._hooks = hooks
        self._deadlines = lifecycle.deadlines

    @override
    async def create(self, namespace: str, container: Container, options: CreateOptions) -> int:
        # A client that goes away meanwhile gets no task.
        check_identifier("namespace", namespace)
        check_identifier("task", container.id)
        tracing.touch(f"{namespace}/{container.id}/tasks/create")
        await self._recovery.wait_for(namespace, container.id)
        spec = await self._spec(namespace, container)
        job = self._lifecycle.jobs.start(self._lifecycle.create(namespace, container, options, spec))
        try:
            task = await Shared(job).result()
        except asyncio.CancelledError:
            self._lifecycle.jobs.start(self._undo(job))
            raise
        finally:
            del job  # an error's traceback has this frame, and the job has the error
        return task.pids[""]

    @override
    async def start(self, namespace: str, id: str, exec_id: str = "") -> int:
        task = await self._find(namespace, id)
        request = pb.StartRequest(id=id, exec_id=exec_id)
        async with self._clean_after(task):
            answer = await task.call("Start", request, pb.StartResponse, self._deadlines.request)
        task.pids[exec_id] = answer.pid
        return answer.pid

    @override
    async def delete(self, namespace: str, id: str) -> Exit:
        # Every client that asks while it is being deleted gets the same answer.
        task = await self._find(namespace, id)
        if task.deletion is None or task.deletion.job.done():
            task.deletion = Shared(self._lifecycle.jobs.start(self._lifecycle.delete(task)))
        return await task.deletion.result()

    @override
    async def delete_process(self, namespace: str, id: str, exec_id: str) -> Exit:
        task = await self._find(namespace, id)
        check_identifier("exec", exec_id)
        request = pb.DeleteRequest(id=id, exec_id=exec_id)
        async with self._clean_after(task):
            answer = await task.call("Delete", request, pb.DeleteResponse, self._deadlines.request)
        task.forget(exec_id)
        return wire.exit_of(answer, answer.pid)

    @override
    async def get(self, namespace: str, id: str, exec_id: str = "") -> Process:
        # A shim that fails otherwise makes the status UNKNOWN.
        task = await self._find(namespace, id)
        async with self._clean_after(task):
            return await self._state(task, exec_id)

    @override
    async def list(self, namespace: str) -> builtins.list[Process]:
        before = set(self._in(namespace))
        await self._recovery.wait_for_all(namespace)
        # What was found while this call waited needs no second question: each would be a fork of a shim at rest.
        found = await asyncio.gather(
            *(self._state(task, "", None if task in before else task.found) for task in self._in(namespace)),
            return_exceptions=True,
        )
        return _results(found)

    @override
    async def kill(self, namespace: str, id: str, exec_id: str, signal: int, all: bool = False) -> None:
        request = pb.KillRequest(id=id, exec_id=exec_id, signal=signal, all=all)
        await self._ask(namespace, id, "Kill", request, Empty, self._deadlines.request)

    @override
    async def exec(self, namespace: str, id: str, exec_id: str, spec: Payload, io: IO) -> None:
        check_identifier("exec", exec_id)
        task = await self._find(namespace, id)
        _json_object(f"process of exec {exec_id}", spec.value)
        request = wire.exec_request(id, exec_id, spec, io)
        async with self._clean_after(task):
            await task.call("Exec", request, Empty, self._deadlines.request)

    @override
    async def resize_pty(self, namespace: str, id: str, exec_id: str, width: int, height: int) -> None:
        request = pb.ResizePtyRequest(id=id, exec_id=exec_id, width=width, height=height)
        await self._ask(namespace, id, "ResizePty", request, Empty, self._deadlines.request)

    @override
    async def close_stdin(self, namespace: str, id: str, exec_id: str) -> None:
        request = pb.CloseIORequest(id=id, exec_id=exec_id, stdin=True)
        await self._ask(namespace, id, "CloseIO", request, Empty, self._deadlines.request)

    @override
    async def pause(self, namespace: str, id: str) -> None:
        await self._ask(namespace, id, "Pause", pb.PauseRequest(id=id), Empty, self._deadlines.request)

    @override
    async def resume(self, namespace: str, id: str) -> None:
        await self._ask(namespace, id, "Resume", pb.ResumeRequest(id=id), Empty, self._deadlines.request)

    @override
    async def pids(self, namespace: str, id: str) -> builtins.list[ProcessInfo]:
        answer = await self._ask(namespace, id, "Pids", pb.PidsRequest(id=id), pb.PidsResponse, self._deadlines.request)
        return wire.processes_of(answer)

    @override
    async def checkpoint(self, namespace: str, id: str, path: str, options: Payload | None) -> None:
        request = pb.CheckpointTaskRequest(id=id, path=path, options=wire.any_of(options))
        await self._ask(namespace, id, "Checkpoint", request, Empty, self._deadlines.checkpoint)

    @override
    async def update(self, namespace: str, id: str, resources: Resources) -> None:
        request = pb.UpdateTaskRequest(
            id=id, resources=wire.any_of(resources.resources), annotations=dict(resources.annotations)
        )
        await self._ask(namespace, id, "Update", request, Empty, self._deadlines.request)

    @override
    async def metrics(self, namespace: str, ids: Sequence[str] = ()) -> builtins.list[Metric]:
        await self._recovery.wait_for_all(namespace)
        wanted = [task for task in self._in(namespace) if not ids or task.id in ids]
        return _results(await asyncio.gather(*(self._stats(task) for task in wanted), return_exceptions=True))

    @override
    async def wait(self, namespace: str, id: str, exec_id: str = "") -> Exit:
        return await (await self._find(namespace, id)).wait(exec_id)

    @override
    async def describe(self, runtime: str, options: Payload | None = None) -> Payload:
        found = await self._lifecycle.launcher.describe(runtime, options)
        return Payload(RuntimeInfo.DESCRIPTOR.full_name, found)

    async def _find(self, namespace: str, id: str) -> Task:
        task = self._lifecycle.tasks.get((namespace, id))
        if task is None:
            await self._recovery.wait_for(namespace, id)
            task = self._lifecycle.tasks.get((namespace, id))
        if task is None:
            raise NotFound(f"task {id[:80]} does not exist")
        return task

    async def _ask(
        self, namespace: str, id: str, method: str, request: Message, answer: type[M], timeout: float | None
    ) -> M:
        task = await self._find(namespace, id)
        async with self._clean_after(task):
            return await task.call(method, request, answer, timeout)

    @contextlib.asynccontextmanager
    async def _clean_after(self, task: Task) -> AsyncIterator[None]:
        """Ask a task; when its shim turns out to be dead, wait until that is cleaned up, and raise NotFound."""
        try:
            yield
        except Unavailable as error:
            if not task.shim.gone.done():
                raise
            await self._lifecycle.end_of(task)
            raise NotFound(f"task {task.id} does not exist: its shim has died") from error

    def _in(self, namespace: str) -> builtins.list[Task]:
        return [task for (found, _), task in self._lifecycle.tasks.items() if found == namespace]

    async def _state(self, task: Task, exec_id: str, answer: pb.StateResponse | None = None) -> Process:
        if self._lifecycle.runs_on(task):
            return Process(task.id, exec_id, task.pids.get(exec_id, 0), Status.UNKNOWN, bundle=str(task.bundle.path))
        request = pb.StateRequest(id=task.id, exec_id=exec_id)
        try:
            if answer is None:
                answer = await task.call("State", request, pb.StateResponse, self._deadlines.state)
        except (NotFound, Unavailable, DeadlineExceeded):
            raise
        except Error:
            return Process(task.id, exec_id, task.pids.get(exec_id, 0), Status.UNKNOWN, bundle=str(task.bundle.path))
        return wire.process_of(answer, task.id, exec_id)

    async def _stats(self, task: Task) -> Metric:
        answer = await task.call("Stats", pb.StatsRequest(id=task.id), pb.StatsResponse, self._deadlines.stats)
        return Metric(now(), task.id, wire.payload_of(answer.stats))

    async def _spec(self, namespace: str, container: Container) -> bytes:
        spec = spec_of(container)
        value = _json_object(f"spec of container {container.id}", spec.value)
        refuse_root_cgroup(container.id, value)
        if not self._hooks.wanted(ContainerHooks.adjust_spec):
            return spec.value
        await self._hooks.call(ContainerHooks.adjust_spec, namespace, container, value)
        return json.dumps(value).encode()

    async def _undo(self, creation: asyncio.Task[Task]) -> None:
        """Remove a task whose creator has gone away: no client would remove it."""
        await asyncio.wait({creation})
        if not creation.cancelled() and creation.exception() is None:
            await self._lifecycle.take_back(creation.result())


def _json_object(what: str, text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArgument(f"{what} is not a JSON object")
    return value


def refuse_root_cgroup(id: str, spec: dict[str, object]) -> None:
    """Raise InvalidArgument for a container in the host's root cgroup: its end would be that of every process.

    An OCI runtime may kill all that is in a container's cgroup; crun does.
    """
    linux = spec.get("linux")
    path = linux.get("cgroupsPath") if isinstance(linux, dict) else None
    if isinstance(path, str) and path and posixpath.normpath(f"/{path}").strip("/") == "":
        raise InvalidArgument(
            f"container {id} would be in the host's root cgroup; name another one in linux.cgroupsPath"
        )


def _results(found: Sequence[R | BaseException]) -> list[R]:
    """Leave out what could not be asked; anything but an error of ours is a defect."""
    for result in found:
        if isinstance(result, BaseException) and not isinstance(result, Error):
            raise result
    return [result for result in found if not isinstance(result, BaseException)]
