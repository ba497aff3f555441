"""One container: what is done to it, in which order, and what is told about it.

Events of a container are published in the order create, start, exit, delete;
the exit of init comes after those of all execs.
"""

# ruff: noqa: PTH108
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import os
import time

from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument, NotFound
from windlass_linux import cgroups, mounting
from windlass_shim_runc import disk, messages, oom
from windlass_shim_runc.forgetting import may_be_hooked
from windlass_shim_runc.host import Host, check_identifier
from windlass_shim_runc.log import log
from windlass_shim_runc.loop import Flag, Lock
from windlass_shim_runc.process import CREATED, DELETED, PAUSED, RUNNING, STOPPED, Process, is_first_of_its_namespace
from windlass_shim_runc.runc import NAME_TAKEN, Runtime
from windlass_shim_runc.signals import SIGKILL
from windlass_shim_runc.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from windlass.contracts.mounts import Mount
    from windlass_shim_runc import process
    from windlass_shim_runc.keeper import Luggage
    from windlass_shim_runc.streams import Names

    Left = tuple[
        str,
        str,
        dict[str, object],
        tuple[bool, bool, bool, bool, str],
        "oom.Left | None",
        list[tuple[str, Names, process.Left]],
    ]

IO_TIMEOUT = 10.0
"""How long a delete waits for output that nobody reads."""

EXIT_TIMEOUT = 10.0
"""How long a delete waits for a killed process, and init's exit event for those of its execs."""

FORGET_TIMEOUT = 50.0
"""Longer than the runtime may take; only a defect lets it pass."""

MAX_SIGNAL = 64


class Container:
    """A container of this shim, from its creation to its deletion."""

    __slots__ = (
        "_forgetting",
        "_forgotten",
        "_host",
        "_lock",
        "_memory",
        "_mounted",
        "_options",
        "_owns_pids",
        "_restoring",
        "_runtime",
        "bundle",
        "execs",
        "id",
        "init",
    )

    def __init__(self, host: Host, id: str, bundle: str, names: Names, options: messages.Options) -> None:
        self._host = host
        self._options = options
        self._lock = Lock(host.loop)
        self._memory: oom.Watch | None = None
        self._mounted = False
        self._owns_pids = False
        self._restoring = ""
        """The checkpoint that `start` restores, empty when the container exists."""
        self._forgotten = False
        self._forgetting = Flag(host.loop)
        """Set when the runtime has been asked, or will not be asked, to forget the container before `delete`."""
        self.id = id
        self.bundle = bundle
        self._runtime = Runtime(host.loop, host.reaper, self.bundle, host.namespace, options)
        self.execs: dict[str, Process] = {}
        self.init = Process(host.loop, self.id, "", Streams(host.loop, host.reaper, names))

    def leave(self, luggage: Luggage) -> Left:
        """Return what `take_over` makes the same container of, at a moment when all tasks rest."""
        memory = self._memory.leave(luggage) if self._memory else None
        state = self._mounted, self._owns_pids, self._forgotten, self._forgetting.is_set, self._restoring
        processes = [
            (each.exec_id, each.streams.names, each.leave(luggage)) for each in (self.init, *self.execs.values())
        ]
        return self.id, self.bundle, vars(self._options), state, memory, processes

    @classmethod
    def take_over(cls, host: Host, luggage: Luggage, left: Left) -> Container:
        """Return the container that was left, with its tasks."""
        id, bundle, options, state, memory, ((_, names, init), *execs) = left
        container = cls(host, id, bundle, names, messages.Options(**options))
        container._mounted, container._owns_pids, container._forgotten, forgetting, container._restoring = state
        if forgetting:
            container._forgetting.set()
        if memory:
            container._memory = oom.take_over(host.loop, luggage, memory, container._on_oom)
        container._take_over_process(container.init, luggage, init)
        for exec_id, names, process in execs:
            container._take_over_process(container._add(exec_id, names, b""), luggage, process)
        return container

    def _take_over_process(self, process: Process, luggage: Luggage, left: process.Left) -> None:
        process.take_over(luggage, left)
        if process.pid and not process.exited.is_set:
            self._host.reaper.watch(process.pid, process.on_exit)
        if process.pid and not process.reported.is_set:
            self._host.loop.spawn(self._report(process))

    def process(self, exec_id: str) -> Process:
        """Return init for "", else the exec; raises NotFound."""
        if not exec_id:
            return self.init
        try:
            return self.execs[exec_id]
        except KeyError:
            raise NotFound(f"exec {exec_id[:76]} of container {self.id} does not exist") from None

    async def create(self, request: messages.CreateTaskRequest) -> None:
        """Mount the rootfs and have the runtime create the container; leaves nothing behind when that fails."""
        self._write_records()
        try:
            if request.rootfs:
                rootfs = f"{self.bundle}/rootfs"
                # Mounting reads only the four attributes that the message has too.
                mounts: Sequence[Mount] = request.rootfs  # type: ignore[assignment] # see above
                mounting.mount_all(mounts, rootfs)
                self._mounted = True
            if request.checkpoint:
                # Nothing is opened before the start: a client that deletes the task first waits for its FIFOs' end.
                self._restoring = request.checkpoint
            else:
                await self._run_init("create", self._runtime.create_flags)
        except (OSError, Error) as error:
            # Whose the name is, another daemon's container in the same place or what one has left, stays as it is.
            await self._undo_create(is_taken=NAME_TAKEN in str(error))
            raise
        io = messages.TaskIO(
            stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=request.terminal
        )
        self._publish(
            "/tasks/create",
            messages.TaskCreate(
                container_id=self.id,
                bundle=self.bundle,
                rootfs=request.rootfs,
                io=io,
                checkpoint=request.checkpoint,
                pid=self.init.pid,
            ),
        )
        if not request.checkpoint:
            self._host.loop.spawn(self._report(self.init))

    async def _run_init(self, verb: str, flags: Sequence[str]) -> None:
        pid_file = f"{self.bundle}/init.pid"
        stdio = await self._prepare(self.init)
        with self._host.reaper:
            arguments = ["--bundle", self.bundle, "--pid-file", pid_file, *flags]
            await self._run_attached(self.init, verb, arguments, stdio, "log.json", pid_file)
        self._owns_pids = is_first_of_its_namespace(self.init.pid)

    async def start(self, exec_id: str) -> int:
        """Run the program of init or of an exec, and return its pid."""
        process = self.process(exec_id)
        async with self._lock:
            process.check("start")
            if process.busy is not None:
                raise FailedPrecondition(f"process {exec_id or self.id} is being started")
            process.busy = Flag(self._host.loop)
        try:
            if exec_id:
                await self._start_exec(process)
            else:
                async with self._lock:
                    if self._restoring:
                        await self._restore(self._restoring)
                    else:
                        await self._runtime.start(self.id, process.exited)
                self._started(process)
                self._publish("/tasks/start", messages.TaskStart(container_id=self.id, pid=process.pid))
                process.streams.feed()
        finally:
            busy, process.busy = process.busy, None
            busy.set()
        return process.pid

    async def _restore(self, checkpoint: str) -> None:
        """Have the runtime bring a checkpoint to life; when that fails, no stream stays open."""
        from windlass_shim_runc.checkpoint import Job

        job = Job(self._runtime, self.id, self.bundle, self._options)
        try:
            await self._run_init("restore", job.restore_flags(checkpoint, self.init.streams.terminal))
        except (OSError, Error) as error:
            self.init.streams.close()
            raise (job.explained_restore(error) if isinstance(error, Error) else error) from error
        finally:
            job.end_restore()
            if self.init.pid:
                self._restoring = ""
                self._host.loop.spawn(self._report(self.init))

    async def checkpoint(self, request: messages.CheckpointTaskRequest) -> None:
        """Write a checkpoint, after which the container runs on unless the options say otherwise."""
        from windlass_shim_runc.checkpoint import Job

        async with self._lock:
            self.init.check("checkpoint")
            path = await Job(self._runtime, self.id, self.bundle, self._options).dump(request)
        self._publish("/tasks/checkpointed", messages.TaskCheckpointed(container_id=self.id, checkpoint=path))

    def add_exec(self, request: messages.ExecProcessRequest) -> None:
        """Note an exec, which waits for `start`."""
        self.init.check("exec")
        check_identifier("exec", request.exec_id)
        if request.exec_id in self.execs:
            raise AlreadyExists(f"exec {request.exec_id} of container {self.id} exists already")
        if not request.spec.value:
            raise InvalidArgument(f"exec {request.exec_id} has no process spec")
        names = request.stdin, request.stdout, request.stderr, request.terminal
        self._add(request.exec_id, names, with_terminal(request.spec.value, request.terminal))
        self._publish("/tasks/exec-added", messages.TaskExecAdded(container_id=self.id, exec_id=request.exec_id))

    def _add(self, exec_id: str, names: Names, spec: bytes) -> Process:
        host = self._host
        process = Process(host.loop, self.id, exec_id, Streams(host.loop, host.reaper, names), spec)
        self.execs[exec_id] = process
        return process

    async def delete(self) -> None:
        """Remove a container that does not run, with all that the runtime keeps of it."""
        init = self.init
        async with self._lock:
            # Another request may have deleted it while this one waited for the lock.
            init.check("delete")
            never_ran = init.state == CREATED
            if self._restoring:
                await self._give_up_restoring()
            elif never_ran:
                self._signal(init, SIGKILL)
                await init.exited.wait(EXIT_TIMEOUT)
            await self._forgetting.wait(FORGET_TIMEOUT)
            if not self._forgotten:
                await self._runtime.delete(self.id)
            await self._release(init)
            for process in self.execs.values():
                process.streams.close()
                process.exited.set()
            for process in self.execs.values():
                await process.streams.ended()
            if self._mounted:
                mounting.unmount_all(f"{self.bundle}/rootfs")
                self._mounted = False
            init.state = DELETED
            if never_ran:
                # As in containerd: 137 is for what the client has killed.
                init.exit_status = 0
        self._publish(
            "/tasks/delete",
            messages.TaskDelete(
                container_id=self.id,
                pid=init.pid,
                exit_status=init.exit_status,
                exited_at=messages.timestamp(init.exited_at),
            ),
        )

    async def _give_up_restoring(self) -> None:
        # There is no process, and nobody else tells those who wait for one.
        await self._undo_runtime()
        self._forgotten = True
        for flag in (self._forgetting, self.init.exited, self.init.reported):
            flag.set()

    async def delete_exec(self, process: Process) -> None:
        """Forget an exec that does not run; one that is being started is waited for."""
        await self._until_started(process)
        process.check("delete")
        if process.state == STOPPED:
            await self._release(process)
            # Another request may have deleted it meanwhile.
            process.check("delete")
        # A start that still waits for its turn finds this.
        process.state = DELETED
        process.streams.close()
        remove(self._exec_file(process, "pid"))
        del self.execs[process.exec_id]
        # Those who wait for it must not wait for ever.
        process.exited.set()

    async def _until_started(self, process: Process) -> None:
        while process.busy is not None:
            await process.busy.wait()

    async def kill(self, process: Process, number: int, all: bool) -> None:
        """Send a signal, 0 to ask only whether one could be sent; raises NotFound for a process that is gone.

        ``all`` is for everything in the container, when init has ended too; an exec is always meant alone.
        """
        name = process.exec_id or self.id
        if not 0 <= number <= MAX_SIGNAL:
            raise InvalidArgument(f"signal {number} does not exist; signals are 1 to {MAX_SIGNAL}")
        if process.exec_id:
            await self._until_started(process)
            if process.state == CREATED and not process.pid:
                raise FailedPrecondition(f"exec {name} of container {self.id} has not been started")
            self._signal(process, number)
        elif all and process.exited.is_set:
            await self._kill_rest(number)
        elif all or process.state == PAUSED:
            # Only the runtime can tell every process, or thaw a cgroup v1 so that SIGKILL takes effect.
            await self._runtime.kill(self.id, number, all)
        else:
            self._signal(process, number)

    async def _kill_rest(self, number: int) -> None:
        """Signal what init has left; nothing is fine."""
        try:
            if not self._forgotten:
                await self._runtime.kill(self.id, number, True)
        except NotFound:
            pass

    async def pause(self) -> None:
        """Freeze all processes."""
        async with self._lock:
            self.init.check("pause")
            await self._runtime.run("pause", self.id)
            if self.init.state == RUNNING:
                self.init.state = PAUSED
        self._publish("/tasks/paused", messages.TaskPaused(container_id=self.id))

    async def resume(self) -> None:
        """Thaw all processes."""
        async with self._lock:
            self.init.check("resume")
            await self._runtime.run("resume", self.id)
            if self.init.state == PAUSED:
                self.init.state = RUNNING
        self._publish("/tasks/resumed", messages.TaskResumed(container_id=self.id))

    async def update(self, resources: bytes) -> None:
        """Change resource limits, given as JSON LinuxResources."""
        async with self._lock:
            self.init.check("update")
            fd = os.memfd_create("resources")
            try:
                os.write(fd, resources)
                os.lseek(fd, 0, os.SEEK_SET)
                await self._runtime.run("update", self.id, "--resources", "-", stdio={0: fd})
            finally:
                os.close(fd)

    def status(self, process: Process) -> int:
        """Return what `State` shows: an exec is paused with its init."""
        return PAUSED if process.state == RUNNING and self.init.state == PAUSED else process.state

    async def _prepare(self, process: Process) -> dict[int, int]:
        options = self._options
        owner = (options.io_uid or -1, options.io_gid or -1)
        environment = {"CONTAINER_ID": process.exec_id or self.id, "CONTAINER_NAMESPACE": self._host.namespace}
        return dict(await process.streams.prepare(self.bundle, owner, environment))

    async def _run_attached(
        self, process: Process, verb: str, arguments: list[str], stdio: dict[int, int], log_file: str, pid_file: str
    ) -> None:
        """Have the runtime make a process with its streams, and take it over."""
        console = process.streams.console
        if console is not None:
            arguments += ["--console-socket", console.path]
        await self._runtime.run(verb, self.id, *arguments, stdio=stdio, log=log_file)
        process.pid = int(disk.read(pid_file))
        self._host.reaper.watch(process.pid, process.on_exit)
        await process.streams.begin()

    async def _start_exec(self, process: Process) -> None:
        if self.init.exited.is_set:
            raise FailedPrecondition(f"cannot start exec {process.exec_id}: container {self.id} has stopped")
        spec, pid_file = self._exec_file(process, "json"), self._exec_file(process, "pid")
        log_file = f"exec-{process.exec_id}.log"
        disk.write(spec, process.spec)
        try:
            stdio = await self._prepare(process)
            with self._host.reaper:
                arguments = ["--process", spec, "--pid-file", pid_file, "--detach"]
                await self._run_attached(process, "exec", arguments, stdio, log_file, pid_file)
            process.streams.feed()
        except (OSError, Error):
            process.streams.close()
            if process.pid:
                self._end_half_started(process)
            raise
        finally:
            remove(spec)
            remove(f"{self.bundle}/{log_file}")
        process.spec = b""
        self._started(process)
        self._publish(
            "/tasks/exec-started",
            messages.TaskExecStarted(container_id=self.id, exec_id=process.exec_id, pid=process.pid),
        )
        self._host.loop.spawn(self._report(process))

    def _end_half_started(self, process: Process) -> None:
        # It runs, but without its terminal; nobody else would end it.
        if not process.exited.is_set:
            self._signal(process, SIGKILL)
        self._started(process)
        self._host.loop.spawn(self._report(process))

    @staticmethod
    def _started(process: Process) -> None:
        # It may have ended before anybody heard that it had started.
        if process.state == CREATED:
            process.state = RUNNING

    async def _report(self, process: Process) -> None:
        """Publish a process's exit when its turn has come."""
        if process is self.init and self._memory is None:
            self._memory = self._watch_memory()
        await process.exited.rest()
        await self._until_started(process)
        if process is self.init:
            await self._after_init()
            if self._memory is not None:
                self._memory.close()
                self._memory = None
        self._publish(
            "/tasks/exit",
            messages.TaskExit(
                container_id=self.id,
                id=process.exec_id or self.id,
                pid=process.pid,
                exit_status=process.exit_status,
                exited_at=messages.timestamp(process.exited_at),
            ),
        )
        process.reported.set()
        if process is self.init:
            await self._forget()

    def _watch_memory(self) -> oom.Watch | None:
        try:
            return oom.watch(self._host.loop, self.init.pid, self._on_oom)
        except OSError as error:
            if not self.init.exited.is_set:
                log(f"cannot tell when container {self.id} is out of memory: {error}")
            return None

    def _on_oom(self) -> None:
        self._publish("/tasks/oom", messages.TaskOOM(container_id=self.id))

    async def _forget(self) -> None:
        """Have the runtime forget a stopped container while nobody waits for it.

        Only `delete` is the moment for poststop hooks; and it tries again, and says so, what fails here.
        """
        # First those who wait for the exit get their answer.
        await self._host.loop.sleep(0)
        try:
            spec = disk.read(f"{self.bundle}/config.json")
            if not may_be_hooked(spec) and len(spec) < disk.MAX_FILE:
                if not self._runtime.forget(self.id):
                    await self._runtime.delete(self.id)
                self._forgotten = True
        except (OSError, Error) as error:
            log(f"container {self.id} has ended but cannot be forgotten yet: {error}")
        finally:
            self._forgetting.set()

    async def _after_init(self) -> None:
        """See the execs out: Linux kills them with their pid namespace, without one of their own it is up to us."""
        if not self._owns_pids:
            try:
                await self._kill_rest(SIGKILL)
            except (OSError, Error) as error:
                log(f"cannot kill what is left of container {self.id}: {error}")
        for process in list(self.execs.values()):
            if process.pid or process.busy is not None:
                try:
                    await process.reported.wait(EXIT_TIMEOUT)
                except TimeoutError:
                    log(f"exec {process.exec_id} of container {self.id} outlives its init")

    async def _release(self, process: Process) -> None:
        """Wait for a stopped process's output and exit event, then close its streams."""
        try:
            await process.streams.drain(IO_TIMEOUT)
        except TimeoutError:
            log(f"output of {process.exec_id or self.id} is dropped: nobody read it for {IO_TIMEOUT:.0f} s")
        process.streams.close()
        await process.streams.ended()
        await process.reported.wait(EXIT_TIMEOUT + IO_TIMEOUT)

    def _signal(self, process: Process, number: int) -> None:
        # The pid is ours to use until the reaper has collected it, which sets `exited` first.
        gone = NotFound(f"process {process.exec_id or self.id} has finished already: process already finished")
        if process.exited.is_set or not process.pid:
            raise gone
        try:
            os.kill(process.pid, number)
        except ProcessLookupError as error:
            raise gone from error

    async def _undo_create(self, is_taken: bool) -> None:
        self.init.streams.close()
        await self.init.streams.ended()
        if not is_taken:
            try:
                await self._undo_runtime()
            except (OSError, Error) as error:
                log(f"cannot remove what is left of container {self.id}: {error}")
        if self._mounted:
            mounting.unmount_all(f"{self.bundle}/rootfs")
            self._mounted = False

    async def _undo_runtime(self) -> None:
        """Remove what the runtime has made, also when it was killed before it had written that it made it."""
        from windlass_shim_runc import leftovers

        directory = f"{self._runtime.root}/{self.id}"
        if leftovers.is_anothers(directory, self.bundle):
            return
        if disk.exists(directory):
            await self._runtime.delete(self.id, "--force")
        groups = cgroups.groups_of(disk.read(f"{self.bundle}/config.json"), self.id)
        deadline = time.monotonic() + cgroups.PATIENCE
        # What was in them has lost its runtime, and ends.
        while cgroups.remove(groups) and time.monotonic() < deadline:
            await self._host.loop.sleep(cgroups.PAUSE)
        if problem := leftovers.sweep(directory):
            raise Error(problem)

    def _write_records(self) -> None:
        """Write what a later `delete` of a shim binary reads (docs/containerd 4.2)."""
        disk.write(f"{self.bundle}/runtime", self._options.binary_name.encode())
        if options := vars(self._options):
            import json  # which few shims ever need

            disk.write(f"{self.bundle}/options.json", json.dumps(options).encode())

    def _exec_file(self, process: Process, suffix: str) -> str:
        return f"{self.bundle}/exec-{process.exec_id}.{suffix}"

    def _publish(self, topic: str, event: messages.Message) -> None:
        self._host.publisher.publish(topic, event)


def with_terminal(spec: bytes, wanted: bool) -> bytes:
    """Return the spec of a process with a terminal, or without one, whatever it says itself; raises InvalidArgument."""
    lowered = spec.lower()
    # As Go writes it, there is nothing to do.
    if lowered.count(b'"terminal"') == wanted == spec.count(b'"terminal":true') and b"\\u00" not in lowered:
        return spec
    import json  # which few shims ever need

    try:
        process = json.loads(spec)
        # Go takes names in any case (encoding/json), and the last one counts.
        process = {name: value for name, value in process.items() if name.lower() != "terminal"}
    except (ValueError, AttributeError, RecursionError) as error:
        raise InvalidArgument(f"process spec of an exec is not a JSON object: {error}") from None
    return json.dumps({**process, "terminal": wanted}).encode()


def remove(path: str) -> None:
    """Delete a file that may not be there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
