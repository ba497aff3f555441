"""Makes the processes of a container: streams first, then the OCI runtime, then the process is watched."""

from __future__ import annotations

from windlass.errors import Error
from windlass_shim_runc.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from windlass_shim_runc import messages
    from windlass_shim_runc.exits import Exits
    from windlass_shim_runc.oci import Runtime
    from windlass_shim_runc.process import Process
    from windlass_shim_runc.shim import Shim


class Launcher:
    """Makes init, or an exec, of one container."""

    __slots__ = ("_bundle", "_exits", "_options", "_runtime", "_shim")

    def __init__(self, shim: Shim, bundle: str, options: messages.Options, runtime: Runtime, exits: Exits) -> None:
        self._shim = shim
        self._bundle = bundle
        self._options = options
        self._runtime = runtime
        self._exits = exits

    async def create(self, init: Process) -> None:
        """Make the OCI runtime create the container."""
        stdio = await self._prepare(init)
        await self._make(init, self._runtime.create(stdio, console_of(init)))

    async def restore(self, init: Process, checkpoint: str) -> None:
        """Make the OCI runtime restore the container from a checkpoint; when that fails, no stream stays open."""
        try:
            stdio = await self._prepare(init)
            await self._make(init, self._runtime.restore(stdio, console_of(init), checkpoint))
        except (OSError, Error):
            init.streams.close()
            raise
        finally:
            if init.pid:
                self._exits.watch(init)

    async def exec(self, process: Process) -> None:
        """Make the OCI runtime start an exec; when that fails, no stream stays open and it does not run."""
        try:
            stdio = await self._prepare(process)
            making = self._runtime.exec(process.exec_id, process.spec, stdio, console_of(process))
            await self._make(process, making)
            process.streams.begin_input()
        except (OSError, Error):
            process.streams.close()
            if process.pid:
                self._end_half_started(process)
            raise

    def _end_half_started(self, process: Process) -> None:
        # It runs, but without its terminal; no client would end it.
        if not process.exited.is_set:
            process.signal(SIGKILL)
        process.on_start()
        self._exits.watch(process)

    async def _prepare(self, process: Process) -> Mapping[int, int]:
        options = self._options
        owner = (options.io_uid or -1, options.io_gid or -1)
        environment = {"CONTAINER_ID": process.name, "CONTAINER_NAMESPACE": self._shim.namespace}
        return await process.streams.prepare(self._bundle, owner, environment)

    async def _make(self, process: Process, making: Awaitable[int]) -> None:
        # Within the context no exit is lost: the process may end before its pid is known.
        with self._shim.reaper:
            process.pid = await making
            self._shim.reaper.watch(process.pid, process.on_exit)
            await process.streams.begin()


def console_of(process: Process) -> str:
    """Return the socket that gets the terminal's master, "" without a terminal."""
    console = process.streams.console
    return console.path if console is not None else ""
