"""Starts and ends the tasks of one namespace."""

from __future__ import annotations

import logging

from windlass.contracts.containers import Container
from windlass.contracts.metadata import Metadata
from windlass.contracts.mounts import Mount
from windlass.contracts.tasks import IO, CreateOptions, Tasks
from windlass.errors import Error, InvalidArgument, NotFound
from windlass_local.containers import LocalContainers
from windlass_local.snapshots import LocalSnapshots
from windlass_local.tasks import LocalTasks, kill
from windlass_local.waiting import unless_gone
from windlass_oci.payloads import spec_of
from windlass_restart.policy import COUNT, LOG_URI, next_count

logger = logging.getLogger(__name__)

MAX_URI = 4096


class Restarter:
    """Restarts containers of one namespace; nothing here has a deadline of its own."""

    def __init__(self, metadata: Metadata, tasks: Tasks, namespace: str) -> None:
        """Work in ``namespace``."""
        self._containers = LocalContainers(metadata.containers(namespace))
        self._snapshots = LocalSnapshots(metadata, namespace)
        self._tasks = LocalTasks(tasks, namespace)

    async def restart(self, container: Container) -> None:
        """Replace a container's task, if there is one, by a new one, and count that in a label."""
        options = CreateOptions(rootfs=await self._rootfs(container), io=log_streams(container))
        await self._containers.label(container.id, {COUNT: next_count(container.labels)})
        await self.end(container.id)
        await self._tasks.create(container, options)
        try:
            await self._tasks.start(container.id)
        except Error:
            await self.end(container.id)
            raise

    async def _rootfs(self, container: Container) -> tuple[Mount, ...]:
        if not container.snapshot_key:
            return ()
        return tuple(await self._snapshots.mounts(container.snapshotter, container.snapshot_key))

    async def end(self, id: str) -> None:
        """Kill a task and delete it, if there is one."""
        try:
            await kill(self._tasks, id, timeout=None)
        except NotFound:
            return
        except Error as error:
            logger.info("task %s: cannot be killed, is it stopped? %s", id, error)
        await unless_gone(self._tasks.delete(id))


def log_streams(container: Container) -> IO:
    """Return the streams of a restarted task: where its label says, or nowhere.

    Raises InvalidArgument for a label that is not a URI.
    """
    uri = container.labels.get(LOG_URI, "")
    # Only the scheme is checked here: the shim reads the rest, as it does when a client names a URI.
    if uri and (":" not in uri.partition("/")[0] or len(uri) > MAX_URI or "\0" in uri):
        raise InvalidArgument(f"label {LOG_URI} is {uri[:80]!r}, which is not a URI such as file:///var/log/box.log")
    terminal = _has_terminal(container)
    # A terminal has one output (docs/containerd 4.9).
    return IO(stdout=uri, stderr="" if terminal else uri, terminal=terminal)


def _has_terminal(container: Container) -> bool:
    try:
        return bool(spec_of(container)["process"].get("terminal"))
    except (InvalidArgument, KeyError, TypeError, AttributeError):
        # The runtime says in its own words what is wrong with the spec.
        return False
