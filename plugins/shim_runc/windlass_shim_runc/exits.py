"""What happens when processes of a container end: the order of their events, and the runtime's part in it."""

from __future__ import annotations

from windlass.errors import Error, NotFound
from windlass_shim_runc import disk
from windlass_shim_runc.forgetting import may_be_hooked
from windlass_shim_runc.log import log
from windlass_shim_runc.loop import Flag
from windlass_shim_runc.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from windlass_shim_runc.events import Events
    from windlass_shim_runc.loop import Loop
    from windlass_shim_runc.oci import Runtime
    from windlass_shim_runc.oom import MemoryWatch
    from windlass_shim_runc.process import Process

EXIT_TIMEOUT = 10.0
"""How long init's exit event waits for those of its execs."""

FORGET_TIMEOUT = 50.0
"""Longer than the runtime may take; only a defect lets it pass."""


class Exits:
    """Reports the ends of a container's processes, and has the OCI runtime forget the container when init has ended."""

    __slots__ = (
        "_bundle",
        "_events",
        "_execs",
        "_init",
        "_loop",
        "_runtime",
        "forgotten",
        "may_delete",
        "memory",
        "owns_pids",
    )

    def __init__(
        self, loop: Loop, bundle: str, init: Process, execs: Mapping[str, Process], runtime: Runtime, events: Events
    ) -> None:
        self._loop = loop
        self._bundle = bundle
        self._init = init
        self._execs = execs
        self._runtime = runtime
        self._events = events
        self.memory: MemoryWatch | None = None
        self.owns_pids = False
        """Whether Linux kills the execs when init ends."""
        self.forgotten = False
        """Whether the OCI runtime keeps nothing of the container any more."""
        self.may_delete = Flag(loop)
        """Set when the runtime has been asked, or will not be asked, to forget the container before `Delete`."""

    def watch(self, process: Process) -> None:
        """Report the end of a process when its turn has come."""
        self._loop.spawn(self._report(process))

    async def kill_rest(self, number: int) -> None:
        """Signal what init has left; nothing is fine."""
        try:
            if not self.forgotten:
                await self._runtime.kill(number, True)
        except NotFound:
            pass

    async def delete(self) -> None:
        """Make the runtime delete the container, unless it has forgotten it already."""
        await self.may_delete.wait(FORGET_TIMEOUT)
        if not self.forgotten:
            await self._runtime.delete()

    def give_up(self) -> None:
        """Answer everyone who waits for a container that has never had a process."""
        self.forgotten = True
        for flag in (self.may_delete, self._init.exited, self._init.reported):
            flag.set()

    async def _report(self, process: Process) -> None:
        is_init = process is self._init
        if is_init and self.memory is None:
            self.memory = self._watch_memory()
        await process.exited.rest()
        await process.until_started()
        if is_init:
            await self._after_init()
            if self.memory is not None:
                self.memory.close()
                self.memory = None
        self._events.exited(process)
        process.reported.set()
        if is_init:
            await self._forget()

    def _watch_memory(self) -> MemoryWatch | None:
        try:
            return self._runtime.watch_memory(self._init.pid, self._events.out_of_memory)
        except OSError as error:
            if not self._init.exited.is_set:
                log(f"cannot tell when container {self._init.id} is out of memory: {error}")
            return None

    async def _after_init(self) -> None:
        """See the execs out: Linux kills them with their pid namespace, without one of their own the shim does."""
        if not self.owns_pids:
            try:
                await self.kill_rest(SIGKILL)
            except (OSError, Error) as error:
                log(f"cannot kill what is left of container {self._init.id}: {error}")
        for process in list(self._execs.values()):
            if process.pid or process.starting is not None:
                try:
                    await process.reported.wait(EXIT_TIMEOUT)
                except TimeoutError:
                    log(f"exec {process.exec_id} of container {self._init.id} outlives its init")

    async def _forget(self) -> None:
        """Make the runtime forget a stopped container while no client waits for it.

        Only `delete` is the moment for poststop hooks; and it tries again, and says so, what fails here.
        """
        # First those who wait for the exit get their answer.
        await self._loop.sleep(0)
        try:
            spec = disk.read(f"{self._bundle}/config.json")
            if not may_be_hooked(spec) and len(spec) < disk.MAX_FILE:
                if not self._runtime.forget():
                    await self._runtime.delete()
                self.forgotten = True
        except (OSError, Error) as error:
            log(f"container {self._init.id} has ended but cannot be forgotten yet: {error}")
        finally:
            self.may_delete.set()
