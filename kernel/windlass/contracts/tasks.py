"""Contract: runtimes, which run containers as tasks.

A *task* is a container that has been created by its runtime: its init process,
and *execs* next to it. ``exec_id`` "" means the init process everywhere.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import IntEnum
from typing import Protocol

from windlass.contracts.containers import Container
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Payload
from windlass.plugin import PluginType, contract
from windlass.records import dataclass


class Status(IntEnum):
    """States of a process; the numbers are the wire's."""

    UNKNOWN = 0
    CREATED = 1
    RUNNING = 2
    STOPPED = 3
    PAUSED = 4
    PAUSING = 5


@dataclass(frozen=True, slots=True)
class IO:
    """Where a process's standard streams go: paths of FIFOs, or URIs (docs/containerd 4.9)."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    """State of a process; ``exited_at`` is nanoseconds since the epoch, 0 while it runs."""

    container_id: str
    exec_id: str = ""
    pid: int = 0
    status: Status = Status.UNKNOWN
    io: IO = IO()
    exit_status: int = 0
    exited_at: int = 0
    bundle: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: 0 to 255 (128 + signal), and when, nanoseconds since the epoch."""

    pid: int
    status: int
    at: int


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process in a task's cgroup; ``info`` tells which exec it belongs to."""

    pid: int
    info: Payload | None = None


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """How to create a task. ``options`` win over the container's; ``runtime_path`` over its runtime."""

    rootfs: tuple[Mount, ...] = ()
    io: IO = IO()
    options: Payload | None = None
    runtime_path: str = ""
    checkpoint: str = ""
    """Directory of an unpacked checkpoint to restore from."""
    owns_checkpoint: bool = False
    """Whether that directory becomes the task's, which moves it and removes it when it ends."""
    task_api_address: str = ""
    """``<protocol>+<address>`` of a Task API that keeps the container's sandbox; "" leaves it to the runtime."""
    task_api_version: int = 0


@dataclass(frozen=True, slots=True)
class Metric:
    """One task's resource usage; ``timestamp`` is nanoseconds since the epoch."""

    timestamp: int
    id: str
    data: Payload


@dataclass(frozen=True, slots=True)
class Resources:
    """What `Tasks.update` sets: a JSON LinuxResources payload, and annotations."""

    resources: Payload
    annotations: Mapping[str, str] = field(default_factory=dict)


@contract
class Tasks(Protocol):
    """Runs tasks. Everything waits, so everything is async.

    Source: docs/containerd 3.11 and 4.7.
    """

    async def create(self, namespace: str, container: Container, options: CreateOptions) -> int:
        """Create a task and return the pid of its init process, which waits for `start`. Raises AlreadyExists."""
        ...

    async def start(self, namespace: str, id: str, exec_id: str = "") -> int:
        """Start a created process and return its pid. Raises NotFound."""
        ...

    async def delete(self, namespace: str, id: str) -> Exit:
        """Delete a task that does not run, and all that the runtime keeps of it. Raises NotFound."""
        ...

    async def delete_process(self, namespace: str, id: str, exec_id: str) -> Exit:
        """Delete an exec that does not run. Raises NotFound."""
        ...

    async def get(self, namespace: str, id: str, exec_id: str = "") -> Process:
        """Describe a process, as its shim sees it now. Raises NotFound, Unavailable, DeadlineExceeded."""
        ...

    async def list(self, namespace: str) -> list[Process]:
        """Describe every task of a namespace; one that cannot be asked is left out."""
        ...

    async def kill(self, namespace: str, id: str, exec_id: str, signal: int, all: bool = False) -> None:
        """Send a signal, to the whole cgroup if ``all``. Raises NotFound, also for a process that is gone."""
        ...

    async def exec(self, namespace: str, id: str, exec_id: str, spec: Payload, io: IO) -> None:
        """Add a process, which waits for `start`. Raises AlreadyExists, InvalidArgument."""
        ...

    async def resize_pty(self, namespace: str, id: str, exec_id: str, width: int, height: int) -> None:
        """Set the size of a process's terminal; without a terminal, do nothing."""
        ...

    async def close_stdin(self, namespace: str, id: str, exec_id: str) -> None:
        """Let the process see the end of its input once all writers are gone."""
        ...

    async def pause(self, namespace: str, id: str) -> None:
        """Freeze a task."""
        ...

    async def resume(self, namespace: str, id: str) -> None:
        """Thaw a task."""
        ...

    async def pids(self, namespace: str, id: str) -> builtins.list[ProcessInfo]:
        """Return every process in a task's cgroup."""
        ...

    async def checkpoint(self, namespace: str, id: str, path: str, options: Payload | None) -> None:
        """Write a task's state to the directory ``path``."""
        ...

    async def update(self, namespace: str, id: str, resources: Resources) -> None:
        """Change a task's resource limits."""
        ...

    async def metrics(self, namespace: str, ids: Sequence[str] = ()) -> builtins.list[Metric]:
        """Measure the tasks of a namespace, or those of ``ids``; one that cannot be measured is left out."""
        ...

    async def wait(self, namespace: str, id: str, exec_id: str = "") -> Exit:
        """Return when a process has ended. Raises NotFound."""
        ...

    async def describe(self, runtime: str, options: Payload | None = None) -> Payload:
        """Return what a runtime can do, as a ``containerd.types.RuntimeInfo``.

        Raises Error for a runtime that is not there or does not say.
        """
        ...


RUNTIME: PluginType[Tasks] = PluginType("io.containerd.runtime.v2", Tasks)
