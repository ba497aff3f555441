"""Compares containers with their labels, again and again, and starts or ends their tasks (docs/containerd 3.20).

Whatever is done about one container has a deadline and delays no other one; a
container that is still being dealt with is left out of the next round.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from windlass.contracts.containers import Container
from windlass.contracts.metadata import Metadata
from windlass.contracts.mounts import Mount
from windlass.contracts.tasks import IO, CreateOptions, Process, Status, Tasks
from windlass.errors import Error, InvalidArgument, NotFound
from windlass.gate import offload
from windlass_restart.policy import (
    COUNT,
    LOG_URI,
    STATUS,
    WANT_RUNNING,
    is_settled,
    next_count,
    wants_restart,
)

logger = logging.getLogger(__name__)

ACTION_TIMEOUT = 60.0
AT_ONCE = 8
FILTER = f'labels."{STATUS}"'
NANOSECONDS = 1_000_000_000
MAX_URI = 4096

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
        """Tasks that the last round has found created and not started."""

    async def start(self) -> None:
        """Begin to look; the first time in one interval."""
        self._rounds = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop looking, and give up what is under way."""
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
        """Make one round; returns when everything that is to be done has begun."""
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
        """Return when what the rounds so far have begun is done."""
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
            await self._end(namespace, container.id)
        elif wants_restart(container.labels, process) and not self._is_new(namespace, container, process):
            logger.info("container %s: restarted, as its labels ask for", container.id)
            await self._restart(namespace, container)

    async def _process(self, namespace: str, id: str) -> Process | None:
        """Return a task's init, None when there is no task; one that does not answer is asked again next time."""
        try:
            return await self._tasks.get(namespace, id)
        except NotFound:
            return None

    def _is_new(self, namespace: str, container: Container, process: Process | None) -> bool:
        """Tell whether a client may be about to do itself what the label asks for: then it has an interval's time."""
        if process is None:
            return time.time_ns() - container.created_at < self._interval * NANOSECONDS
        if process.status != Status.CREATED or (namespace, container.id) in self._created:
            return False
        self._created.add((namespace, container.id))
        return True

    def _forget_created(self, namespace: str, containers: Iterable[Container]) -> None:
        alive = {(namespace, container.id) for container in containers}
        self._created = {key for key in self._created if key[0] != namespace or key in alive}

    async def _restart(self, namespace: str, container: Container) -> None:
        options = CreateOptions(rootfs=await self._rootfs(namespace, container), io=log_streams(container))
        store = self._metadata.containers(namespace)
        counted = Container(container.id, labels={COUNT: next_count(container.labels)})
        await offload(store.update, counted, [f"labels.{COUNT}"])
        await self._end(namespace, container.id)
        await self._tasks.create(namespace, container, options)
        try:
            await self._tasks.start(namespace, container.id)
        except Error:
            await self._end(namespace, container.id)
            raise

    async def _rootfs(self, namespace: str, container: Container) -> tuple[Mount, ...]:
        if not container.snapshot_key:
            return ()
        snapshotter = self._metadata.snapshotter(container.snapshotter, namespace)
        return await offload(snapshotter.mounts, container.snapshot_key)

    async def _end(self, namespace: str, id: str) -> None:
        """Kill a task and delete it; none is no error."""
        try:
            await _unless_gone(self._tasks.kill(namespace, id, "", signal.SIGKILL, all=True))
            await self._tasks.wait(namespace, id)
        except NotFound:
            return
        except Error as error:
            logger.info("task %s: cannot be killed, is it stopped? %s", id, error)
        await _unless_gone(self._tasks.delete(namespace, id))


# Any: what a coroutine is sent and yields is its own business, and its result is not used.
async def _unless_gone(call: Coroutine[Any, Any, object]) -> None:
    try:
        await call
    except NotFound:
        pass


def log_streams(container: Container) -> IO:
    """Return the streams of a restarted task: where its label says, or nowhere.

    Raises InvalidArgument for a label that is not a URI, or a spec that cannot be read.
    """
    uri = container.labels.get(LOG_URI, "")
    # A scheme is all that is asked for; the rest is the shim's to read, as it is when a client names it.
    if uri and (":" not in uri.partition("/")[0] or len(uri) > MAX_URI or "\0" in uri):
        raise InvalidArgument(f"label {LOG_URI} is {uri[:80]!r}, which is not a URI such as file:///var/log/box.log")
    terminal = _has_terminal(container)
    # A terminal has one output (docs/containerd 4.9).
    return IO(stdout=uri, stderr="" if terminal else uri, terminal=terminal)


def _has_terminal(container: Container) -> bool:
    try:
        process = json.loads(container.spec.value if container.spec else b"{}")["process"]
        return bool(process.get("terminal"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # The runtime says in its own words what is wrong with the spec.
        return False
