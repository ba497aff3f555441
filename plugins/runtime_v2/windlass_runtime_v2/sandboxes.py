"""Every sandbox of a daemon, each a shim that serves the Sandbox API: how they come and go (docs/containerd 3.12)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from windlass.contracts.sandboxes import Sandbox, SandboxOptions
from windlass.contracts.tasks import Exit
from windlass.errors import Error
from windlass_api.containerd.runtime.sandbox.v1 import sandbox_pb2 as pb
from windlass_runtime_v2 import wire
from windlass_runtime_v2.launch import Launcher
from windlass_runtime_v2.lifecycle import KILLED
from windlass_runtime_v2.names import Key, Names
from windlass_runtime_v2.sandbox import RunningSandbox
from windlass_runtime_v2.settings import Deadlines
from windlass_runtime_v2.task import UNKNOWN_EXIT, Jobs, now

logger = logging.getLogger(__name__)

NO_SPEC = b"{}"
"""What the bundle of a sandbox without a spec has: shims read its annotations."""


class Sandboxes:
    """Knows every sandbox, and how they come and go; for use on the loop."""

    def __init__(self, launcher: Launcher, deadlines: Deadlines, jobs: Jobs) -> None:
        """Begin without sandboxes."""
        self.launcher = launcher
        self.deadlines = deadlines
        self.jobs = jobs
        self.running: dict[Key, RunningSandbox] = {}
        self._names = Names("sandbox", self.running, "is already running", "shut down", launcher.cleaner.left)
        self._stopping = False

    async def create(self, namespace: str, sandbox: Sandbox, options: SandboxOptions) -> RunningSandbox:
        """Start a sandbox's shim and have it create the sandbox. When that fails, nothing is left."""
        with self._names.taken(namespace, sandbox.id):
            spec = sandbox.spec.value if sandbox.spec else NO_SPEC
            bundle, shim = await self.launcher.launch(
                namespace, sandbox.id, sandbox.runtime, spec, sandbox.runtime_options
            )
            running = RunningSandbox(bundle, shim)
            request = wire.create_sandbox_request(sandbox.id, str(bundle.path), options)
            try:
                await running.call("CreateSandbox", request, pb.CreateSandboxResponse, self.deadlines.request)
            except Error as error:
                await self._discard(running)
                raise type(error)(f"failed to create sandbox {sandbox.id}: {error}") from error
            self.add(running)
        return running

    async def remove(self, running: RunningSandbox) -> None:
        """End a sandbox's shim, whatever it takes, and remove what is kept of it."""
        running.leaving = True
        key = running.bundle.namespace, running.id
        if self.running.get(key) is running:
            with self._departing(key):
                await self._discard(running)
        running.settle(Exit(0, KILLED, now()))

    async def _discard(self, running: RunningSandbox) -> None:
        running.leaving = True
        with contextlib.suppress(Error):
            request = pb.ShutdownSandboxRequest(sandbox_id=running.id)
            await running.call("ShutdownSandbox", request, pb.ShutdownSandboxResponse, self.deadlines.cleanup)
        if await running.shim.shut_down(running.id, self.deadlines.shutdown):
            await self.launcher.remove(running.bundle, running.shim.bootstrap)
        else:
            await self.launcher.cleaner.clean(running.bundle, running.shim.bootstrap)

    def add(self, running: RunningSandbox) -> None:
        """Add a sandbox, and notice when its shim dies."""
        self.running[running.bundle.namespace, running.id] = running
        running.shim.gone.add_done_callback(lambda _: self._lost(running))

    def _lost(self, running: RunningSandbox) -> None:
        if not running.leaving and not self._stopping:
            logger.warning("sandbox %s: its shim has died", running.id)
            running.leaving = True
            self.jobs.start(self._remove_lost(running))

    async def _remove_lost(self, running: RunningSandbox) -> None:
        running.shim.kill()
        with self._departing((running.bundle.namespace, running.id)):
            cleaning = self.launcher.cleaner.begin(running.bundle, running.shim.bootstrap)
            exit = await cleaning.until_ended(0)
        running.settle(exit or Exit(0, KILLED if running.shim.forked else UNKNOWN_EXIT, now()))
        running.shim.release()

    @contextlib.contextmanager
    def _departing(self, key: Key) -> Iterator[None]:
        """Forget a sandbox, but keep its name until all of it has gone."""
        self.running.pop(key, None)
        with self._names.kept(key):
            yield

    async def stop(self, timeout: float) -> None:
        """Disconnect from every shim, which runs on, and finish what is under way."""
        self._stopping = True
        await asyncio.gather(self.launcher.cleaner.stop(timeout), self.jobs.finish(timeout))
        for running in self.running.values():
            running.close()
        self.launcher.close()
