"""A project in the foreground: the output of its containers until they have ended, or until ^C stops them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from windlass.errors import Error, NotFound
from windlass_client.compose import down
from windlass_client.compose.engine import Engine, Member
from windlass_client.compose.following import Printer, Wish
from windlass_client.compose.model import Project
from windlass_client.compose.parallel import together
from windlass_client.compose.shared import Report

INTERRUPTED = 130
AGAIN = 0.5
"""Seconds between looks at a container that its restart policy may start again."""


class Attached:
    """The containers of a project that this terminal belongs to."""

    def __init__(
        self,
        engine: Engine,
        project: Project,
        printer: Printer,
        report: Report,
        abort: bool = False,
        decisive: str = "",
    ) -> None:
        """``abort`` stops all once one has ended; ``decisive`` is the service whose exit code is the result."""
        self._engine = engine
        self._project = project
        self._printer = printer
        self._report = report
        self._abort = abort or bool(decisive)
        self._decisive = decisive
        self._began = now()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._members: dict[str, Member] = {}
        self._codes: dict[str, int] = {}
        self._interrupts = 0
        self._stopping = asyncio.Event()

    def attend(self, member: Member) -> None:
        """Print what a container writes from now on; one that was started again is there already."""
        self._members[member.id] = member
        self._printer.know([member])
        if member.id not in self._tasks:
            self._tasks[member.id] = asyncio.get_running_loop().create_task(self._attend(member))

    async def bring(self, work: Coroutine[object, object, None]) -> None:
        """Wait for what brings the project up, or until it is interrupted."""
        bringing = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({bringing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if bringing.done():
                bringing.result()
        except BaseException:
            await self._leave()
            raise
        finally:
            for task in (bringing, stopping):
                task.cancel()
            await asyncio.gather(bringing, stopping, return_exceptions=True)

    async def _leave(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def finish(self) -> int:
        """Return the exit code once all containers have ended."""
        stopping = asyncio.create_task(self._stopping.wait())
        pending = {*self._tasks.values(), stopping}
        try:
            while pending - {stopping} and not self._stopping.is_set():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for each in done - {stopping}:
                    each.result()
                if self._abort and done:
                    break
            await self._stop_all()
        finally:
            stopping.cancel()
            await self._leave()
        if self._interrupts:
            return INTERRUPTED
        return self._code()

    def _code(self) -> int:
        if not self._decisive:
            return 0
        codes = [self._codes[each.id] for each in self._members.values() if each.service == self._decisive]
        return codes[0] if codes else 1

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let ^C stop all containers, and the second one kill them."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        self._interrupts += 1
        self._stopping.set()
        if self._interrupts == 1:
            sys.stderr.write("windlass: stopping; press ^C again to kill\n")
        else:
            asyncio.get_running_loop().create_task(self._kill_all())

    async def _stop_all(self) -> None:
        members = await self._current()
        if any(each.runs for each in members):
            await down.stop(self._engine, members, self._project.services, None, self._report)
        for each in members:
            if each.id not in self._codes:
                self._codes[each.id] = await self._engine.wait(each.id)

    async def _kill_all(self) -> None:
        async def kill(member: Member) -> None:
            with contextlib.suppress(Error):  # it may have ended meanwhile
                await self._engine.kill(member.id, "SIGKILL")

        await together(kill(each) for each in await self._current() if each.runs)

    async def _current(self) -> Sequence[Member]:
        return [each for each in await self._engine.members(self._project.name) if each.id in self._members]

    async def _attend(self, member: Member) -> None:
        wish = Wish(follow=True, since=self._began)
        while True:
            async for line in self._engine.logs(member.id, wish.follow, wish.tail, wish.since, wish.until):
                self._printer.line(member.name, line.text, line.time)
            wish = replace(wish, since=now())
            code = self._codes[member.id] = await self._engine.wait(member.id)
            self._printer.say(f"{member.name} exited with code {code}")
            if not await self._runs_again(member, code):
                return

    async def _runs_again(self, member: Member, code: int) -> bool:
        """Return whether a container was started again; its policy says how long that can still come."""
        service = self._project.services.get(member.service)
        policy = service.restart if service else "no"
        if policy == "no" or (policy.startswith("on-failure") and code == 0) or self._abort:
            return False
        while not self._stopping.is_set():
            with contextlib.suppress(NotFound):
                current = [each for each in await self._current() if each.id == member.id]
                if not current:
                    return False
                if current[0].runs:
                    return True
            await asyncio.sleep(AGAIN)
        return False


def now() -> str:
    """Return the time in RFC 3339, as logs have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
