"""Notices that Linux has killed a process of a container for want of memory (docs/containerd/cri-facts, 44)."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

from google.protobuf.message import DecodeError

from windlass.contracts.events import Envelope, Exchange
from windlass.errors import Error
from windlass_api.containerd.events.task_pb2 import TaskOOM
from windlass_cri.containers.containers import Containers
from windlass_cri.record import NAMESPACE

logger = logging.getLogger(__name__)

FILTER = f'namespace=={NAMESPACE},topic=="/tasks/oom"'


class OomWatch:
    """Follows the shims' events: when the first process has ended, its control group may be gone already."""

    def __init__(self, exchange: Exchange, containers: Containers) -> None:
        """Watch nothing before `start`."""
        self._exchange = exchange
        self._containers = containers
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Subscribe, and return when no event will be missed."""
        subscribed = asyncio.Event()
        self._task = asyncio.create_task(self._follow(subscribed))
        await subscribed.wait()

    async def stop(self) -> None:
        """Follow no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self, subscribed: asyncio.Event) -> None:
        while True:
            async with AsyncExitStack() as stack:
                envelopes = await stack.enter_async_context(self._exchange.subscribe([FILTER]))
                subscribed.set()
                try:
                    async for envelope in envelopes:
                        self._notice(envelope)
                except Error as error:
                    logger.warning("kills for want of memory may have been missed: %s", error)

    def _notice(self, envelope: Envelope) -> None:
        try:
            id = TaskOOM.FromString(envelope.event.value).container_id
        except DecodeError as error:
            logger.warning("an event of a kill for want of memory cannot be read: %s", error)
            return
        for container in self._containers.index:
            if container.id == id:
                container.oom_killed()
