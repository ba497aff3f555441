"""Tasks without a container: a daemon was killed while it took one back, or while its runtime still made it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from windlass.errors import Error
from windlass_local import tasks
from windlass_local.inside import LocalNamespace

logger = logging.getLogger(__name__)


async def end_orphans(namespace: LocalNamespace, sandboxes: Collection[str]) -> None:
    """End the tasks that have no record; those of ``sandboxes`` need none."""
    # In this order: other clients make the record first, then the task.
    running = await namespace.tasks.list()
    recorded = {row.id for row in await namespace.containers.list()}
    found = [each.container_id for each in running if each.container_id not in recorded]
    await asyncio.gather(*(_end(namespace, id) for id in found if id not in sandboxes))


async def _end(namespace: LocalNamespace, id: str) -> None:
    logger.info("task %s has no container and is ended", id)
    try:
        await tasks.remove(namespace.tasks, id, force=True)
    except Error as error:
        logger.warning("task %s, which has no container, stays: %s", id, error)
