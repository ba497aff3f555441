"""One container: what is done to it, in which order, and what is undone when that fails."""

from __future__ import annotations

from windlass.errors import Error, FailedPrecondition, InvalidArgument
from windlass_shim_runc import disk, oom, records
from windlass_shim_runc.commandline import NAME_TAKEN
from windlass_shim_runc.events import Events
from windlass_shim_runc.execs import Execs
from windlass_shim_runc.exits import Exits
from windlass_shim_runc.launch import Launcher
from windlass_shim_runc.log import log
from windlass_shim_runc.loop import Flag, Lock
from windlass_shim_runc.process import CREATED, DELETED, PAUSED, RUNNING, Process, is_first_of_its_namespace
from windlass_shim_runc.rootfs import Rootfs
from windlass_shim_runc.runc import NAME, runtime_of
from windlass_shim_runc.shim import Shim
from windlass_shim_runc.signals import SIGKILL
from windlass_shim_runc.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_shim_runc import messages
    from windlass_shim_runc.keeper import Handover
    from windlass_shim_runc.streams import Names

KILL_TIMEOUT = 10.0
"""How long a delete waits for the init that it has killed."""

MAX_SIGNAL = 64


class Container:
    """A container of this shim, from its creation to its deletion."""

    __slots__ = (
        "_checkpoint",
        "_events",
        "_exits",
        "_launcher",
        "_lock",
        "_options",
        "_rootfs",
        "_shim",
        "bundle",
        "execs",
        "id",
        "init",
        "runtime",
    )

    def __init__(self, shim: Shim, id: str, bundle: str, names: Names, options: messages.Options) -> None:
        self._shim = shim
        self._options = options
        self._lock = Lock(shim.loop)
        self._checkpoint = ""
        """What `start` restores, empty when the OCI runtime has the container."""
        self.id = id
        self.bundle = bundle
        self.init = Process(shim.loop, id, "", Streams(shim.loop, shim.reaper, names))
        self.runtime = runtime_of(shim, id, bundle, options)
        self._rootfs = Rootfs(bundle)
        self._events = Events(shim.publisher, id)
        execs: dict[str, Process] = {}
        self._exits = Exits(shim.loop, bundle, self.init, execs, self.runtime, self._events)
        self._launcher = Launcher(shim, bundle, options, self.runtime, self._exits)
        self.execs = Execs(shim, bundle, self.init, execs, self._launcher, self._exits, self._events)

    def to_record(self, handover: Handover) -> records.ContainerRecord:
        """Return what `take_over` makes the same container of, at a moment when all tasks rest."""
        exits = self._exits
        return records.ContainerRecord(
            id=self.id,
            bundle=self.bundle,
            options=self._options,
            mounted=self._rootfs.mounted,
            checkpoint=self._checkpoint,
            owns_pids=exits.owns_pids,
            forgotten=exits.forgotten,
            may_delete=exits.may_delete.is_set,
            memory=exits.memory.to_record(handover) if exits.memory else records.MemoryRecord(),
            init=self.init.to_record(handover),
            execs=tuple(process.to_record(handover) for process in self.execs.by_id.values()),
        )

    @classmethod
    def take_over(cls, shim: Shim, handover: Handover, record: records.ContainerRecord) -> Container:
        """Return the container of a record, with its tasks."""
        container = cls(shim, record.id, record.bundle, names_of(record.init), record.options)
        container._checkpoint, container._rootfs.mounted = record.checkpoint, record.mounted
        exits = container._exits
        exits.owns_pids, exits.forgotten = record.owns_pids, record.forgotten
        if record.may_delete:
            exits.may_delete.set()
        exits.memory = oom.take_over(shim.loop, handover, record.memory, container._events.out_of_memory)
        container._take_over_process(container.init, handover, record.init)
        for each in record.execs:
            process = container.execs.make(each.exec_id, names_of(each), b"")
            container._take_over_process(process, handover, each)
        return container

    def _take_over_process(self, process: Process, handover: Handover, record: records.ProcessRecord) -> None:
        process.take_over(handover, record)
        if process.pid and not process.exited.is_set:
            self._shim.reaper.watch(process.pid, process.on_exit)
        if process.pid and not process.reported.is_set:
            self._exits.watch(process)

    def process(self, exec_id: str) -> Process:
        """Return init for "", else the exec; raises NotFound."""
        return self.execs.get(exec_id) if exec_id else self.init

    async def create(self, request: messages.CreateTaskRequest) -> None:
        """Mount the rootfs and have the runtime create the container; leaves nothing behind when that fails."""
        self._write_records()
        try:
            self._rootfs.mount(request.rootfs)
            if request.checkpoint:
                # Nothing is opened before the start: a client that deletes the task first waits for its FIFOs' end.
                self._checkpoint = request.checkpoint
            else:
                await self._launcher.create(self.init)
                self._exits.owns_pids = is_first_of_its_namespace(self.init.pid)
        except (OSError, Error) as error:
            # Whose the name is, another daemon's container in the same place or what one has left, stays as it is.
            await self._undo_create(is_taken=NAME_TAKEN in str(error))
            raise
        self._events.created(request, self.init.pid)
        if not request.checkpoint:
            self._exits.watch(self.init)

    async def _undo_create(self, is_taken: bool) -> None:
        self.init.streams.close()
        await self.init.streams.ended()
        if not is_taken:
            try:
                await self.runtime.abandon()
            except (OSError, Error) as error:
                log(f"cannot remove what is left of container {self.id}: {error}")
        self._rootfs.unmount()

    async def start(self, exec_id: str) -> int:
        """Run the program of init or of an exec, and return its pid."""
        process = self.process(exec_id)
        async with self._lock:
            process.check("start")
            if process.starting is not None:
                raise FailedPrecondition(f"process {process.name} is being started")
            process.starting = Flag(self._shim.loop)
        try:
            await (self.execs.start(process) if exec_id else self._start_init())
        finally:
            starting, process.starting = process.starting, None
            starting.set()
        return process.pid

    async def _start_init(self) -> None:
        init = self.init
        async with self._lock:
            if self._checkpoint:
                await self._restore()
            else:
                await self.runtime.start(init.exited)
        init.on_start()
        self._events.started(init.pid)
        init.streams.begin_input()

    async def _restore(self) -> None:
        try:
            await self._launcher.restore(self.init, self._checkpoint)
        finally:
            if self.init.pid:
                self._checkpoint = ""
        self._exits.owns_pids = is_first_of_its_namespace(self.init.pid)

    async def delete(self) -> None:
        """Remove a container that does not run, with all that the runtime keeps of it."""
        init = self.init
        async with self._lock:
            # Another request may have deleted it while this one waited for the lock.
            init.check("delete")
            never_ran = init.state == CREATED
            if self._checkpoint:
                await self.runtime.abandon()
                self._exits.give_up()
            elif never_ran:
                init.signal(SIGKILL)
                await init.exited.wait(KILL_TIMEOUT)
            await self._exits.delete()
            await init.release()
            await self.execs.close()
            self._rootfs.unmount()
            init.state = DELETED
            if never_ran:
                # As in containerd: 137 is for what the client has killed.
                init.exit_status = 0
        self._events.deleted(init)

    async def kill(self, process: Process, number: int, all: bool) -> None:
        """Send a signal, 0 to ask only whether one could be sent; raises NotFound for a process that is gone.

        ``all`` is for everything in the container, when init has ended too; an exec is always meant alone.
        """
        if not 0 <= number <= MAX_SIGNAL:
            raise InvalidArgument(f"signal {number} does not exist; signals are 1 to {MAX_SIGNAL}")
        if process.exec_id:
            await process.until_started()
            if process.state == CREATED and not process.pid:
                raise FailedPrecondition(f"exec {process.exec_id} of container {self.id} has not been started")
            process.signal(number)
        elif all and process.exited.is_set:
            await self._exits.kill_rest(number)
        elif all or process.state == PAUSED:
            # Only the runtime can reach every process, or thaw a cgroup v1 so that SIGKILL takes effect.
            await self.runtime.kill(number, all)
        else:
            process.signal(number)

    async def pause(self) -> None:
        """Freeze all processes."""
        async with self._lock:
            self.init.check("pause")
            await self.runtime.pause()
            if self.init.state == RUNNING:
                self.init.state = PAUSED
        self._events.paused()

    async def resume(self) -> None:
        """Thaw all processes."""
        async with self._lock:
            self.init.check("resume")
            await self.runtime.resume()
            if self.init.state == PAUSED:
                self.init.state = RUNNING
        self._events.resumed()

    async def update(self, resources: bytes) -> None:
        """Change resource limits, given as JSON LinuxResources."""
        async with self._lock:
            self.init.check("update")
            await self.runtime.update(resources)

    async def checkpoint(self, request: messages.CheckpointTaskRequest) -> None:
        """Write a checkpoint, after which the container runs on unless the options say otherwise."""
        async with self._lock:
            self.init.check("checkpoint")
            path = await self.runtime.checkpoint(request)
        self._events.checkpointed(path)

    def status(self, process: Process) -> int:
        """Return what `State` shows: an exec is paused with its init."""
        return PAUSED if process.state == RUNNING and self.init.state == PAUSED else process.state

    def _write_records(self) -> None:
        """Write what a later `delete` of a shim binary reads (docs/containerd 4.2)."""
        program = self._options.binary_name or self._shim.program
        disk.write(f"{self.bundle}/runtime", b"" if program == NAME else program.encode())
        if options := vars(self._options):
            import json  # which few shims ever need

            disk.write(f"{self.bundle}/options.json", json.dumps(options).encode())


def names_of(record: records.ProcessRecord) -> Names:
    """Return what the client has named as the standard streams of a process."""
    streams = record.streams
    return streams.stdin, streams.stdout, streams.stderr, streams.terminal
