"""Has the mount manager make those of a task's mounts that a shim cannot, such as layers in files.

Source: docs/containerd 3.19.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from windlass.contracts.activations import LABEL_BACK_REFERENCE, ActivateOptions, MountManager
from windlass.contracts.mounts import Mount
from windlass.errors import AlreadyExists, Error, NotFound
from windlass.gate import offload

logger = logging.getLogger(__name__)

HOLDER = f"{LABEL_BACK_REFERENCE}container"
"""Label by which a container keeps what is active from garbage collection."""


class Rootfs:
    """The mounts of tasks that are active, each under its container's ID, as in containerd; for use on the loop."""

    def __init__(self, manager: MountManager | None) -> None:
        """Without a mount manager shims get all mounts as they are."""
        self._manager = manager

    @contextlib.asynccontextmanager
    async def active(self, namespace: str, id: str, mounts: tuple[Mount, ...]) -> AsyncIterator[tuple[Mount, ...]]:
        """Yield the mounts for the shim of a task that is being created; should that fail, nothing stays active."""
        if not mounts or self._manager is None or not await offload(self._manager.handles, mounts):
            yield mounts
            return
        system, is_own = await self._activate(self._manager, namespace, id, mounts)
        try:
            yield system
        except BaseException:
            if is_own:
                await self.release(namespace, id)
            raise

    async def release(self, namespace: str, id: str) -> None:
        """Deactivate what a task that is gone has had; what fails is left to garbage collection."""
        if self._manager is None:
            return
        try:
            await offload(self._manager.deactivate, namespace, id)
        except NotFound:
            pass
        except Error as error:
            logger.warning("task %s: its mounts stay until garbage collection: %s", id, error)

    async def _activate(
        self, manager: MountManager, namespace: str, id: str, mounts: tuple[Mount, ...]
    ) -> tuple[tuple[Mount, ...], bool]:
        """Return the mounts for the shim, and whether what they build on was made for this creation."""
        options = ActivateOptions(labels={HOLDER: id})
        try:
            return (await offload(manager.activate, namespace, id, mounts, options)).system, True
        except AlreadyExists:
            with contextlib.suppress(NotFound):
                found = await offload(manager.info, namespace, id)
                if HOLDER not in found.labels:
                    # A client has made them ready for the task, as it may with containerd.
                    return found.system, False
        # Of a task that ended while no daemon was there: the caller holds the name, so no other creation is under way.
        await offload(manager.deactivate, namespace, id)
        return (await offload(manager.activate, namespace, id, mounts, options)).system, True
