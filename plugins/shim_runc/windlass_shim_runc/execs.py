"""The execs of one container: processes that join it after its creation."""

from __future__ import annotations

from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from windlass_shim_runc import disk
from windlass_shim_runc.commandline import exec_pid_file
from windlass_shim_runc.execspec import with_terminal
from windlass_shim_runc.process import DELETED, STOPPED, Process
from windlass_shim_runc.shim import Shim, check_identifier
from windlass_shim_runc.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_shim_runc import messages
    from windlass_shim_runc.events import Events
    from windlass_shim_runc.exits import Exits
    from windlass_shim_runc.launch import Launcher
    from windlass_shim_runc.streams import Names


class Execs:
    """Adds, starts and deletes execs."""

    __slots__ = ("_bundle", "_events", "_exits", "_init", "_launcher", "_shim", "by_id")

    def __init__(
        self,
        shim: Shim,
        bundle: str,
        init: Process,
        by_id: dict[str, Process],
        launcher: Launcher,
        exits: Exits,
        events: Events,
    ) -> None:
        self._shim = shim
        self._bundle = bundle
        self._init = init
        self._launcher = launcher
        self._exits = exits
        self._events = events
        self.by_id = by_id

    def get(self, exec_id: str) -> Process:
        """Return an exec; raises NotFound."""
        try:
            return self.by_id[exec_id]
        except KeyError:
            raise NotFound(f"exec {exec_id[:76]} of container {self._init.id} does not exist") from None

    def add(self, request: messages.ExecProcessRequest) -> None:
        """Note an exec, which waits for `start`."""
        self._init.check("exec")
        check_identifier("exec", request.exec_id)
        if request.exec_id in self.by_id:
            raise AlreadyExists(f"exec {request.exec_id} of container {self._init.id} exists already")
        if not request.spec.value:
            raise InvalidArgument(f"exec {request.exec_id} has no process spec")
        names = request.stdin, request.stdout, request.stderr, request.terminal
        self.make(request.exec_id, names, with_terminal(request.spec.value, request.terminal))
        self._events.exec_added(request.exec_id)

    def make(self, exec_id: str, names: Names, spec: bytes) -> Process:
        """Add an exec."""
        shim = self._shim
        process = Process(shim.loop, self._init.id, exec_id, Streams(shim.loop, shim.reaper, names), spec)
        self.by_id[exec_id] = process
        return process

    async def start(self, process: Process) -> None:
        """Run an exec."""
        if self._init.exited.is_set:
            raise FailedPrecondition(f"cannot start exec {process.exec_id}: container {self._init.id} has stopped")
        await self._launcher.exec(process)
        process.spec = b""
        process.on_start()
        self._events.exec_started(process)
        self._exits.watch(process)

    async def delete(self, process: Process) -> None:
        """Forget an exec that does not run; one that is being started is waited for."""
        await process.until_started()
        process.check("delete")
        if process.state == STOPPED:
            await process.release()
            # Another request may have deleted it meanwhile.
            process.check("delete")
        # A start that still waits for its turn finds this.
        process.state = DELETED
        process.streams.close()
        disk.remove(exec_pid_file(self._bundle, process.exec_id))
        del self.by_id[process.exec_id]
        # Those who wait for it must not wait for ever.
        process.exited.set()

    async def close(self) -> None:
        """Close the streams of all, at the end of their container."""
        for process in self.by_id.values():
            process.streams.close()
            process.exited.set()
        for process in self.by_id.values():
            await process.streams.ended()
