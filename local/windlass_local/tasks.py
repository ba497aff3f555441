"""The tasks of a namespace, over the contract of runtimes, and how a task is ended."""

from __future__ import annotations

import asyncio
import signal

from windlass.contracts import tasks as contract
from windlass.contracts.containers import Container
from windlass.contracts.tasks import IO, CreateOptions, Exit, Process, Status
from windlass.contracts.values import Payload
from windlass.errors import FailedPrecondition, NotFound
from windlass.typing import override
from windlass_local.namespace import Tasks
from windlass_local.waiting import unless_gone

KILL_TIMEOUT = 10.0


class LocalTasks(Tasks):
    """Tasks of a runtime in one namespace."""

    def __init__(self, tasks: contract.Tasks, namespace: str) -> None:
        """Work in ``namespace``."""
        self._tasks = tasks
        self._namespace = namespace

    @override
    async def create(self, container: Container, options: CreateOptions) -> int:
        return await self._tasks.create(self._namespace, container, options)

    @override
    async def exec(self, id: str, exec_id: str, spec: Payload, io: IO) -> None:
        await self._tasks.exec(self._namespace, id, exec_id, spec, io)

    @override
    async def start(self, id: str, exec_id: str = "") -> int:
        return await self._tasks.start(self._namespace, id, exec_id)

    @override
    async def get(self, id: str, exec_id: str = "") -> Process:
        return await self._tasks.get(self._namespace, id, exec_id)

    @override
    async def wait(self, id: str, exec_id: str = "") -> Exit:
        return await self._tasks.wait(self._namespace, id, exec_id)

    @override
    async def kill(self, id: str, signal: int, exec_id: str = "", all: bool = False) -> None:
        await self._tasks.kill(self._namespace, id, exec_id, signal, all=all)

    @override
    async def resize(self, id: str, exec_id: str, width: int, height: int) -> None:
        await self._tasks.resize_pty(self._namespace, id, exec_id, width, height)

    @override
    async def close_stdin(self, id: str, exec_id: str = "") -> None:
        await self._tasks.close_stdin(self._namespace, id, exec_id)

    @override
    async def delete(self, id: str) -> Exit:
        return await self._tasks.delete(self._namespace, id)

    @override
    async def delete_exec(self, id: str, exec_id: str) -> Exit:
        return await self._tasks.delete_process(self._namespace, id, exec_id)

    async def list(self) -> list[Process]:
        """Describe every task of the namespace; one that cannot be asked is left out."""
        return await self._tasks.list(self._namespace)

    async def update(self, id: str, resources: contract.Resources) -> None:
        """Change a task's limits. Raises NotFound."""
        await self._tasks.update(self._namespace, id, resources)


async def kill(tasks: Tasks, id: str, timeout: float | None = KILL_TIMEOUT) -> None:
    """Kill every process of a task and wait for the end of the first, for at most ``timeout`` seconds.

    Raises NotFound if there is no such task.
    """
    # Before the signal: the end of a process that is deleted right after it would not be seen.
    waiting = asyncio.ensure_future(tasks.wait(id))
    try:
        try:
            await tasks.kill(id, signal.SIGKILL, all=True)
        except (NotFound, FailedPrecondition):
            pass  # it has ended
        await asyncio.wait([waiting], timeout=timeout)
        if waiting.done():
            waiting.result()
    finally:
        waiting.cancel()


async def remove(tasks: Tasks, id: str, force: bool = False) -> None:
    """Delete a container's task, if there is one. Raises FailedPrecondition if it runs, unless ``force`` kills it."""
    await unless_gone(_remove(tasks, id, force))


async def _remove(tasks: Tasks, id: str, force: bool) -> None:
    process = await tasks.get(id)
    if not _has_ended(process):
        if not force:
            state = process.status.name.lower()
            raise FailedPrecondition(f"container {id} is {state}; remove it with --force, which kills it")
        await kill(tasks, id)
    await tasks.delete(id)


def _has_ended(process: Process) -> bool:
    if process.status == Status.CREATED:
        return not process.pid
    return process.status in (Status.STOPPED, Status.UNKNOWN)
