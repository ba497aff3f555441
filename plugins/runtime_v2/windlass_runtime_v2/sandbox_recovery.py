"""What a starting daemon finds of an earlier one's sandboxes (docs/containerd 4.11)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from windlass.errors import Error, NotFound, Unavailable
from windlass_api.containerd.runtime.sandbox.v1 import sandbox_pb2 as pb
from windlass_api.containerd.task.v3 import shim_pb2 as task_pb
from windlass_runtime_v2.bundle import Bootstrap, Bundle
from windlass_runtime_v2.bundles import sweep
from windlass_runtime_v2.names import Key
from windlass_runtime_v2.recovery import read_bundles
from windlass_runtime_v2.sandbox import RunningSandbox
from windlass_runtime_v2.sandboxes import Sandboxes

logger = logging.getLogger(__name__)


class SandboxRecovery:
    """Finds the sandboxes of an earlier daemon, each in parallel and for a bounded time."""

    def __init__(self, sandboxes: Sandboxes, done: Callable[[], None]) -> None:
        """Call ``done`` when everything has been found."""
        self._sandboxes = sandboxes
        self._launcher = sandboxes.launcher
        self._done = done
        self._jobs: dict[Key, asyncio.Task[None]] = {}
        self._found = 0

    async def start(self) -> None:
        """See which bundles there are and begin to look at them."""
        leftovers = await self._launcher.on_disk(self._launcher.bundles.leftovers)
        for bundle, bootstrap in await self._launcher.on_disk(read_bundles, self._launcher.bundles):
            job = self._sandboxes.jobs.start(self._recover(bundle, bootstrap))
            self._jobs[bundle.namespace, bundle.id] = job
        self._sandboxes.jobs.start(self._finish(leftovers))

    async def wait_for(self, namespace: str, id: str) -> None:
        """Return when it is known what became of a sandbox."""
        if job := self._jobs.get((namespace, id)):
            await asyncio.wait({job})

    async def _finish(self, leftovers: list[Path]) -> None:
        if self._jobs:
            await asyncio.wait(self._jobs.values())
            logger.info("%d of %d sandboxes were found again", self._found, len(self._jobs))
        self._jobs.clear()
        try:
            await self._launcher.on_disk(sweep, leftovers)
        except (Error, OSError) as error:
            logger.warning("cannot sweep what earlier sandboxes have left: %s", error)
        finally:
            self._done()

    async def _recover(self, bundle: Bundle, bootstrap: Bootstrap | None) -> None:
        timeout = self._sandboxes.deadlines.load
        try:
            if bootstrap is None:
                raise Unavailable("its bundle names no shim")
            async with asyncio.timeout(timeout):
                shim = await self._launcher.find(bundle, bootstrap)
        except (Error, TimeoutError) as error:
            logger.warning("sandbox %s: its shim is gone: %s", bundle.id, error)
            await self._launcher.cleaner.clean(bundle, bootstrap)
            return
        running = RunningSandbox(bundle, shim)
        self._sandboxes.add(running)
        self._found += 1
        await self._adopt_process(running)
        await self._check(running)

    async def _adopt_process(self, running: RunningSandbox) -> None:
        """Take hold of the shim's process, if it is ours alone."""
        shim, timeout = running.shim, self._sandboxes.deadlines.load
        request = task_pb.ConnectRequest(id=running.id)
        try:
            connected = await shim.call("Connect", request, task_pb.ConnectResponse, timeout)
            if shim.forked:
                shim.adopt(connected.shim_pid)
        except Error as error:
            logger.info("sandbox %s: its shim does not say which process it is: %s", running.id, error)

    async def _check(self, running: RunningSandbox) -> None:
        """End a shim that does not have its sandbox; keep one that only does not answer."""
        request = pb.PingRequest(sandbox_id=running.id)
        try:
            await running.call("PingSandbox", request, pb.PingResponse, self._sandboxes.deadlines.load)
        except NotFound:
            logger.info("sandbox %s: its shim does not have it and is shut down", running.id)
            self._found -= 1
            await self._sandboxes.remove(running)
        except Error as error:
            # `Sandboxes` removes what a dead shim leaves; one that is slow, or knows no Ping, is kept.
            logger.warning("sandbox %s: its shim is kept although it does not answer: %s", running.id, error)
