"""The sandbox controller: every sandbox is a shim that serves the Sandbox API (docs/containerd 3.12)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from google.protobuf.message import Message

from windlass.contracts.sandboxes import Sandbox, SandboxOptions, SandboxStatus, StartedSandbox
from windlass.contracts.tasks import Exit, Metric
from windlass.contracts.values import Platform, check_identifier
from windlass.errors import DeadlineExceeded, Error, NotFound, Unavailable
from windlass_api.containerd.runtime.sandbox.v1 import sandbox_pb2 as pb
from windlass_api.containerd.task.v3 import shim_pb2 as task_pb
from windlass_runtime_v2 import wire
from windlass_runtime_v2.bundles import Bootstrap, Bundle, sweep
from windlass_runtime_v2.launch import Launcher
from windlass_runtime_v2.lifecycle import KILLED
from windlass_runtime_v2.names import Key, Names
from windlass_runtime_v2.recovery import read_bundles
from windlass_runtime_v2.settings import Deadlines
from windlass_runtime_v2.shim import M, Shim
from windlass_runtime_v2.task import UNKNOWN_EXIT, Jobs, now

logger = logging.getLogger(__name__)

NO_SPEC = b"{}"
"""What the bundle of a sandbox without a spec has: shims read its annotations."""


class Running:
    """A sandbox that its shim has created."""

    def __init__(self, bundle: Bundle, shim: Shim) -> None:
        """Take over ``shim``."""
        self.bundle = bundle
        self.shim = shim
        self.leaving = False
        """Whether the sandbox is on its way out, so that its shim's end is no news."""
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        """Done when the sandbox has been shut down or its shim has died."""
        self._waiting: asyncio.Task[Exit] | None = None

    @property
    def id(self) -> str:
        """The sandbox's ID."""
        return self.bundle.id

    async def call(self, method: str, request: Message, answer: type[M], timeout: float | None) -> M:
        """Call the shim; the errors that are not its answers name sandbox and step."""
        try:
            return await self.shim.call_sandbox(method, request, answer, timeout)
        except (DeadlineExceeded, Unavailable) as error:
            raise type(error)(f"sandbox {self.id}: {method}: {error}") from error

    async def wait(self) -> Exit:
        """Return how it ended; however many wait, the shim is asked once."""
        if self._waiting is None or (self._waiting.done() and self._failed(self._waiting)):
            self._waiting = asyncio.create_task(self._wait())
        return await asyncio.shield(self._waiting)

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._waiting is not None:
            self._waiting.cancel()
        self.shim.release()

    def settle(self, exit: Exit) -> None:
        """Tell everybody who waits that it has ended."""
        if not self.ended.done():
            self.ended.set_result(exit)

    async def _wait(self) -> Exit:
        request = pb.WaitSandboxRequest(sandbox_id=self.id)
        try:
            return wire.exit_of(await self.call("WaitSandbox", request, pb.WaitSandboxResponse, None), 0)
        except Unavailable:
            if not self.shim.gone.done():
                raise
            return await asyncio.shield(self.ended)

    def _failed(self, job: asyncio.Task[Exit]) -> bool:
        return job.cancelled() or job.exception() is not None


class Sandboxes:
    """Knows every sandbox, and how they come and go; for use on the loop."""

    def __init__(self, launcher: Launcher, deadlines: Deadlines, jobs: Jobs) -> None:
        """Know none yet."""
        self.launcher = launcher
        self.deadlines = deadlines
        self.jobs = jobs
        self.running: dict[Key, Running] = {}
        self._names = Names("sandbox", self.running, "is already running", "shut down", launcher.cleaner.left)
        self._stopping = False

    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> Running:
        """Start a sandbox's shim and have it create the sandbox. When that fails, nothing is left."""
        with self._names.taken(namespace, sandbox.id):
            spec = sandbox.spec.value if sandbox.spec else NO_SPEC
            bundle, shim = await self.launcher.launch(
                namespace, sandbox.id, sandbox.runtime, spec, sandbox.runtime_options
            )
            running = Running(bundle, shim)
            request = wire.create_sandbox_request(sandbox.id, str(bundle.path), options)
            try:
                await running.call("CreateSandbox", request, pb.CreateSandboxResponse, self.deadlines.request)
            except Error as error:
                await self._discard(running)
                raise type(error)(f"failed to create sandbox {sandbox.id}: {error}") from error
            self.add(running)
        return running

    async def remove(self, running: Running) -> None:
        """End a sandbox's shim, whatever it takes, and remove what is kept of it."""
        running.leaving = True
        key = running.bundle.namespace, running.id
        if self.running.get(key) is running:
            with self._departing(key):
                await self._discard(running)
        running.settle(Exit(0, KILLED, now()))

    async def _discard(self, running: Running) -> None:
        running.leaving = True
        with contextlib.suppress(Error):
            request = pb.ShutdownSandboxRequest(sandbox_id=running.id)
            await running.call("ShutdownSandbox", request, pb.ShutdownSandboxResponse, self.deadlines.cleanup)
        if await running.shim.shut_down(running.id, self.deadlines.shutdown):
            await self.launcher.remove(running.bundle, running.shim.bootstrap)
        else:
            await self.launcher.cleaner.clean(running.bundle, running.shim.bootstrap)

    def add(self, running: Running) -> None:
        """Know a sandbox from now on, and notice when its shim dies."""
        self.running[running.bundle.namespace, running.id] = running
        running.shim.gone.add_done_callback(lambda _: self._lost(running))

    def _lost(self, running: Running) -> None:
        if not running.leaving and not self._stopping:
            logger.warning("sandbox %s: its shim has died", running.id)
            running.leaving = True
            self.jobs.start(self._bury(running))

    async def _bury(self, running: Running) -> None:
        running.shim.kill()
        with self._departing((running.bundle.namespace, running.id)):
            cleaning = self.launcher.cleaner.begin(running.bundle, running.shim.bootstrap)
            exit = await cleaning.until_ended(0)
        running.settle(exit or Exit(0, KILLED if running.shim.forked else UNKNOWN_EXIT, now()))
        running.shim.release()

    @contextlib.contextmanager
    def _departing(self, key: Key) -> Iterator[None]:
        """Know a sandbox no more, but keep its name until all of it has gone."""
        self.running.pop(key, None)
        with self._names.kept(key):
            yield

    async def stop(self, timeout: float) -> None:
        """Let go of every shim, all of which run on, and finish what is under way."""
        self._stopping = True
        await asyncio.gather(self.launcher.cleaner.stop(timeout), self.jobs.finish(timeout))
        for running in self.running.values():
            running.close()
        self.launcher.close()


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
        running = Running(bundle, shim)
        self._sandboxes.add(running)
        self._found += 1
        try:
            connected = await shim.call(
                "Connect", task_pb.ConnectRequest(id=bundle.id), task_pb.ConnectResponse, timeout
            )
            if shim.forked:
                shim.adopt(connected.shim_pid)
        except Error as error:
            logger.info("sandbox %s: its shim does not say which process it is: %s", bundle.id, error)
        try:
            request = pb.PingRequest(sandbox_id=bundle.id)
            await running.call("PingSandbox", request, pb.PingResponse, timeout)
        except NotFound:
            logger.info("sandbox %s: its shim does not have it and is shut down", bundle.id)
            self._found -= 1
            await self._sandboxes.remove(running)
        except Error as error:
            # A shim that is gone is buried by `Sandboxes`; one that is slow, or knows no Ping, is kept.
            logger.warning("sandbox %s: its shim is kept although it does not answer: %s", bundle.id, error)


class ShimSandboxes:
    """The `windlass.contracts.sandboxes.SandboxController` of this daemon."""

    def __init__(self, sandboxes: Sandboxes, recovery: SandboxRecovery) -> None:
        """Answer from what ``sandboxes`` knows, after ``recovery`` has found what was there before."""
        self._sandboxes = sandboxes
        self._recovery = recovery
        self._deadlines = sandboxes.deadlines

    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> None:
        """Create a sandbox; one whose client goes away meanwhile is removed."""
        check_identifier("namespace", namespace)
        check_identifier("sandbox", sandbox.id)
        await self._recovery.wait_for(namespace, sandbox.id)
        job = self._sandboxes.jobs.start(self._sandboxes.create(namespace, sandbox, options))
        try:
            await asyncio.shield(job)
        except asyncio.CancelledError:
            self._sandboxes.jobs.start(self._undo(job))
            raise
        finally:
            del job  # an error's traceback has this frame, and the job has the error

    async def start(self, namespace: str, id: str) -> StartedSandbox:
        """See `windlass.contracts.sandboxes.SandboxController.start`."""
        running = await self._known(namespace, id)
        if running is None:
            # A plain error, as of containerd: over RPC the code is UNKNOWN.
            raise Error(f"sandbox {id[:80]} does not exist; create it first")
        request = pb.StartSandboxRequest(sandbox_id=id)
        try:
            answer = await running.call("StartSandbox", request, pb.StartSandboxResponse, self._deadlines.request)
        except Error as error:
            await self._sandboxes.jobs.start(self._sandboxes.remove(running))
            raise type(error)(f"failed to start sandbox {id}: {error}") from error
        address, version = _endpoint(running)
        return StartedSandbox(
            id=id,
            pid=answer.pid,
            created_at=wire.nanoseconds(answer.created_at),
            address=address,
            version=version,
            spec=wire.payload_of(answer.spec) if answer.HasField("spec") else None,
        )

    async def platform(self, namespace: str, id: str) -> Platform:
        """See `windlass.contracts.sandboxes.SandboxController.platform`."""
        running = await self._find(namespace, id)
        request = pb.PlatformRequest(sandbox_id=id)
        answer = await running.call("Platform", request, pb.PlatformResponse, self._deadlines.state)
        return Platform(answer.platform.os, answer.platform.architecture, answer.platform.variant)

    async def stop(self, namespace: str, id: str, timeout: float) -> None:
        """See `windlass.contracts.sandboxes.SandboxController.stop`."""
        running = await self._known(namespace, id)
        if running is None:
            return
        request = pb.StopSandboxRequest(sandbox_id=id, timeout_secs=int(timeout))
        with contextlib.suppress(NotFound, Unavailable):
            await running.call("StopSandbox", request, pb.StopSandboxResponse, timeout + self._deadlines.request)

    async def wait(self, namespace: str, id: str) -> Exit:
        """See `windlass.contracts.sandboxes.SandboxController.wait`."""
        return await (await self._find(namespace, id)).wait()

    async def status(self, namespace: str, id: str, verbose: bool = False) -> SandboxStatus:
        """See `windlass.contracts.sandboxes.SandboxController.status`."""
        running = await self._known(namespace, id)
        if running is None:
            return SandboxStatus(id, exited_at=now())
        request = pb.SandboxStatusRequest(sandbox_id=id, verbose=verbose)
        try:
            answer = await running.call("SandboxStatus", request, pb.SandboxStatusResponse, self._deadlines.state)
        except Unavailable:
            if not running.shim.gone.done():
                raise
            return SandboxStatus(id, exited_at=now())
        return wire.sandbox_status(answer, id, *_endpoint(running))

    async def shutdown(self, namespace: str, id: str) -> None:
        """See `windlass.contracts.sandboxes.SandboxController.shutdown`."""
        running = await self._find(namespace, id)
        await asyncio.shield(self._sandboxes.jobs.start(self._sandboxes.remove(running)))

    async def metrics(self, namespace: str, id: str) -> Metric:
        """See `windlass.contracts.sandboxes.SandboxController.metrics`."""
        running = await self._find(namespace, id)
        request = pb.SandboxMetricsRequest(sandbox_id=id)
        answer = await running.call("SandboxMetrics", request, pb.SandboxMetricsResponse, self._deadlines.stats)
        found = answer.metrics
        return Metric(wire.nanoseconds(found.timestamp) or now(), found.id or id, wire.payload_of(found.data))

    async def update(self, namespace: str, sandbox: Sandbox, fieldpaths: Sequence[str] = ()) -> None:
        """See `windlass.contracts.sandboxes.SandboxController.update`; the Sandbox API has no call for it."""

    async def _known(self, namespace: str, id: str) -> Running | None:
        await self._recovery.wait_for(namespace, id)
        return self._sandboxes.running.get((namespace, id))

    async def _find(self, namespace: str, id: str) -> Running:
        running = await self._known(namespace, id)
        if running is None:
            raise NotFound(f"sandbox {id[:80]} does not exist")
        return running

    async def _undo(self, creation: asyncio.Task[Running]) -> None:
        """Remove a sandbox whose creator has gone away: it would not know that it is there."""
        await asyncio.wait({creation})
        if not creation.cancelled() and creation.exception() is None:
            await self._sandboxes.remove(creation.result())


def _endpoint(running: Running) -> tuple[str, int]:
    """Return where the Task API of a sandbox's containers is: protocol and address, and version."""
    bootstrap = running.shim.bootstrap
    return f"{bootstrap.protocol}+{bootstrap.address}", bootstrap.version
