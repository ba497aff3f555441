"""The named pipes between a process's shim and a client: the client makes and opens them before it creates the task.

The layout is containerd's: a directory of mode 0700 that only root enters, one FIFO per stream (docs/containerd 6.8).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from windlass.contracts.tasks import IO

DIRECTORY = "/run/windlass/fifo"


@dataclass
class Fifos:
    """Where a process's streams go; an empty path is /dev/null, and a log URI is left to the shim."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False
    directory: str = ""
    descriptors: dict[str, int] = field(default_factory=dict)
    """Our ends by the names of the streams, until `take` hands them out."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def io(self) -> IO:
        """What the task's or the exec's creation names."""
        return IO(self.stdin, self.stdout, self.stderr, self.terminal)

    def take(self, stream: str) -> int:
        """Hand out our end of a stream, which the caller then owns and closes."""
        return self.descriptors.pop(stream)

    def close(self) -> None:
        """Close what was not taken and remove the directory."""
        while self.descriptors:
            os.close(self.descriptors.popitem()[1])
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)


def make(name: str, *, stdin: bool, terminal: bool, parent: str = DIRECTORY) -> Fifos:
    """Make the FIFOs of a process and open our ends; with a terminal there is no stderr."""
    Path(parent).mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="", dir=parent)
    fifos = Fifos(terminal=terminal, directory=directory)
    try:
        if stdin:
            fifos.stdin = _fifo(directory, f"{name}-stdin")
            # Read-write, because opening for writing alone fails as long as the shim is not there, fifo(7).
            fifos.descriptors["stdin"] = os.open(fifos.stdin, os.O_RDWR | os.O_NONBLOCK)
        fifos.stdout = _fifo(directory, f"{name}-stdout")
        fifos.descriptors["stdout"] = os.open(fifos.stdout, os.O_RDONLY | os.O_NONBLOCK)
        if not terminal:
            fifos.stderr = _fifo(directory, f"{name}-stderr")
            fifos.descriptors["stderr"] = os.open(fifos.stderr, os.O_RDONLY | os.O_NONBLOCK)
    except BaseException:
        fifos.close()
        raise
    return fifos


def _fifo(directory: str, name: str) -> str:
    path = str(Path(directory, name))
    os.mkfifo(path, 0o700)
    return path
