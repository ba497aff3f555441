"""A process's standard streams, between its pipes (or terminal) and where the client wants them.

A FIFO is opened for both directions, so that the process sees neither EPIPE nor
end of file when a reader leaves, and another one may attach.
"""

from __future__ import annotations

import os
import time

from windlass.errors import Error, InvalidArgument
from windlass_shim_runc import copying, files, logger, records, uris
from windlass_shim_runc.console import Console, resize
from windlass_shim_runc.loop import Loop, Task
from windlass_shim_runc.reaper import Reaper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from windlass_shim_runc.keeper import Handover

    Names = tuple[str, str, str, bool]
    """What a client names as standard input, output and error, and whether that is a terminal."""

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
        self._pending_input: tuple[int, int] | None = None
        self._input_holder = -1
        self._master = -1
        self._stdin_closed = False
        self._copies: list[Copy] = []
        self._input_copy: Copy | None = None

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
                # What no client wants is read all the same: a full terminal would stop the process.
                self._outputs.append((MASTER, self._own(os.open(os.devnull, os.O_WRONLY))))
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
            self._close(fd)
        if self.console is not None:
            self._master = self._own(await self.console.receive(self._loop))
            self.console.close()
            self.console = None
            os.set_blocking(self._master, False)
            if self._size is not None:
                self.resize(*self._size)
        for source, target in self._outputs:
            self._copies.append(self._copy(self._end(source), self._end(target)))

    def begin_input(self) -> None:
        """Start copying to the process's standard input, when the process has been started.

        Not before: clients block while they open or fill a FIFO without a reader,
        so none can see the end of what it sends before it may call CloseIO (ctr 1.6
        forgets to, when that comes before it has its task).
        """
        if self._pending_input is None:
            return
        path_fd, target = self._pending_input
        self._pending_input = None
        reading, holder = files.open_input(path_fd)
        source, self._input_holder = self._own(reading), self._own(holder)
        self._close(path_fd)
        self._input_copy = self._copy(source, self._end(target))
        if self._stdin_closed:
            self._close(self._input_holder)

    def close_stdin(self) -> None:
        """Let the process see end of file once all writers of its FIFO are gone; may come before `begin_input`."""
        self._stdin_closed = True
        if self._input_copy is not None:
            self._close(self._input_holder)

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
        for copy in (*self._copies, *([self._input_copy] if self._input_copy else [])):
            self._loop.cancel(copy.task)
        if self.console is not None:
            self.console.close()
            self.console = None
        self._pending_input, self._input_copy, self._master = None, None, -1
        self._child, self._outputs, self._copies = {}, [], []
        for fd in list(self._open):
            self._close(fd)
        if self._logger is not None:
            self._logger.stop()

    async def ended(self) -> None:
        """Return when the logger of streams that are closed has ended: it must not outlive its container and shim."""
        if self._logger is not None:
            await self._logger.ended()

    def to_record(self, handover: Handover) -> records.StreamsRecord:
        """Return what `take_over` goes on with, at a moment when all copies rest and no terminal is awaited."""

        def pair(source: int, target: int, watched: bool) -> records.CopyRecord:
            return records.CopyRecord(source=handover.put(source, watched), target=handover.put(target))

        copies = [copy for copy in self._copies if not copy.task.finished.is_set]
        begun = self._input_copy
        width, height = self._size or (0, 0)
        return records.StreamsRecord(
            stdin=self.stdin,
            stdout=self.stdout,
            stderr=self.stderr,
            terminal=self.terminal,
            outputs=tuple(pair(copy.source, copy.target, True) for copy in copies),
            input=pair(begun.source, begun.target, True)
            if begun is not None and not begun.task.finished.is_set
            else records.CopyRecord(),
            pending_input=pair(*self._pending_input, False) if self._pending_input else records.CopyRecord(),
            input_holder=handover.put(self._input_holder if self._input_holder in self._open else -1),
            master=handover.put(self._master),
            width=width,
            height=height,
            stdin_closed=self._stdin_closed,
            logger_pid=self._logger.pid if self._logger else 0,
        )

    def take_over(self, handover: Handover, record: records.StreamsRecord) -> None:
        """Go on with the streams of a record."""
        self._copies = [self._copy(*self._take_pair(handover, each)) for each in record.outputs]
        if record.input.source:
            self._input_copy = self._copy(*self._take_pair(handover, record.input))
        if record.pending_input.source:
            self._pending_input = self._take_pair(handover, record.pending_input)
        self._input_holder = self._take(handover, record.input_holder)
        self._master = self._take(handover, record.master)
        self._size = (record.width, record.height) if record.width or record.height else None
        self._stdin_closed = record.stdin_closed
        if record.logger_pid:
            self._logger = logger.Logger(self._loop, self._reaper, [], record.logger_pid)

    def _take_pair(self, handover: Handover, record: records.CopyRecord) -> tuple[int, int]:
        return self._take(handover, record.source), self._take(handover, record.target)

    def _take(self, handover: Handover, number: int) -> int:
        fd = handover.take(number)
        return self._own(fd) if fd >= 0 else fd

    def _own(self, fd: int) -> int:
        self._open.add(fd)
        return fd

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            os.close(fd)

    def _pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        return self._own(reading), self._own(writing)

    def _pass(self, number: int, fd: int) -> None:
        if self._owner != (-1, -1):
            os.fchown(fd, *self._owner)
        self._child[number] = fd

    def _end(self, fd: int) -> int:
        # Each direction waits on a descriptor of its own: the loop takes one task for each.
        return fd if fd != MASTER else self._own(os.dup(self._master))

    def _prepare_outputs(self, scheme: str) -> None:
        opened: dict[str, int] = {}
        for number, value in ((STDOUT, self.stdout), (STDERR, "" if self.terminal else self.stderr)):
            if not value:
                continue
            path = uris.split(value)[1]
            if path in opened:
                target = self._own(os.dup(opened[path]))
            elif scheme == uris.FILE_SCHEME:
                target = self._own(files.open_log(path))
            else:
                target = self._own(files.open_output(path, NAMES[number]))
            opened[path] = target
            source = MASTER
            if not self.terminal:
                source, writing = self._pipe()
                os.set_blocking(source, False)
                self._pass(number, writing)
            self._outputs.append((source, target))

    def _prepare_input(self) -> None:
        path_fd = self._own(files.find_input(uris.split(self.stdin)[1]))
        target = MASTER
        if not self.terminal:
            child, target = self._pipe()
            os.set_blocking(target, False)
            self._pass(STDIN, child)
        self._pending_input = (path_fd, target)

    async def _prepare_logger(self, argv: list[str], environment: Mapping[str, str], bundle: str, strict: bool) -> None:
        if not argv[0].startswith("/"):
            raise InvalidArgument(f"logger {argv[0][:200]!r} is not an absolute path; write binary:///path")
        out, out_writing = self._pipe()
        err, err_writing = self._pipe()
        self._logger = logger.Logger(self._loop, self._reaper, argv)
        await self._logger.start(out, err, environment, bundle, strict)
        self._close(out)
        self._close(err)
        if self.terminal:
            os.set_blocking(out_writing, False)
            self._outputs.append((MASTER, out_writing))
            self._close(err_writing)
        else:
            self._pass(STDOUT, out_writing)
            self._pass(STDERR, err_writing)

    def _copy(self, source: int, target: int) -> Copy:
        return Copy(self._loop.spawn(self._move(source, target)), source, target)

    async def _move(self, source: int, target: int) -> None:
        try:
            await copying.move(self._loop, source, target)
        finally:
            self._close(source)
            self._close(target)
