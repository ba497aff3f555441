"""A process in the foreground: its streams are ours, signals go to it, its exit status is ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from windlass.contracts.tasks import Exit
from windlass.errors import Error, Unavailable
from windlass_client.detachkeys import Watcher
from windlass_client.logs.viewing import View
from windlass_local.fifos import Fifos
from windlass_local.namespace import Tasks
from windlass_local.pump import Pump

FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGCONT,
)
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 3
"""Interrupts after which the process is killed, and waited for no longer than LEAVE_TIMEOUT."""
LEAVE_TIMEOUT = 5.0
DELETE_TIMEOUT = 15.0
"""Longer than a shim waits for output that a child of the process keeps open."""


class Left(Unavailable):
    """The user interrupted us so often that we no longer wait for an end."""


class Detached(Exception):
    """The user has left, and the process goes on."""


@dataclass
class Session:
    """One process of a task; an empty ``exec_id`` is its first."""

    tasks: Tasks
    id: str
    exec_id: str
    streams: Fifos
    view: View | None = None
    """What shows the output, where that does not come by FIFOs of ours. The process then does not depend on us."""
    detach_keys: bytes = b""
    begin: bool = True
    """Whether the process is to be started."""
    proxy: bool = True
    """Whether signals go to the process."""
    close_stdin: bool = True
    """Whether the end of our input is the end of the process's."""
    _pumps: list[Pump] = field(default_factory=list)
    _input: Pump | None = None
    _interrupts: int = 0
    _detached: bool = False

    async def run(self, delete: Callable[[], Awaitable[object]] | None) -> int:
        """Start the created process, wait for its end, delete it, and return its exit status. Raises Detached."""
        waiting = asyncio.ensure_future(self.tasks.wait(self.id, self.exec_id))
        loop = asyncio.get_running_loop()
        try:
            with raw_terminal() if self.streams.terminal else contextlib.nullcontext():
                self._connect(loop, waiting)
                async with self._signals(loop, waiting):
                    if self.begin:
                        await self.tasks.start(self.id, self.exec_id)
                    self._connect_input(loop, waiting)
                    if self.streams.terminal:
                        await self._resize()
                    status = await self._end(waiting)
                if self.view:
                    await self._seen(self.view)
                if delete:
                    # The shim holds the FIFOs open until the process is deleted.
                    await self._delete(delete)
                for pump in self._pumps:
                    await pump.drained()
            return status
        finally:
            waiting.cancel()
            for pump in [*self._pumps, *([self._input] if self._input else [])]:
                pump.close()

    async def _end(self, waiting: asyncio.Future[Exit]) -> int:
        try:
            return (await waiting).status
        except asyncio.CancelledError:
            if self._detached:
                raise Detached from None
            if not self.left:
                raise
            what = f"process {self.exec_id} of container {self.id}" if self.exec_id else f"container {self.id}"
            raise Left(
                f"{what} was killed, and its end is not known after {LEAVE_TIMEOUT:g} s; see `windlass ps -a`"
            ) from None

    async def _seen(self, view: View) -> None:
        try:
            async with asyncio.timeout(DELETE_TIMEOUT):
                await view.ended()
        except TimeoutError:
            await view.drained()

    async def _delete(self, delete: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(DELETE_TIMEOUT):
                await delete()
        except TimeoutError:
            # The exit status is known and matters more, so this is not an error.
            what = self.exec_id or self.id
            sys.stderr.write(
                f"windlass: process {what} is not deleted: something in its container keeps its output open\r\n"
            )

    @property
    def left(self) -> bool:
        """Whether the user interrupted it so often that we no longer wait."""
        return self._interrupts >= PATIENCE

    def _connect(self, loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[Exit]) -> None:
        if self.view:
            self.view.start(lambda: self._soon(loop, lambda: self._lose_output(waiting)))
        for stream, ours in (("stdout", 1), ("stderr", 2)):
            if stream in self.streams.descriptors:
                fifo = self.streams.take(stream)
                self._pumps.append(Pump(fifo, ours, fifo, broken=lambda: self._soon(loop, self._break_pipe)))

    def _connect_input(self, loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[Exit]) -> None:
        # Only now: the shim opens the FIFOs of an exec when it starts; bytes written before that are lost.
        if "stdin" in self.streams.descriptors:
            fifo = self.streams.take("stdin")
            finished = self._close_stdin if self.close_stdin else self._go_on

            def left() -> None:
                loop.call_soon_threadsafe(self.detach, waiting)

            watcher = Watcher(self.detach_keys, left)
            self._input = Pump(
                0,
                fifo,
                fifo,
                finished=lambda: self._soon(loop, finished),
                intercept=watcher if self.detach_keys and self.streams.terminal else None,
            )

    def detach(self, waiting: asyncio.Future[Exit]) -> None:
        """Leave, and let the process go on."""
        self._detached = True
        waiting.cancel()

    async def _go_on(self) -> None:
        pass

    def _soon(self, loop: asyncio.AbstractEventLoop, step: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended with the process
            loop.call_soon_threadsafe(lambda: asyncio.ensure_future(step()))

    async def _close_stdin(self) -> None:
        with contextlib.suppress(Error):  # the process may have ended on its own
            await self.tasks.close_stdin(self.id, self.exec_id)

    async def _lose_output(self, waiting: asyncio.Future[Exit]) -> None:
        if self.streams.terminal or not self.begin:
            self.detach(waiting)  # the terminal has gone; the container need not
        else:
            await self._break_pipe()

    async def _break_pipe(self) -> None:
        # As SIGPIPE would; but that one does not reach the first process of a pid namespace, pid_namespaces(7).
        await self._forward(signal.SIGKILL)

    async def _resize(self) -> None:
        with contextlib.suppress(OSError, Error):
            size = os.get_terminal_size(1)
            await self.tasks.resize(self.id, self.exec_id, size.columns, size.lines)

    @contextlib.asynccontextmanager
    async def _signals(self, loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[Exit]) -> AsyncIterator[None]:
        pending: set[asyncio.Task[None]] = set()

        def begin(step: Callable[[], Awaitable[None]]) -> None:
            task = loop.create_task(_run(step))
            pending.add(task)
            task.add_done_callback(pending.discard)

        def interrupt(number: int) -> None:
            self._interrupts += 1
            if self.view and not (self.begin and self.proxy):
                if self.left or not self.proxy:
                    self.detach(waiting)
                else:
                    begin(lambda: self._forward(number))
                return
            # The first process of a container ignores signals that it has no handler for, pid_namespaces(7). Without a
            # reader of its output it cannot go on, so it is killed before we leave.
            if self._interrupts == PATIENCE:
                sys.stderr.write(f"windlass: interrupted {PATIENCE} times: killing container {self.id}\r\n")
                loop.call_later(LEAVE_TIMEOUT, waiting.cancel)
            begin(lambda: self._forward(signal.SIGKILL if self.left else number))

        for number in FORWARDED:
            if number in INTERRUPTS:
                loop.add_signal_handler(number, interrupt, number)
            elif self.view and (not self.proxy or (number == signal.SIGHUP and self.streams.terminal)):
                loop.add_signal_handler(number, self.detach, waiting)
            else:
                loop.add_signal_handler(number, begin, lambda number=number: self._forward(number))
        if self.streams.terminal:
            loop.add_signal_handler(signal.SIGWINCH, begin, self._resize)
        try:
            yield
        finally:
            for number in (*FORWARDED, signal.SIGWINCH):
                loop.remove_signal_handler(number)
            for task in pending:
                task.cancel()

    async def _forward(self, number: int) -> None:
        with contextlib.suppress(Error):  # it may have ended, or not have started
            await self.tasks.kill(self.id, number, self.exec_id)


async def _run(step: Callable[[], Awaitable[None]]) -> None:
    await step()


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Let every key through to the container as long as this lasts."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # keeps what was typed before
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
