"""Moves a process's standard streams between its pipes (or terminal) and where the client wants them.

A FIFO is opened for both directions, so that the process sees neither EPIPE nor
end of file when a reader leaves, and another one may attach. Pipe to FIFO is
spliced; what cannot be spliced (terminals, appended files) is copied.
"""

from __future__ import annotations

import os
import stat
import time

from windlass.errors import Error, InvalidArgument
from windlass_shim_runc import files, logger, uris
from windlass_shim_runc.console import Console, resize
from windlass_shim_runc.loop import Loop, Task
from windlass_shim_runc.reaper import Reaper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from windlass_shim_runc.keeper import Luggage

    Names = tuple[str, str, str, bool]
    """What a client names as standard input, output and error, and whether that is a terminal."""

    Left = tuple[list[tuple[int, int]], bool, "tuple[int, int] | None", int, int, "tuple[int, int] | None", bool, int]
    """Copies, whether the last is the input's, input not begun, keeper, terminal, its size, end of input, logger."""

SPLICE_CHUNK = 1 << 20
COPY_CHUNK = 16 << 10

STDIN, STDOUT, STDERR = 0, 1, 2
NAMES = ("stdin", "stdout", "stderr")
MASTER = -1
"""In a planned copy: the terminal, which is there once the runtime has run."""


class Copy:
    """A task that moves what comes from one descriptor to another."""

    __slots__ = ("source", "target", "task")

    def __init__(self, task: Task, source: int, target: int) -> None:
        self.task = task
        self.source = source
        self.target = target


class Streams:
    """The streams of one process; owns every descriptor in it until `close`."""

    def __init__(self, loop: Loop, reaper: Reaper, names: Names) -> None:
        self.names = names
        self.stdin, self.stdout, self.stderr, self.terminal = names
        self.console: Console | None = None
        self._loop = loop
        self._reaper = reaper
        self._logger: logger.Logger | None = None
        self._owner = (-1, -1)
        self._size: tuple[int, int] | None = None
        self._open: set[int] = set()
        self._child: dict[int, int] = {}
        self._outputs: list[tuple[int, int]] = []
        self._input: tuple[int, int] | None = None
        self._keeper = -1
        self._master = -1
        self._stdin_closed = False
        self._copies: list[Copy] = []
        self._feed: Copy | None = None

    async def prepare(self, bundle: str, owner: tuple[int, int], environment: Mapping[str, str]) -> Mapping[int, int]:
        """Open everything and return what to give the runtime as descriptors 0 to 2.

        ``owner`` (uid and gid, or -1) gets the pipes; ``environment`` is a
        logger's. Raises Error or OSError with nothing left open.
        """
        self._owner = owner
        try:
            scheme, path, query = uris.split(self.stdout or self.stderr)
            if scheme in uris.LOGGER_SCHEMES:
                argv = uris.logger_command(path, query)
                await self._prepare_logger(argv, environment, bundle, scheme == "binary-v2")
            else:
                self._prepare_outputs(scheme)
            if self.terminal and not self._outputs:
                # What nobody wants is read all the same: a full terminal would stop the process.
                self._outputs.append((MASTER, self._keep(os.open(os.devnull, os.O_WRONLY))))
            if self.stdin:
                self._prepare_input()
            if self.terminal:
                self.console = Console(bundle)
        except (OSError, Error):
            self.close()
            raise
        return self._child

    async def begin(self) -> None:
        """Start copying: the runtime has run, so what it was given is closed here, and a terminal is received."""
        for fd in self._child.values():
            self._drop(fd)
        if self.console is not None:
            self._master = self._keep(await self.console.receive(self._loop))
            self.console.close()
            self.console = None
            os.set_blocking(self._master, False)
            if self._size is not None:
                self.resize(*self._size)
        for source, target in self._outputs:
            self._copies.append(self._copy(self._end(source), self._end(target)))

    def feed(self) -> None:
        """Start copying to the process's standard input, when the process has been started.

        Not before: clients block while they open or fill a FIFO without a reader,
        so none can see the end of what it sends before it may call CloseIO (ctr 1.6
        forgets to, when that comes before it has its task).
        """
        if self._input is None:
            return
        place, target = self._input
        self._input = None
        reading, keeper = files.open_input(place)
        source, self._keeper = self._keep(reading), self._keep(keeper)
        self._drop(place)
        self._feed = self._copy(source, self._end(target))
        if self._stdin_closed:
            self._drop(self._keeper)

    def close_stdin(self) -> None:
        """Let the process see end of file once all writers of its FIFO are gone; heeded also before `feed`."""
        self._stdin_closed = True
        if self._feed is not None:
            self._drop(self._keeper)

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size, now or once it is there; without a terminal nothing happens."""
        self._size = (width, height)
        if self._master >= 0:
            resize(self._master, width, height)

    async def drain(self, timeout: float) -> None:
        """Return when all output has been handed on; raises TimeoutError when something keeps it from ending."""
        deadline = time.monotonic() + timeout
        for copy in self._copies:
            await copy.task.finished.wait(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Stop copying and close everything; may be called twice, and `prepare` after it."""
        for copy in (*self._copies, *([self._feed] if self._feed else [])):
            self._loop.cancel(copy.task)
        if self.console is not None:
            self.console.close()
            self.console = None
        self._input, self._feed, self._master = None, None, -1
        self._child, self._outputs, self._copies = {}, [], []
        for fd in list(self._open):
            self._drop(fd)
        if self._logger is not None:
            self._logger.stop()

    async def ended(self) -> None:
        """Return when the logger of streams that are closed has ended: it must not outlive its container and shim."""
        if self._logger is not None:
            await self._logger.ended()

    def leave(self, luggage: Luggage) -> Left:
        """Return what `take_over` goes on with, at a moment when all copies rest and no terminal is awaited."""
        copies = [
            (luggage.put(copy.source, watched=True), luggage.put(copy.target))
            for copy in (*self._copies, *([self._feed] if self._feed else []))
            if not copy.task.finished.is_set
        ]
        fed = self._feed is not None and not self._feed.task.finished.is_set
        given = self._input and (luggage.put(self._input[0]), luggage.put(self._input[1]))
        keeper = luggage.put(self._keeper if self._keeper in self._open else -1)
        process = self._logger.pid if self._logger else 0
        return copies, fed, given, keeper, luggage.put(self._master), self._size, self._stdin_closed, process

    def take_over(self, luggage: Luggage, state: Left) -> None:
        """Go on with streams as they were left."""
        copies, fed, given, keeper, master, self._size, self._stdin_closed, process = state
        self._copies = [
            self._copy(self._take(luggage, source), self._take(luggage, target)) for source, target in copies
        ]
        if fed:
            self._feed = self._copies.pop()
        if given:
            self._input = (self._take(luggage, given[0]), self._take(luggage, given[1]))
        self._keeper, self._master = self._take(luggage, keeper), self._take(luggage, master)
        if process:
            self._logger = logger.Logger(self._loop, self._reaper, [], process)

    def _take(self, luggage: Luggage, index: int) -> int:
        fd = luggage.take(index)
        return self._keep(fd) if fd >= 0 else fd

    def _keep(self, fd: int) -> int:
        self._open.add(fd)
        return fd

    def _drop(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            os.close(fd)

    def _pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        return self._keep(reading), self._keep(writing)

    def _give(self, number: int, fd: int) -> None:
        if self._owner != (-1, -1):
            os.fchown(fd, *self._owner)
        self._child[number] = fd

    def _end(self, fd: int) -> int:
        # Each direction waits on a descriptor of its own: the loop takes one task for each.
        return fd if fd != MASTER else self._keep(os.dup(self._master))

    def _prepare_outputs(self, scheme: str) -> None:
        opened: dict[str, int] = {}
        for number, value in ((STDOUT, self.stdout), (STDERR, "" if self.terminal else self.stderr)):
            if not value:
                continue
            path = uris.split(value)[1]
            if path in opened:
                target = self._keep(os.dup(opened[path]))
            elif scheme == uris.FILE_SCHEME:
                target = self._keep(files.open_log(path))
            else:
                target = self._keep(files.open_output(path, NAMES[number]))
            opened[path] = target
            source = MASTER
            if not self.terminal:
                source, writing = self._pipe()
                os.set_blocking(source, False)
                self._give(number, writing)
            self._outputs.append((source, target))

    def _prepare_input(self) -> None:
        place = self._keep(files.find_input(uris.split(self.stdin)[1]))
        target = MASTER
        if not self.terminal:
            child, target = self._pipe()
            os.set_blocking(target, False)
            self._give(STDIN, child)
        self._input = (place, target)

    async def _prepare_logger(self, argv: list[str], environment: Mapping[str, str], bundle: str, strict: bool) -> None:
        if not argv[0].startswith("/"):
            raise InvalidArgument(f"logger {argv[0][:200]!r} is not an absolute path; write binary:///path")
        out, out_writing = self._pipe()
        err, err_writing = self._pipe()
        self._logger = logger.Logger(self._loop, self._reaper, argv)
        await self._logger.start(out, err, environment, bundle, strict)
        self._drop(out)
        self._drop(err)
        if self.terminal:
            os.set_blocking(out_writing, False)
            self._outputs.append((MASTER, out_writing))
            self._drop(err_writing)
        else:
            self._give(STDOUT, out_writing)
            self._give(STDERR, err_writing)

    def _copy(self, source: int, target: int) -> Copy:
        return Copy(self._loop.spawn(self._move(source, target)), source, target)

    async def _move(self, source: int, target: int) -> None:
        pipes = all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in (source, target))
        try:
            await (self._splice(source, target) if pipes else self._read_and_write(source, target))
        except OSError:
            # EIO: the last process has closed the terminal. EPIPE: the process has closed its input.
            # ENOSPC on a log file ends its copy; the process gets EPIPE rather than blocking for ever.
            return
        finally:
            self._drop(source)
            self._drop(target)

    async def _splice(self, source: int, target: int) -> None:
        while True:
            await self._loop.readable(source, rests=True)
            try:
                if not os.splice(source, target, SPLICE_CHUNK, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK):
                    return
            except BlockingIOError:
                await self._loop.writable(target)

    async def _read_and_write(self, source: int, target: int) -> None:
        while True:
            await self._loop.readable(source, rests=True)
            try:
                data = memoryview(os.read(source, COPY_CHUNK))
            except BlockingIOError:
                continue
            if not data:
                return
            while data:
                try:
                    data = data[os.write(target, data) :]
                except BlockingIOError:
                    await self._loop.writable(target)
