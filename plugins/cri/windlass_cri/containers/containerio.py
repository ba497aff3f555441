"""The streams and the log of a container: opened for its start, and again by a daemon that finds it running."""

from __future__ import annotations

import os
from pathlib import Path

from windlass.contracts.tasks import Process
from windlass_cri.config import RuntimeConfig
from windlass_cri.containers.logs import LogFile
from windlass_cri.containers.processio import ProcessIO
from windlass_cri.record import Container
from windlass_local import fifos


def opened(container: Container, directory: Path, config: RuntimeConfig) -> ProcessIO:
    """Make the FIFOs of a container below ``directory``, and open its log. Blocks; raises OSError."""
    log = _log(container)
    made = fifos.make(container.id, stdin=container.config.stdin, terminal=container.config.tty, parent=str(directory))
    return ProcessIO(made, log, config.max_container_log_line_size)


def reopened(container: Container, process: Process, config: RuntimeConfig) -> ProcessIO:
    """Open the FIFOs and the log that an earlier daemon had open. Blocks; raises OSError."""
    log = _log(container)
    found = fifos.Fifos(process.io.stdin, process.io.stdout, process.io.stderr, process.io.terminal)
    found.directory = str(Path(process.io.stdout).parent) if process.io.stdout else ""
    flags = {"stdin": os.O_RDWR, "stdout": os.O_RDONLY, "stderr": os.O_RDONLY}
    for stream, flag in flags.items():
        path = getattr(process.io, stream)
        if path.startswith("/") and Path(path).exists():
            found.descriptors[stream] = os.open(path, flag | os.O_NONBLOCK | os.O_CLOEXEC)
    return ProcessIO(found, log, config.max_container_log_line_size)


def _log(container: Container) -> LogFile | None:
    return LogFile(Path(container.data.log)) if container.data.log else None
