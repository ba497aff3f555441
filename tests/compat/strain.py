"""A private windlassd under load, with or without `kill -9`, and what it has lost or kept from being deleted.

The workers know what they have been told. A container whose start was answered,
and whose shim nobody killed, must be RUNNING with the same pid however often
the daemon dies; one whose shim was killed has ended, and its exit is told; all
can be deleted within `PATIENCE`. What is not so is a violation, a line of text.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import random
import re
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from compat.accounts import WAITING, ZYGOTE, Account, family, is_shim, take_account
from compat.machines import Machine
from google.protobuf.any_pb2 import Any as AnyMessage

from windlass.errors import Error, FailedPrecondition, NotFound
from windlass_api.containerd.events import task_pb2 as events_pb
from windlass_api.containerd.services.events.v1.events_pb2 import PublishRequest
from windlass_api.containerd.services.events.v1.events_pb2_grpc import EventsStub
from windlass_api.containerd.v1.types.task_pb2 import RUNNING, Process
from windlass_client import fifos
from windlass_client.client import Client
from windlass_client.containers import PROCESS, spec_of, to_any
from windlass_client.fifos import Fifos
from windlass_client.launch import Launched, Wishes, create

PATIENCE = 60.0
"""Longest that a container may resist its deletion, and a daemon's successor may take to answer."""

CTR_PATIENCE = 30.0
CTR_AFTERLIFE = 5.0
"""How long `ctr` is given after a kill that concerns it; it does not always notice that its daemon has died."""

TOLD_WITHIN = 10.0
"""Longest that an exit event may be under way."""

SETTLED_WITHIN = 30.0
"""Longest that what has been deleted may take to be gone, and a daemon's clients to be forgotten."""

T = TypeVar("T")

FOREVER = "while :; do sleep 100; done"
SNAPSHOTTER = "overlayfs"
KILLED, UNKNOWN = 137, 255
EXIT, READY = "/tasks/exit", "/strain/ready"


@dataclass
class Strain:
    """One run: a machine, and what has been done to it, told of it, and found wrong with it."""

    machine: Machine
    image: str
    violations: list[str] = field(default_factory=list)
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    excuses: collections.Counter[str] = field(default_factory=collections.Counter)
    """Errors that kills explain, names left out."""
    condemned: set[str] = field(default_factory=set)
    """Containers whose shim has been, or is just being, killed."""
    standing: dict[str, int] = field(default_factory=dict)
    """Pids by the IDs of containers whose shims are spared, and so must run all the time."""
    told: dict[str, int] = field(default_factory=dict)
    """Exit status by container, from the exit events that were heard."""
    life: int = 1
    """Odd while the daemon is there and listened to; a daemon's death makes it even."""

    def violate(self, what: str) -> None:
        """Note what must not be."""
        self.violations.append(f"{time.strftime('%H:%M:%S')} {what}")

    def excuse(self, id: str, step: str, error: BaseException) -> None:
        """Note an error that a kill explains."""
        text = re.sub(r"/\S+|\b[0-9a-f]{8,}\b", "…", str(error).replace(id, "ID"))
        whom = "its shim" if id in self.condemned else "the daemon"
        self.excuses[f"{whom}: {step}: {type(error).__name__}: {text}"] += 1

    def excused(self, id: str, life: int) -> bool:
        """Tell whether a step that began in ``life`` may have been spoilt by a kill."""
        return id in self.condemned or life != self.life or not life % 2


async def listen(strain: Strain, client: Client, ready: asyncio.Event) -> None:
    """Note the exits that are told, for ever; ``ready`` is set whenever the daemon's events begin to arrive."""
    while True:
        asking = asyncio.ensure_future(_ask_for_sign(client))
        try:
            async for envelope in client.events.subscribe():
                if envelope.topic == READY:
                    asking.cancel()
                    ready.set()
                elif envelope.topic == EXIT:
                    event = events_pb.TaskExit.FromString(envelope.event.value)
                    if event.id == event.container_id:
                        strain.told.setdefault(event.id, event.exit_status)
        except Error:
            await asyncio.sleep(0.05)
        finally:
            asking.cancel()


async def _ask_for_sign(client: Client) -> None:
    """Publish an event until somebody has heard it."""
    connection = client.connection
    request = PublishRequest(topic=READY, event=AnyMessage(type_url="strain.Ready"))
    while True:
        with contextlib.suppress(Error):
            await connection.call(EventsStub(connection.channel).Publish, request)
        await asyncio.sleep(0.02)


class Worker:
    """Makes containers one after the other, of its own IDs, each in one of several ways."""

    def __init__(self, strain: Strain, client: Client, number: int, chance: random.Random) -> None:
        self._strain = strain
        self._client = client
        self._number = number
        self._chance = chance
        self._machine = strain.machine
        self._made = 0

    async def run(self, until: Callable[[], bool]) -> None:
        """Work until ``until()``; what was begun is finished and removed."""
        ways = (self._brief, self._brief, self._long, self._long, self._ctr_run, self._ctr_steps)
        while not until():
            self._made += 1
            id = f"w{self._number}-{self._made}-{secrets.token_hex(2)}"
            way = self._chance.choice(ways)
            try:
                await way(id)
            except Felt:
                self._strain.counts["cut short"] += 1
            await self._remove(id)

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
            await self._remove(id)

    async def _launch(self, id: str, script: str, streams: Fifos) -> tuple[Launched, int]:
        wishes = Wishes(self._strain.image, id, ("/bin/sh", "-c", script))
        launched = await self.attempt(id, "create the container", create(self._client, wishes))
        pid = await self.attempt(id, "create the task", self._client.tasks.create(id, launched.rootfs, streams))
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
        if id not in self._strain.condemned and (status, output) != (7, b"out\n"):
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
        if status != KILLED and not (status == UNKNOWN and id in strain.condemned):
            strain.violate(f"{id}: status {status} after SIGKILL")
        await self.attempt(id, "delete", tasks.delete(id))
        await self._heard(id, life)
        strain.counts["long"] += 1

    async def _exec(self, id: str, exec_id: str, launched: Launched) -> None:
        tasks = self._client.tasks
        process = {**spec_of(launched.container)["process"], "args": ["/bin/sh", "-c", "echo in; exit 3"]}
        with fifos.make("x", stdin=False, terminal=False, parent=f"{self._machine.directory}/fifos") as streams:
            await self.attempt(id, "exec", tasks.exec(id, exec_id, to_any(PROCESS, process), streams))
            waiting = asyncio.ensure_future(self._wait(id, exec_id))
            try:
                await self.attempt(id, "start the exec", tasks.start(id, exec_id))
                status = await self.attempt(id, "wait for the exec", waiting)
            finally:
                waiting.cancel()
            await self.attempt(id, "delete the exec", tasks.delete_exec(id, exec_id))
            output = os.read(streams.descriptors["stdout"], 100)
        if id not in self._strain.condemned and (status, output) != (3, b"in\n"):
            self._strain.violate(f"{id}: exec: status {status}, output {output!r} instead of 3 and 'in'")
        self._strain.counts["exec"] += 1

    async def _still_runs(self, id: str, pid: int) -> bool:
        """Look up a container that was running; False, which is a violation or a killed shim's due, when it is not."""
        found = await self._look_up(id)
        if isinstance(found, Process) and (found.status, found.pid) == (RUNNING, pid):
            return True
        if id not in self._strain.condemned:
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

    async def _remove(self, id: str) -> None:
        """Delete whatever there is of a container, as a client does that does not know how far it got."""
        strain, end = self._strain, time.monotonic() + PATIENCE
        while True:
            life = strain.life
            try:
                return await self._remove_once(id)
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
        if output != "out\n" and id not in self._strain.condemned:
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


class Felt(Exception):
    """A step that was spoilt, by a kill or by a violation that has been noted."""


class Refused(Exception):
    """`ctr` has failed."""


class Killer:
    """Kills the daemon, its zygotes and its shims at random, and starts the daemon again."""

    def __init__(self, strain: Strain, client: Client, ready: asyncio.Event, seed: int) -> None:
        self._strain = strain
        self._client = client
        self._ready = ready
        self._machine = strain.machine
        self._chance = random.Random(seed)

    async def run(self, kills: int) -> None:
        """Kill ``kills`` times."""
        ways = (self._daemon, self._daemon, self._zygote, self._zygote, self._shim, self._shim, self._shim, self._child)
        while self._strain.kills.total() < kills:
            await asyncio.sleep(self._chance.choice((0.02, 0.1, 0.5)) * self._chance.random())
            await self._chance.choice(ways)()

    async def _daemon(self) -> None:
        """Kill the daemon, sometimes others with it, and its successor too; see that the last one has found all."""
        strain, chance = self._strain, self._chance
        companions, shims, again, pause = (chance.random() < share for share in (0.3, 0.3, 0.2, 0.3))
        zygotes = self._members(ZYGOTE) if companions else []
        strain.life += 1
        self._ready.clear()
        self._machine.kill()
        strain.kills["daemon"] += 1
        for pid in zygotes:
            self._kill(pid, "zygote with its daemon")
        if shims:
            await self._shim()
        if pause:
            await asyncio.sleep(0.3)
        if again:
            self._machine.begin()
            await asyncio.sleep(chance.uniform(0.2, 1.2))
            self._machine.kill()
            strain.kills["daemon while it recovers"] += 1
        self._ready.clear()
        await asyncio.to_thread(self._machine.start)
        await asyncio.wait_for(self._ready.wait(), PATIENCE)
        strain.life += 1
        await see_standing(strain, self._client)

    async def _zygote(self) -> None:
        if zygotes := self._members(ZYGOTE):
            self._kill(self._chance.choice(zygotes), "zygote")

    async def _child(self) -> None:
        if waiting := self._members(WAITING):
            self._kill(self._chance.choice(waiting), "child in reserve")

    async def _shim(self) -> None:
        shims = [(pid, title.split()[3]) for pid, _, title in family(self._machine) if is_shim(title)]
        shims = [(pid, id) for pid, id in sorted(shims) if id not in self._strain.standing]
        if shims:
            pid, id = self._chance.choice(shims)
            self._strain.condemned.add(id)
            self._kill(pid, "shim")

    def _members(self, wanted: str) -> list[int]:
        return sorted(pid for pid, name, title in family(self._machine) if name == wanted and title == ZYGOTE)

    def _kill(self, pid: int, target: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self._strain.kills[target] += 1


async def see_standing(strain: Strain, client: Client) -> None:
    """See that every container that is spared is listed as running."""
    try:
        found = {each.id: (each.pid, each.status) for each in await client.tasks.list()}
    except Error as error:
        strain.violate(f"list after a restart: {type(error).__name__}: {error}")
        return
    for id, pid in strain.standing.items():
        if found.get(id) != (pid, RUNNING):
            strain.violate(f"{id}: lost: listed as {found.get(id)} instead of pid {pid}, RUNNING")


async def put_under_strain(
    machine: Machine, image: str, *, workers: int, seconds: float, kills: int = 0, seed: int = 0
) -> Strain:
    """Let workers work for ``seconds``, or until ``kills`` are done, and take account before and after."""
    strain = Strain(machine, image)
    (machine.directory / "fifos").mkdir(exist_ok=True)
    async with connected(strain) as (client, _):
        # Whatever is made when it is first needed is there from now on.
        await work(strain, client, workers, seed, lambda: strain.counts.total() >= 2 * workers)
    before = await settled(machine)
    async with connected(strain) as (client, ready):
        spared = Worker(strain, client, workers, random.Random(seed))
        for _ in range(4 if kills else 1):
            await spared.stand()
        if kills:
            killing = asyncio.ensure_future(Killer(strain, client, ready, seed).run(kills))
            await asyncio.gather(killing, work(strain, client, workers, seed, killing.done))
        else:
            end = time.monotonic() + seconds
            await work(strain, client, workers, seed, lambda: time.monotonic() >= end)
        await see_standing(strain, client)
        await spared.fall()
        if kills:
            # What a lease keeps of a client that has been cut short is kept for a day.
            for lease in await client.leases.list():
                await client.leases.delete(lease.id)
    strain.violations += await gone(machine, before)
    return strain


@contextlib.asynccontextmanager
async def connected(strain: Strain) -> AsyncIterator[tuple[Client, asyncio.Event]]:
    """Yield a client, and an event that is set when the daemon's events arrive through it, which they do now."""
    ready = asyncio.Event()
    async with Client(strain.machine.address, strain.machine.namespace) as client:
        listening = asyncio.ensure_future(listen(strain, client, ready))
        try:
            await asyncio.wait_for(ready.wait(), PATIENCE)
            yield client, ready
        finally:
            listening.cancel()
            await asyncio.wait({listening})


async def work(strain: Strain, client: Client, workers: int, seed: int, until: Callable[[], bool]) -> None:
    """Let so many workers work until ``until()``."""
    each = (Worker(strain, client, number, random.Random(f"{seed}/{number}")) for number in range(workers))
    await asyncio.gather(*(worker.run(until) for worker in each))


async def settled(machine: Machine) -> Account:
    """Return an account that does not change any more."""
    await asyncio.to_thread(machine.collect_garbage)
    end, account = time.monotonic() + SETTLED_WITHIN, await asyncio.to_thread(take_account, machine)
    while time.monotonic() < end:
        await asyncio.sleep(0.5)
        last, account = account, await asyncio.to_thread(take_account, machine)
        if not account.more_than(last) and not last.more_than(account):
            break
    return account


async def gone(machine: Machine, before: Account) -> list[str]:
    """Return what there is more than ``before``, once that is nothing or the time is up."""
    end = time.monotonic() + SETTLED_WITHIN
    await asyncio.to_thread(machine.collect_garbage)
    while more := (await asyncio.to_thread(take_account, machine)).more_than(before):
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.5)
    return more
