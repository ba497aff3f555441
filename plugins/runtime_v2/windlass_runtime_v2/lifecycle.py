"""From nothing to a task and back: create, delete, and what is done when a shim dies (docs/containerd 4.6, 4.11)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace

from windlass.contracts.containers import Container
from windlass.contracts.events import Exchange
from windlass.contracts.tasks import CreateOptions, Exit
from windlass.contracts.values import Payload
from windlass.errors import DeadlineExceeded, Error, InvalidArgument, NotFound, Unavailable
from windlass_api.containerd.task.v3 import shim_pb2 as pb
from windlass_runtime_v2.bundle import Bootstrap, Bundle
from windlass_runtime_v2.bundles import logged, sweep
from windlass_runtime_v2.cleaning import Cleaning
from windlass_runtime_v2.joining import SandboxHosts
from windlass_runtime_v2.launch import Launcher
from windlass_runtime_v2.names import Names
from windlass_runtime_v2.rootfs import Rootfs
from windlass_runtime_v2.settings import Deadlines
from windlass_runtime_v2.shim import Shim, lost_shim
from windlass_runtime_v2.task import UNKNOWN_EXIT, Jobs, Task, is_alive, now
from windlass_runtime_v2.wire import create_request, exit_events, exit_of

logger = logging.getLogger(__name__)

KILLED = 137
"""Status of a process that was ended by SIGKILL."""


class Lifecycle:
    """Knows every task; for use on the loop."""

    def __init__(
        self,
        launcher: Launcher,
        exchange: Exchange,
        deadlines: Deadlines,
        jobs: Jobs,
        hosts: SandboxHosts,
        rootfs: Rootfs,
    ) -> None:
        """Begin without tasks."""
        self._rootfs = rootfs
        self._hosts = hosts
        self.launcher = launcher
        self.deadlines = deadlines
        self.jobs = jobs
        self.tasks: dict[tuple[str, str], Task] = {}
        self._exchange = exchange
        self.names = Names("task", self.tasks, "already exists", "deleted", launcher.cleaner.left)
        self._stopping = False

    async def create(self, namespace: str, container: Container, options: CreateOptions, spec: bytes) -> Task:
        """Create a task. When that fails, no process, mount, socket or bundle is left."""
        with self.names.taken(namespace, container.id):
            async with self._rootfs.active(namespace, container.id, options.rootfs) as rootfs:
                task = await self._create(namespace, container, replace(options, rootfs=rootfs), spec)
            task.has_active_mounts = rootfs is not options.rootfs
        return task

    async def _create(self, namespace: str, container: Container, options: CreateOptions, spec: bytes) -> Task:
        runtime = options.runtime_path or container.runtime
        payload = options.options or container.runtime_options
        if host := await self._hosts.find(self.launcher, namespace, container, options, spec):
            bundle, shim = await host.join(self.launcher, namespace, container.id, spec)
        else:
            bundle, shim = await self.launcher.launch(namespace, container.id, runtime, spec, payload)
        task = Task(bundle, shim)
        try:
            if options.owns_checkpoint:
                moved = await self.launcher.on_disk(bundle.adopt_checkpoint, options.checkpoint)
                options = replace(options, checkpoint=moved)
            request = create_request(container.id, str(bundle.path), options, container.runtime_options)
            answer = await task.call("Create", request, pb.CreateTaskResponse, self.deadlines.request)
        except Error as error:
            await self.abandon(bundle, shim, hung=isinstance(error, DeadlineExceeded))
            raise type(error)(f"failed to create shim task: {error}") from error
        self.add(task, answer.pid)
        return task

    async def delete(self, task: Task) -> Exit:
        """Delete a task that does not run; its shim ends, and all that is kept of the task goes."""
        missing = None
        try:
            answer = await task.call("Delete", pb.DeleteRequest(id=task.id), pb.DeleteResponse, self.deadlines.request)
            exit = exit_of(answer, answer.pid)
        except NotFound as error:
            exit, missing = Exit(task.pids[""], UNKNOWN_EXIT, now()), error
        except DeadlineExceeded:
            if not task.shim.forked or is_alive(task.pids[""]):
                raise
            # Nothing runs any more and the shim does not answer, so its end costs nothing and frees the task.
            logger.warning("task %s: its shim does not answer to Delete and is killed", task.id)
            task.shim.kill()
            return await self.end_of(task)
        except Unavailable:
            if not task.shim.gone.done():
                raise
            return await self.end_of(task)
        if task.deleted:
            return await self.end_of(task)
        await self._discard(task)
        task.settle(exit)
        if missing is not None:
            raise missing
        return exit

    async def end_of(self, task: Task) -> Exit:
        """Return how a task ended whose shim is gone. Raises Unavailable when that is not known in time."""
        try:
            async with asyncio.timeout(self.deadlines.cleanup + self.deadlines.shutdown):
                return await task.end.result()
        except TimeoutError:
            reason = self.launcher.cleaner.left.get((task.bundle.namespace, task.id), "it is being removed")
            raise Unavailable(f"task {task.id}: its shim has died, its container has not gone yet: {reason}") from None

    def runs_on(self, task: Task) -> bool:
        """Return whether a task has lost its shim and could not be cleaned up yet."""
        return task.deleted and (task.bundle.namespace, task.id) in self.launcher.cleaner.left

    async def _discard(self, task: Task) -> None:
        with self._departing(task):
            shutdown = self.jobs.start(task.shim.shut_down(task.id, self.deadlines.shutdown))
            # Its request is sent before anything is removed: a daemon that is killed now leaves no idle shim.
            await asyncio.sleep(0)
            hidden = await self.launcher.hide(task.bundle, task.shim.bootstrap)
            self.jobs.start(self.launcher.on_disk(sweep, hidden))
            if not task.shim.forked:
                # Until it has ended it would answer to a new task of this name.
                await shutdown
            await self._release(task)

    async def _release(self, task: Task) -> None:
        """Unmount what was mounted for a task's shim, after the shim has unmounted what was on top."""
        if task.has_active_mounts:
            await self._rootfs.release(task.bundle.namespace, task.id)

    @contextlib.contextmanager
    def _departing(self, task: Task) -> Iterator[None]:
        """Forget a task, but keep its name until all of it has gone."""
        key = (task.bundle.namespace, task.id)
        task.deleted = True
        del self.tasks[key]
        with self.names.kept(key):
            yield

    async def abandon(self, bundle: Bundle, shim: Shim, hung: bool = False, unfinished: bool = False) -> None:
        """Undo a creation, with the shim's help unless it is ``hung`` or cannot give it.

        An ``unfinished`` one may have more to clean up than its shim knows of.
        """
        helped = False
        if not hung:
            with contextlib.suppress(Error):
                helped = await self._ask_to_delete(bundle, shim)
        if helped and await shim.shut_down(bundle.id, self.deadlines.shutdown) and not unfinished:
            await self.launcher.remove(bundle, shim.bootstrap)
            return
        shim.kill()
        try:
            await self.launcher.cleaner.clean(bundle, shim.bootstrap)
        finally:
            shim.release()

    async def _ask_to_delete(self, bundle: Bundle, shim: Shim) -> bool:
        with contextlib.suppress(NotFound):
            await shim.call("Delete", pb.DeleteRequest(id=bundle.id), pb.DeleteResponse, self.deadlines.cleanup)
        return True

    async def take_back(self, task: Task) -> None:
        """Remove a task that has been created for a client that is gone."""
        if task.deleted or task.deletion is not None:
            return
        with self._departing(task):
            await self.abandon(task.bundle, task.shim)
            await self._release(task)
        task.settle(Exit(task.pids[""], KILLED, now()))

    def add(self, task: Task, pid: int) -> None:
        """Add a task, and notice when its shim dies."""
        task.pids[""] = pid
        self.tasks[task.bundle.namespace, task.id] = task
        task.shim.gone.add_done_callback(lambda _: self._lost(task))

    def _lost(self, task: Task) -> None:
        if not task.deleted and not self._stopping:
            logger.warning("task %s: its shim has died", task.id)
            task.deleted = True
            self.jobs.start(self._remove_lost(task))

    async def _remove_lost(self, task: Task) -> None:
        task.shim.kill()
        await self._end_lost(task, self.launcher.cleaner.begin(task.bundle, task.shim.bootstrap))

    def keep_lost(self, bundle: Bundle, bootstrap: Bootstrap | None, pid: int, cleaning: Cleaning) -> None:
        """Add a task whose shim died before this daemon began, until its process can be ended."""
        task = Task(bundle, lost_shim(bundle.namespace, bootstrap))
        task.pids[""], task.deleted = pid, True
        self.tasks[bundle.namespace, bundle.id] = task
        self.jobs.start(self._end_lost(task, cleaning))

    async def _end_lost(self, task: Task, cleaning: Cleaning) -> None:
        found = await cleaning.until_ended(task.pids[""])
        if cleaning.job.done():
            await self._release(task)
        else:
            self.jobs.start(self._release_after(task, cleaning))
        status = KILLED if task.shim.forked else UNKNOWN_EXIT
        exit = task.known_exit() or found or Exit(task.pids[""], status, now())
        del self.tasks[task.bundle.namespace, task.id]
        task.shim.release()
        self.announce(task.bundle, exit)
        task.settle(exit)

    async def _release_after(self, task: Task, cleaning: Cleaning) -> None:
        await asyncio.wait({cleaning.job})
        if cleaning.job.exception() is None:
            await self._release(task)

    def announce(self, bundle: Bundle, exit: Exit) -> None:
        """Publish the events that a dead shim cannot send any more."""
        for topic, event in exit_events(bundle.id, exit).items():
            with logged(f"task {bundle.id}: cannot publish {topic}"):
                self._exchange.publish(bundle.namespace, topic, event)

    async def stop(self, timeout: float) -> None:
        """Disconnect from every shim, which runs on, and finish what is under way."""
        self._stopping = True
        await asyncio.gather(self.launcher.cleaner.stop(timeout), self.jobs.finish(timeout))
        for task in self.tasks.values():
            task.close()
            task.shim.release()
        self.launcher.close()


def spec_of(container: Container) -> Payload:
    """Return a container's spec; raises InvalidArgument when it has none."""
    if container.spec is None:
        raise InvalidArgument(f"container {container.id} has no spec")
    return container.spec
