"""Sessions that end with an error when the server stops: clients take a connection that just closes for success."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from windlass.errors import Unavailable
from windlass.typing import override
from windlass_streaming.backend import Attach, Backend, Exec, Pipe, Session

R = TypeVar("R")


class Stoppable(Backend):
    """A backend whose sessions `stop` ends. Connections to ports end with the server's: their clients notice."""

    def __init__(self, backend: Backend) -> None:
        """Ask ``backend``."""
        self._backend = backend
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End all sessions, also those that begin later."""
        self._stopping.set()

    @override
    async def exec(self, request: Exec, session: Session) -> int:
        return await self._until_stopped(self._backend.exec(request, session), "the command was killed")

    @override
    async def attach(self, request: Attach, session: Session) -> None:
        await self._until_stopped(self._backend.attach(request, session), "the container goes on")

    @override
    async def forward(self, sandbox: str, port: int, pipe: Pipe) -> None:
        await self._backend.forward(sandbox, port, pipe)

    async def _until_stopped(self, session: Coroutine[object, object, R], effect: str) -> R:
        work = asyncio.ensure_future(session)
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Unavailable(f"the daemon is stopping, which ends the session; {effect}")
            return await work
        finally:
            stopped.cancel()
            if work.cancel():
                await asyncio.wait({work})
