"""Has the mount manager make those of a task's mounts that a shim cannot, such as layers in files (reference 3.19)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from windlass.activations import LABEL_BACK_REFERENCE, ActivateOptions, MountManager
from windlass.errors import AlreadyExists, Error, NotFound
from windlass.gate import offload
from windlass.mounts import Mount

logger = logging.getLogger(__name__)


class Rootfs:
    """The mounts of tasks that are active, under names of their own; for use on the loop."""

    def __init__(self, manager: MountManager | None) -> None:
        """Without a mount manager shims get all mounts as they are."""
        self._manager = manager

    @contextlib.asynccontextmanager
    async def active(self, namespace: str, id: str, mounts: tuple[Mount, ...]) -> AsyncIterator[tuple[Mount, ...]]:
        """Yield the mounts for the shim of a task that is being created; should that fail, nothing stays active."""
        if not mounts or self._manager is None or not await offload(self._manager.handles, mounts):
            yield mounts
            return
        system = await self._activate(self._manager, namespace, id, mounts)
        try:
            yield system
        except BaseException:
            await self.release(namespace, id)
            raise

    async def release(self, namespace: str, id: str) -> None:
        """Deactivate what a task that is gone has had; what fails is left to garbage collection."""
        if self._manager is None:
            return
        try:
            await offload(self._manager.deactivate, namespace, _name(id))
        except NotFound:
            pass
        except Error as error:
            logger.warning("task %s: its mounts stay until garbage collection: %s", id, error)

    async def _activate(
        self, manager: MountManager, namespace: str, id: str, mounts: tuple[Mount, ...]
    ) -> tuple[Mount, ...]:
        options = ActivateOptions(labels={f"{LABEL_BACK_REFERENCE}container": id})
        try:
            return (await offload(manager.activate, namespace, _name(id), mounts, options)).system
        except AlreadyExists:
            # Of a task that ended while no daemon was there: whoever creates has the task's name for itself.
            await offload(manager.deactivate, namespace, _name(id))
            return (await offload(manager.activate, namespace, _name(id), mounts, options)).system


def _name(id: str) -> str:
    """Return a name that no client is likely to use."""
    return f"tasks/{id}"
