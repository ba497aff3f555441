"""What a starting daemon finds of an earlier one's tasks (docs/containerd 4.11).

Every bundle is looked at in parallel and for a bounded time. A client that asks for a
task meanwhile waits until it is known what became of it; boot does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.tasks import Exit
from windlass.errors import Error, FailedPrecondition, NotFound, Unavailable
from windlass_api.containerd.task.v3 import shim_pb2 as pb
from windlass_runtime_v2.bundle import Bootstrap, Bundle
from windlass_runtime_v2.bundles import Bundles, logged, sweep
from windlass_runtime_v2.forked import list_sockets, sweep_sockets
from windlass_runtime_v2.lifecycle import KILLED, Lifecycle
from windlass_runtime_v2.shim import Shim
from windlass_runtime_v2.task import Task, is_alive, now

logger = logging.getLogger(__name__)

PARALLEL_CLEANUPS = 8
POLL = 0.05


class Recovery:
    """Finds tasks again; for use on the loop."""

    def __init__(self, lifecycle: Lifecycle, socket_dir: Path, done: Callable[[], None]) -> None:
        """Call ``done`` when everything has been found."""
        self._lifecycle = lifecycle
        self._launcher = lifecycle.launcher
        self._socket_dir = socket_dir
        self._done = done
        self._jobs: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._cleanups = asyncio.Semaphore(PARALLEL_CLEANUPS)
        self._found = 0

    async def start(self) -> None:
        """See which bundles there are and begin to look at them."""
        on_disk = self._launcher.on_disk
        sockets = await on_disk(list_sockets, self._socket_dir)
        leftovers = await on_disk(self._launcher.bundles.leftovers)
        for bundle, bootstrap in await on_disk(read_bundles, self._launcher.bundles):
            job = self._lifecycle.jobs.start(self._recover(bundle, bootstrap))
            self._jobs[bundle.namespace, bundle.id] = job
        self._lifecycle.jobs.start(self._finish(leftovers, sockets))

    async def wait_for(self, namespace: str, id: str) -> None:
        """Return when it is known what became of a task."""
        if job := self._jobs.get((namespace, id)):
            await asyncio.wait({job})

    async def wait_for_all(self, namespace: str) -> None:
        """Return when it is known what became of every task of a namespace."""
        if jobs := [job for (found, _), job in self._jobs.items() if found == namespace]:
            await asyncio.wait(jobs)

    async def _finish(self, leftovers: list[Path], sockets: list[Path]) -> None:
        if self._jobs:
            await asyncio.wait(self._jobs.values())
            logger.info("%d of %d tasks were found again", self._found, len(self._jobs))
        self._jobs.clear()
        try:
            await self._launcher.on_disk(sweep, leftovers)
            await self._launcher.on_disk(sweep_sockets, sockets)
        except (Error, OSError) as error:
            logger.warning("cannot sweep what earlier tasks have left: %s", error)
        finally:
            self._done()

    async def _recover(self, bundle: Bundle, bootstrap: Bootstrap | None) -> None:
        """Add an earlier daemon's task, or clean up after it."""
        try:
            if bootstrap is None:
                raise Unavailable("its bundle names no shim")
            async with asyncio.timeout(self._lifecycle.deadlines.load):
                shim = await self._launcher.find(bundle, bootstrap)
        except (Error, TimeoutError) as error:
            logger.warning("task %s: its shim is gone: %s", bundle.id, error)
            await self._clean_up(bundle, bootstrap)
            return
        await self._adopt(bundle, shim)

    async def _adopt(self, bundle: Bundle, shim: Shim) -> None:
        """Take over a shim that answers, and one that is only slow; end one that holds no task.

        The latter may be about to: its daemon was killed while it made the container,
        and no client knows of it, so it is removed with all that is there of it.
        """
        task, pid = Task(bundle, shim), 0
        timeout = self._lifecycle.deadlines.load
        connected, state = await asyncio.gather(
            task.call("Connect", pb.ConnectRequest(id=bundle.id), pb.ConnectResponse, timeout),
            task.call("State", pb.StateRequest(id=bundle.id), pb.StateResponse, timeout),
            return_exceptions=True,
        )
        if shim.forked and not isinstance(connected, BaseException):
            shim.adopt(connected.shim_pid)
        try:
            if isinstance(state, BaseException):
                raise state
            pid, task.found = state.pid, state
        except NotFound:
            logger.info("task %s: its shim holds no task and is shut down", bundle.id)
            if not shim.forked:
                await self._await_creation(task)
            await self._lifecycle.abandon(bundle, shim, unfinished=not shim.forked)
            return
        except Error as error:
            if shim.gone.done():
                await self._clean_up(bundle, shim.bootstrap)
                shim.release()
                return
            logger.warning("task %s: its shim is kept although it does not answer: %s", bundle.id, error)
        self._lifecycle.add(task, pid)
        self._found += 1

    async def _await_creation(self, task: Task) -> None:
        """Wait, for a bounded time, until a shim that cannot be killed ends or has made its task."""
        shim, request = task.shim, pb.StateRequest(id=task.id)
        with contextlib.suppress(Error, TimeoutError):
            async with asyncio.timeout(self._lifecycle.deadlines.shutdown):
                if not shim.bootstrap.sandbox:
                    await shim.call("Shutdown", pb.ShutdownRequest(id=task.id), Empty, None)
                while not shim.gone.done():
                    with contextlib.suppress(NotFound):
                        await shim.call("State", request, pb.StateResponse, None)
                        return
                    await asyncio.sleep(POLL)

    async def _clean_up(self, bundle: Bundle, bootstrap: Bootstrap | None) -> None:
        pid = 0
        with logged(f"task {bundle.id}: cannot read which process it had"):
            pid = await self._launcher.on_disk(bundle.init_pid)
        async with self._cleanups:
            cleaning = self._launcher.cleaner.begin(bundle, bootstrap)
            await asyncio.wait({cleaning.tried})
        if not cleaning.job.done() and is_alive(pid):
            self._lifecycle.keep_lost(bundle, bootstrap, pid, cleaning)
            return
        exit = await cleaning.until_ended(pid)
        if pid or exit:
            self._lifecycle.announce(bundle, exit or Exit(pid, KILLED, now()))


def read_bundles(bundles: Bundles) -> list[tuple[Bundle, Bootstrap | None]]:
    """Return every bundle on disk and how to reach its shim, None when it does not say."""
    found: list[tuple[Bundle, Bootstrap | None]] = []
    for bundle in bundles.walk():
        bootstrap = None
        with contextlib.suppress(FailedPrecondition):
            bootstrap = bundle.read_bootstrap()
        found.append((bundle, bootstrap))
    return found
