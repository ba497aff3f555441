"""Workers that make containers, enter them, watch them, kill and delete them, in every way there is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from compat.strain import PATIENCE, Felt, Refused, Strain

from windlass.contracts.tasks import CreateOptions
from windlass.errors import Error, FailedPrecondition, NotFound
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2 as sandboxes
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2_grpc as sandbox_stubs
from windlass_api.containerd.types.sandbox_pb2 import Sandbox
from windlass_api.containerd.v1.types.task_pb2 import RUNNING, Process
from windlass_client.client import Client
from windlass_client.launch import LaunchOptions, create
from windlass_client.namespace import ClientNamespace
from windlass_local import fifos
from windlass_local.fifos import Fifos
from windlass_local.launch import Launched
from windlass_oci.payloads import PROCESS, spec_of, to_payload

T = TypeVar("T")

CTR_PATIENCE = 30.0
CTR_AFTERLIFE = 5.0
"""How long `ctr` is given after a kill that concerns it; it does not always notice that its daemon has died."""

TOLD_WITHIN = 10.0
"""Longest that an exit event may be under way."""

FOREVER = "while :; do sleep 100; done"
SNAPSHOTTER = "overlayfs"
RUNC, POD = "io.containerd.runc.v2", "io.kubernetes.cri.sandbox-id"
KILLED, UNKNOWN = 137, 255

EXECUTABLES = (shutil.which("containerd-shim-runc-v2"), Path(sys.executable).with_name("containerd-shim-windlass-v1"))
RUNTIMES = (*[RUNC] * 6, *(str(path) for path in EXECUTABLES if path and Path(path).exists()))
"""One is drawn for each container: our shim, forked; now and then Debian's, or ours as an executable."""


class Worker:
    """Makes containers one after the other, of its own IDs, each in one of several ways."""

    def __init__(self, strain: Strain, client: Client, number: int, chance: random.Random) -> None:
        self._strain = strain
        self._client = client
        self._namespace = ClientNamespace(client)
        self._number = number
        self._chance = chance
        self._machine = strain.machine
        self._made = 0

    @property
    def ways(self) -> tuple[Callable[[str], Awaitable[None]], ...]:
        """What is done with a container, from its first step on; more than once is more often."""
        return (self._brief, self._brief, self._long, self._long, self._ctr_run, self._ctr_steps, self._pod)

    async def run(self, until: Callable[[], bool]) -> None:
        """Work until ``until()``; what was begun is finished and removed."""
        while not until():
            await self._go(self._chance.choice(self.ways))

    async def rehearse(self) -> None:
        """Go every way once, all at the same time."""
        await asyncio.gather(*map(self._go, self.ways))

    async def _go(self, way: Callable[[str], Awaitable[None]]) -> None:
        self._made += 1
        id = f"w{self._number}-{self._made}-{secrets.token_hex(2)}"
        try:
            await way(id)
        except Felt:
            self._strain.counts["cut short"] += 1
        await self._remove(id, self._remove_once)

    async def attempt(self, id: str, step: str, work: Awaitable[T]) -> T:
        """Do a step that nothing but a kill may spoil."""
        strain, life = self._strain, self._strain.life
        try:
            return await work
        except (Error, Refused) as error:
            if strain.excused(id, life):
                strain.excuse(id, step, error)
            else:
                strain.violate(f"{id}: {step}: {type(error).__name__}: {error}")
            raise Felt from error

    async def stand(self) -> None:
        """Run a container that is to outlast everything."""
        self._made += 1
        id = f"standing-{self._made}"
        self._strain.standing[id] = 0
        _, self._strain.standing[id] = await self._launch(id, FOREVER, Fifos())
        await self.attempt(id, "start", self._client.tasks.start(id))

    async def fall(self) -> None:
        """Remove what `stand` has made."""
        for id in list(self._strain.standing):
            del self._strain.standing[id]
            await self._remove(id, self._remove_once)

    async def _launch(self, id: str, script: str, streams: Fifos) -> tuple[Launched, int]:
        runtime = self._chance.choice(RUNTIMES)
        wanted = LaunchOptions(self._strain.image, id, ("/bin/sh", "-c", script), runtime=runtime)
        launched = await self.attempt(id, "create the container", create(self._client, wanted))
        task = self._namespace.tasks.create(launched.container, CreateOptions(rootfs=launched.rootfs, io=streams.io))
        pid = await self.attempt(id, "create the task", task)
        return launched, pid

    async def _brief(self, id: str) -> None:
        """Run a program that ends by itself, and hear its output and its exit status."""
        tasks = self._client.tasks
        with fifos.make("x", stdin=False, terminal=False, parent=f"{self._machine.directory}/fifos") as streams:
            await self._launch(id, "echo out; exit 7", streams)
            waiting = asyncio.ensure_future(self._wait(id))
            try:
                await self.attempt(id, "start", tasks.start(id))
                status = await self.attempt(id, "wait", waiting)
            finally:
                waiting.cancel()
            await self.attempt(id, "delete", tasks.delete(id))
            output = os.read(streams.descriptors["stdout"], 100)
        if not self._strain.is_condemned(id) and (status, output) != (7, b"out\n"):
            self._strain.violate(f"{id}: status {status}, output {output!r} instead of 7 and 'out'")
        self._strain.counts["brief"] += 1

    async def _long(self, id: str) -> None:
        """Run a program that goes on for ever, enter it, see that it stays, and kill it."""
        tasks, strain = self._client.tasks, self._strain
        launched, pid = await self._launch(id, FOREVER, Fifos())
        life = strain.life
        await self.attempt(id, "start", tasks.start(id))
        for number in range(self._chance.randint(1, 4)):
            with contextlib.suppress(Felt):
                await self._exec(id, f"e{number}", launched)
            await asyncio.sleep(self._chance.uniform(0, 0.3))
            if not await self._still_runs(id, pid):
                await self._mourn(id, life)
                return
        waiting = asyncio.ensure_future(self._wait(id))
        try:
            await self.attempt(id, "kill", tasks.kill(id, signal.SIGKILL, all=self._chance.random() < 0.3))
            status = await self.attempt(id, "wait", waiting)
        finally:
            waiting.cancel()
        if status != KILLED and not (status == UNKNOWN and strain.is_condemned(id)):
            strain.violate(f"{id}: status {status} after SIGKILL")
        await self.attempt(id, "delete", tasks.delete(id))
        await self._heard(id, life)
        strain.counts["long"] += 1

    async def _pod(self, id: str) -> None:
        """Run containers in a pod, which share its shim, then shut it down, which ends them."""
        sandbox = Sandbox(sandbox_id=id, runtime=Sandbox.Runtime(name=RUNC), sandboxer="shim")
        names = [f"{id}.{number}" for number in range(self._chance.randint(1, 3))]
        try:
            await self.attempt(id, "create the pod's record", self._store("Create", sandbox=sandbox))
            await self.attempt(id, "create the pod", self._controller("Create", id, sandbox=sandbox))
            await self.attempt(id, "start the pod", self._controller("Start", id))
            for name in names:
                command = ("run", "-d", "--annotation", f"{POD}={id}", self._strain.image, name, "/bin/sleep", "1000")
                await self.attempt(name, "ctr run -d in a pod", self._ctr(name, 0, *command))
            for name in names:
                if isinstance(found := await self._look_up(name), Process) and await self._still_runs(name, found.pid):
                    continue
                if not self._strain.is_condemned(name):
                    self._strain.violate(f"{name}: lost: {found}")
            if self._chance.random() < 0.5:
                await self.attempt(id, "stop the pod", self._controller("Stop", id))
            await self.attempt(id, "shut the pod down", self._controller("Shutdown", id))
            self._strain.counts["pod"] += 1
        except Felt:
            self._strain.counts["cut short"] += 1
        await self._remove(id, self._remove_pod_once)
        for name in names:
            await self._remove(name, self._remove_once)

    async def _remove_pod_once(self, id: str) -> None:
        with contextlib.suppress(NotFound):
            await self._controller("Shutdown", id)
        with contextlib.suppress(NotFound):
            await self._store("Delete", sandbox_id=id)

    async def _controller(self, method: str, id: str, **fields: object) -> object:
        connection = self._client.connection
        request = getattr(sandboxes, f"Controller{method}Request")(sandbox_id=id, sandboxer="shim", **fields)
        return await connection.call(getattr(sandbox_stubs.ControllerStub(connection.channel), method), request)

    async def _store(self, method: str, **fields: object) -> object:
        connection = self._client.connection
        request = getattr(sandboxes, f"Store{method}Request")(**fields)
        return await connection.call(getattr(sandbox_stubs.StoreStub(connection.channel), method), request)

    async def _exec(self, id: str, exec_id: str, launched: Launched) -> None:
        tasks = self._client.tasks
        process = {**spec_of(launched.container)["process"], "args": ["/bin/sh", "-c", "echo in; exit 3"]}
        with fifos.make("x", stdin=False, terminal=False, parent=f"{self._machine.directory}/fifos") as streams:
            await self.attempt(
                id, "exec", self._namespace.tasks.exec(id, exec_id, to_payload(PROCESS, process), streams.io)
            )
            waiting = asyncio.ensure_future(self._wait(id, exec_id))
            try:
                await self.attempt(id, "start the exec", tasks.start(id, exec_id))
                status = await self.attempt(id, "wait for the exec", waiting)
            finally:
                waiting.cancel()
            await self.attempt(id, "delete the exec", tasks.delete_exec(id, exec_id))
            output = os.read(streams.descriptors["stdout"], 100)
        if not self._strain.is_condemned(id) and (status, output) != (3, b"in\n"):
            self._strain.violate(f"{id}: exec: status {status}, output {output!r} instead of 3 and 'in'")
        self._strain.counts["exec"] += 1

    async def _still_runs(self, id: str, pid: int) -> bool:
        """Look up a container that was running; False, which is a violation or a killed shim's due, when it is not."""
        found = await self._look_up(id)
        if isinstance(found, Process) and (found.status, found.pid) == (RUNNING, pid):
            return True
        if not self._strain.is_condemned(id):
            what = f"status {found.status}, pid {found.pid}" if isinstance(found, Process) else str(found)
            self._strain.violate(f"{id}: lost: {what} instead of RUNNING, pid {pid}")
        return False

    async def _look_up(self, id: str) -> Process | Error:
        """Ask until there is a daemon that answers; that there is no such container is an answer."""
        end = time.monotonic() + PATIENCE
        while True:
            life = self._strain.life
            try:
                return await self._client.tasks.get(id)
            except NotFound as error:
                return error
            except Error as error:
                if not self._strain.excused(id, life) or time.monotonic() > end:
                    return error
            await asyncio.sleep(0.1)

    async def _mourn(self, id: str, life: int) -> None:
        """A container whose shim was killed has ended, for whoever asks, and its exit was told."""
        strain = self._strain
        strain.counts["bereaved"] += 1
        with contextlib.suppress(Felt):
            try:
                status = await self._wait(id)
            except NotFound:
                status = KILLED
            except Error as error:
                strain.violate(f"{id}: wait after its shim was killed: {type(error).__name__}: {error}")
                return
            if status not in (KILLED, UNKNOWN):
                strain.violate(f"{id}: status {status} after its shim was killed")
        await self._heard(id, life)

    async def _heard(self, id: str, life: int) -> None:
        """See that the exit event came, if the daemon and who listens to it have been there since ``life``."""
        strain, end = self._strain, time.monotonic() + TOLD_WITHIN
        while id not in strain.told:
            if strain.life != life or not life % 2:
                return
            if time.monotonic() > end:
                strain.violate(f"{id}: no exit event within {TOLD_WITHIN:.0f} s")
                return
            await asyncio.sleep(0.05)
        strain.counts["exit events"] += 1
        if strain.told[id] not in (KILLED, UNKNOWN):
            strain.violate(f"{id}: the exit event says {strain.told[id]}")

    async def _wait(self, id: str, exec_id: str = "") -> int:
        """Wait for a process's end; a wait that outlives `PATIENCE` is stuck."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._client.tasks.wait(id, exec_id)
        except TimeoutError:
            self._strain.violate(f"{id} {exec_id}: stuck: its wait did not end within {PATIENCE:.0f} s")
            raise Felt from None

    async def _remove(self, id: str, once: Callable[[str], Awaitable[None]]) -> None:
        """Delete whatever there is of a container, as a client does that does not know how far it got."""
        strain, end = self._strain, time.monotonic() + PATIENCE
        while True:
            life = strain.life
            try:
                return await once(id)
            except (Error, TimeoutError) as error:
                if time.monotonic() > end or not (strain.excused(id, life) or strain.kills):
                    strain.violate(f"{id}: stuck: it cannot be removed: {type(error).__name__}: {error}")
                    return None
                strain.excuse(id, "remove", error)
            await asyncio.sleep(0.1)

    async def _remove_once(self, id: str) -> None:
        client = self._client
        with contextlib.suppress(NotFound):
            found = await client.tasks.get(id)
            if found.status == RUNNING:
                with contextlib.suppress(NotFound, FailedPrecondition):
                    await client.tasks.kill(id, signal.SIGKILL)
                async with asyncio.timeout(CTR_PATIENCE):
                    await client.tasks.wait(id)
            await client.tasks.delete(id)
        with contextlib.suppress(NotFound):
            await client.containers.delete(id)
        with contextlib.suppress(NotFound):
            await client.snapshots.remove(SNAPSHOTTER, id)

    async def _ctr_run(self, id: str) -> None:
        """`ctr run --rm`, from nothing to nothing."""
        command = ("run", "--rm", "--fifo-dir", f"{self._machine.directory}/ctr-fifos", self._strain.image, id)
        output = await self.attempt(id, "ctr run", self._ctr(id, 5, *command, "/bin/sh", "-c", "echo out; exit 5"))
        if output != "out\n" and not self._strain.is_condemned(id):
            self._strain.violate(f"{id}: ctr run printed {output!r} instead of 'out'")
        self._strain.counts["ctr run"] += 1

    async def _ctr_steps(self, id: str) -> None:
        """`ctr run -d`, `tasks exec`, `tasks kill`, `tasks rm`, `containers rm`."""
        fifo_dir = ("--fifo-dir", f"{self._machine.directory}/ctr-fifos")
        steps: list[tuple[int, tuple[str, ...]]] = [
            (0, ("run", "-d", *fifo_dir, self._strain.image, id, "/bin/sleep", "1000")),
            (4, ("tasks", "exec", *fifo_dir, "--exec-id", "e", id, "/bin/sh", "-c", "exit 4")),
            (0, ("tasks", "rm", "-f", id)),
            (0, ("containers", "rm", id)),
        ]
        for status, command in steps:
            await self.attempt(id, f"ctr {' '.join(command[:2])}", self._ctr(id, status, *command))
        self._strain.counts["ctr steps"] += 1

    async def _ctr(self, id: str, status: int, *arguments: str) -> str:
        """Run ctr and return its output; raises Refused for another exit status."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *self._machine.command(*arguments), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
        talking = asyncio.ensure_future(process.communicate())
        try:
            await self._ended(id, talking)
        finally:
            if process.returncode is None:
                process.kill()
            out, error = await talking
        # ctr tells of a killed task's exit code as if it were a failure.
        told = [line for line in error.decode(errors="replace").splitlines() if "non-zero exit code" not in line]
        if process.returncode != status and (told or arguments[:2] != ("tasks", "rm")):
            raise Refused(f"exit status {process.returncode} instead of {status}: {' '.join(told)}")
        return out.decode(errors="replace")

    async def _ended(self, id: str, talking: asyncio.Future[tuple[bytes, bytes]]) -> None:
        life, end = self._strain.life, time.monotonic() + CTR_PATIENCE
        excused = False
        while not (await asyncio.wait({talking}, timeout=0.25))[0]:
            if self._strain.excused(id, life) and not excused:
                excused, end = True, time.monotonic() + CTR_AFTERLIFE
            if time.monotonic() > end:
                raise Refused("it does not end")
