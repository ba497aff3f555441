"""Containers that run are watched until they have ended; their ends are recorded and told (docs/containerd 5.6)."""

from __future__ import annotations

import asyncio
import logging
import signal
import time

from windlass.contracts.tasks import Exit
from windlass.errors import Error, FailedPrecondition, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.containers.processio import ProcessIO
from windlass_cri.events import Events
from windlass_cri.hooks.steps import PodSteps
from windlass_cri.record import Container
from windlass_cri.stats.cgroups import groups, oom_kills
from windlass_local import tasks
from windlass_local.inside import LocalNamespace
from windlass_local.waiting import unless_gone
from windlass_oci.payloads import spec_of

logger = logging.getLogger(__name__)

UNKNOWN_EXIT = 255
KILL_TIMEOUT = 30.0
DRAIN = 2.0
"""Seconds that streams may be open after the first process has ended."""


class Ends:
    """The ends of all containers. Owns the streams of those that run."""

    def __init__(self, namespace: LocalNamespace, events: Events, steps: PodSteps) -> None:
        """Watch none yet."""
        self._namespace = namespace
        self._events = events
        self._steps = steps
        self._io: dict[str, ProcessIO] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def io(self, id: str) -> ProcessIO:
        """Return the streams of a container. Raises Unknown for one that does not run."""
        try:
            return self._io[id]
        except KeyError:
            raise Unknown("container is not running") from None

    def keep(self, id: str, io: ProcessIO) -> None:
        """Own the streams of a container until it has ended."""
        self._io[id] = io

    def watch(self, container: Container, waiting: asyncio.Task[Exit]) -> None:
        """Notice the end of a container, which ``waiting`` waits for."""
        self._tasks[container.id] = asyncio.create_task(self._until_ended(container, waiting))

    def of(self, id: str) -> asyncio.Task[None] | None:
        """Return what is done once a container has ended and all know; None for one that was never watched."""
        return self._tasks.get(id)

    def forget(self, id: str) -> None:
        """Know nothing of a container that is removed."""
        self._tasks.pop(id, None)

    async def _until_ended(self, container: Container, waiting: asyncio.Task[Exit]) -> None:
        """Notice the end of a container, and tell."""
        try:
            ended = await waiting
        except Error as error:
            logger.warning("container %s cannot be watched: %s", container.id, error)
            is_recorded = self.record(container, time.time_ns(), UNKNOWN_EXIT, "Unknown", str(error))
        else:
            if await asyncio.to_thread(oom_kills, await self._groups(container)):
                container.oom_killed()
            await self.end_io(container.id, drain=True)
            reason = container.status.reason or ("Error" if ended.status else "Completed")
            is_recorded = self.record(container, ended.at or time.time_ns(), ended.status, reason)
        if is_recorded:
            await self.withdraw_task(container.id)
        self._events.container(container, cri.CONTAINER_STOPPED_EVENT)
        self._steps.container_ended(container)

    def record(self, container: Container, at: int, code: int, reason: str, message: str = "") -> bool:
        """Let a container have exited. Return whether a next daemon knows as well: a full disk must not hold up ends.

        If not, the task is to stay, which tells that daemon.
        """
        try:
            container.change(finished_at=at, exit_code=code, reason=reason, message=message)
        except OSError as error:
            logger.warning("that container %s has exited with %d is not on the disk: %s", container.id, code, error)
            return False
        return True

    async def end_io(self, id: str, *, drain: bool) -> None:
        """Let go of the streams of a container; before, if ``drain``, read what is still in them."""
        io = self._io.get(id)
        if io is None:
            return
        if drain:
            io.process_has_ended()
        if drain and not await io.drained(DRAIN):
            # Processes that outlived the first one, in a PID namespace that is not theirs, still have its streams.
            await unless_gone(self._kill_all(id))
            await io.drained(KILL_TIMEOUT)
        self._io.pop(id, None)
        await io.close()

    async def withdraw_task(self, id: str) -> None:
        """End and remove a task; one that cannot be stays, and the log says so."""
        try:
            await unless_gone(tasks.remove(self._namespace.tasks, id, force=True))
        except Error as error:
            logger.warning("the task of container %s stays: %s", id, error)

    async def _groups(self, container: Container) -> list[str]:
        """Return the directories of a container's control group."""
        try:
            return groups(container.id, spec_of(await self._namespace.containers.get(container.id)))
        except Error:
            return []

    async def _kill_all(self, id: str) -> None:
        try:
            await self._namespace.tasks.kill(id, signal.SIGKILL, all=True)
        except FailedPrecondition:
            pass  # all have ended
        except Error as error:
            logger.warning("what container %s has left cannot be killed: %s", id, error)

    async def close(self) -> None:
        """Let go of every container; they go on."""
        for task in self._tasks.values():
            task.cancel()
        for io in list(self._io.values()):
            await io.let_go()
