"""Compares containers with their labels, again and again, and starts or ends their tasks (docs/containerd 3.20).

The work on one container has a deadline and delays no other one; the next round leaves out a container that is still
being worked on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from windlass.contracts.containers import Container
from windlass.contracts.metadata import Metadata
from windlass.contracts.tasks import Process, Status, Tasks
from windlass.errors import Error, NotFound
from windlass.gate import offload
from windlass_restart.policy import STATUS, WANT_RUNNING, is_settled, wants_restart
from windlass_restart.restarter import Restarter

logger = logging.getLogger(__name__)

ACTION_TIMEOUT = 60.0
AT_ONCE = 8
FILTER = f'labels."{STATUS}"'
NANOSECONDS = 1_000_000_000

Key = tuple[str, str]


class Monitor:
    """The restart monitor; for use on the loop."""

    def __init__(self, metadata: Metadata, tasks: Tasks, interval: float) -> None:
        """Look every ``interval`` seconds, once started."""
        self._metadata = metadata
        self._tasks = tasks
        self._interval = interval
        self._rounds: asyncio.Task[None] | None = None
        self._busy: dict[Key, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._created: set[Key] = set()
        """Tasks that the last round found created and not started."""

    async def start(self) -> None:
        """Begin to look; the first round is after one interval."""
        self._rounds = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop looking, and cancel the work that is under way."""
        jobs = [*self._busy.values(), *([self._rounds] if self._rounds else [])]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.look()
            except Error as error:
                logger.warning("cannot see which containers are to be restarted: %s", error)

    async def look(self) -> None:
        """Make one round; return when all the work that is needed has begun."""
        names = [each.name for each in await offload(self._metadata.namespaces().list)]
        await asyncio.gather(*(self._look_at(name) for name in names))

    async def _look_at(self, namespace: str) -> None:
        containers = await offload(self._metadata.containers(namespace).list, [FILTER])
        self._forget_created(namespace, containers)
        for container in containers:
            key = namespace, container.id
            if key not in self._busy:
                self._busy[key] = job = asyncio.create_task(self._tend(namespace, container))
                job.add_done_callback(lambda _, key=key: self._busy.pop(key))  # type: ignore[misc] # mypy #15459

    async def settle(self) -> None:
        """Return when the work of all rounds so far is done."""
        if self._busy:
            await asyncio.wait(tuple(self._busy.values()))

    async def _tend(self, namespace: str, container: Container) -> None:
        try:
            async with self._slots, asyncio.timeout(ACTION_TIMEOUT):
                await self._reconcile(namespace, container)
        except TimeoutError:
            logger.warning("container %s: restarting it took over %g s", container.id, ACTION_TIMEOUT)
        except Error as error:
            logger.warning("container %s: cannot be brought to what its labels ask for: %s", container.id, error)

    async def _reconcile(self, namespace: str, container: Container) -> None:
        wanted = container.labels[STATUS]
        process = await self._process(namespace, container.id)
        if process is None or process.status != Status.CREATED:
            self._created.discard((namespace, container.id))
        if is_settled(wanted, process):
            return
        if wanted != WANT_RUNNING:
            logger.info("container %s: stopped, as its label asks for", container.id)
            await self._restarter(namespace).end(container.id)
        elif wants_restart(container.labels, process) and not self._is_new(namespace, container, process):
            logger.info("container %s: restarted, as its labels ask for", container.id)
            await self._restarter(namespace).restart(container)

    def _restarter(self, namespace: str) -> Restarter:
        return Restarter(self._metadata, self._tasks, namespace)

    async def _process(self, namespace: str, id: str) -> Process | None:
        """Return a task's first process, None if there is no task. Raises Error for one that does not answer."""
        try:
            return await self._tasks.get(namespace, id)
        except NotFound:
            return None

    def _is_new(self, namespace: str, container: Container, process: Process | None) -> bool:
        """Return whether a client may be about to start the task itself; it has one interval for that."""
        if process is None:
            return time.time_ns() - container.created_at < self._interval * NANOSECONDS
        if process.status != Status.CREATED or (namespace, container.id) in self._created:
            return False
        self._created.add((namespace, container.id))
        return True

    def _forget_created(self, namespace: str, containers: Iterable[Container]) -> None:
        alive = {(namespace, container.id) for container in containers}
        self._created = {key for key in self._created if key[0] != namespace or key in alive}
