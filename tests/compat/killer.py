"""Kills daemon, zygotes and shims of a machine at random, by a seed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal

from compat.accounts import WAITING, WORKER, ZYGOTE, family, shim_of
from compat.strain import PATIENCE, Strain, pod_of

from windlass.errors import Error
from windlass_api.containerd.v1.types.task_pb2 import RUNNING
from windlass_client.client import Client


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
            self._kill_member(pid, ZYGOTE, "zygote with its daemon")
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
            self._kill_member(self._chance.choice(zygotes), ZYGOTE, "zygote")

    async def _child(self) -> None:
        if waiting := self._members(WAITING):
            self._kill_member(self._chance.choice(waiting), WAITING, "child in reserve")

    async def _shim(self) -> None:
        found = ((pid, shim_of(name, title), name) for pid, name, title in family(self._machine))
        shims = sorted((pid, id, name) for pid, id, name in found if id and id not in self._strain.standing)
        if shims:
            pid, id, name = self._chance.choice(shims)
            self._strain.condemned.add(pod_of(id))
            self._kill(pid, "worker of a shim" if name == WORKER else "shim")

    def _members(self, wanted: str) -> list[int]:
        return sorted(pid for pid, name, title in family(self._machine) if name == wanted and title == ZYGOTE)

    def _kill_member(self, pid: int, name: str, target: str) -> None:
        """Kill what is still a zygote or a child in reserve, and not a shim by now, which would be another's loss."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            if (pid, name, ZYGOTE) in family(self._machine):
                self._kill(pid, target)
            else:
                os.kill(pid, signal.SIGCONT)

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
