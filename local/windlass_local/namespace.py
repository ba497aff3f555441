"""One namespace of a daemon with its containers and tasks, seen from inside, or through its API.

`windlass_images.store` has the part for images. What is done with containers is written once, against this: the daemon
has a `Namespace` over its contracts, a client one over its connection. Values and errors are the kernel's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from windlass.contracts.containers import Container
from windlass.contracts.mounts import Mount
from windlass.contracts.tasks import IO, CreateOptions, Exit, Process
from windlass.contracts.values import Payload
from windlass_images.store import Store

# What holds where a namespace sets nothing (docs/containerd 6.1).
DEFAULT_RUNTIME = "io.containerd.runc.v2"
DEFAULT_SNAPSHOTTER = "overlayfs"


class Containers(Protocol):
    """Containers of the namespace."""

    async def get(self, id: str) -> Container:
        """Return a container. Raises NotFound."""
        ...

    async def list(self, *filters: str) -> Sequence[Container]:
        """Return the containers that match one of the filters, all without any."""
        ...

    async def create(self, container: Container) -> Container:
        """Record a container. Raises AlreadyExists, InvalidArgument."""
        ...

    async def label(self, id: str, labels: Mapping[str, str]) -> None:
        """Set labels of a container; an empty value removes one. Raises NotFound."""
        ...

    async def delete(self, id: str) -> None:
        """Forget a container; its task and snapshot stay. Raises NotFound."""
        ...


class Tasks(Protocol):
    """Tasks of the namespace, by their containers' IDs; an empty ``exec_id`` is a task's first process."""

    async def create(self, container: Container, options: CreateOptions) -> int:
        """Create a task and return the pid of its first process, which waits for `start`. Raises AlreadyExists."""
        ...

    async def exec(self, id: str, exec_id: str, spec: Payload, io: IO) -> None:
        """Add a process, which waits for `start`. Raises AlreadyExists, InvalidArgument, NotFound."""
        ...

    async def start(self, id: str, exec_id: str = "") -> int:
        """Start a created process and return its pid. Raises NotFound."""
        ...

    async def get(self, id: str, exec_id: str = "") -> Process:
        """Return the state of a process. Raises NotFound, Unavailable, DeadlineExceeded."""
        ...

    async def wait(self, id: str, exec_id: str = "") -> Exit:
        """Return when a process has ended. Raises NotFound."""
        ...

    async def kill(self, id: str, signal: int, exec_id: str = "", all: bool = False) -> None:
        """Send a signal to a process, or to every process of the task. Raises NotFound when it is gone."""
        ...

    async def resize(self, id: str, exec_id: str, width: int, height: int) -> None:
        """Set the size of a process's terminal."""
        ...

    async def close_stdin(self, id: str, exec_id: str = "") -> None:
        """Let a process see the end of its standard input."""
        ...

    async def delete(self, id: str) -> Exit:
        """Delete a stopped task. Raises NotFound, FailedPrecondition while it runs."""
        ...

    async def delete_exec(self, id: str, exec_id: str) -> Exit:
        """Delete a stopped process that `exec` added. Raises NotFound."""
        ...


class Namespace(Store, Protocol):
    """Images, content, snapshots, containers and tasks of one namespace."""

    @property
    def name(self) -> str:
        """The namespace's name."""
        ...

    @property
    def containers(self) -> Containers:
        """The namespace's containers."""
        ...

    @property
    def tasks(self) -> Tasks:
        """The namespace's tasks."""
        ...

    def lease(self, label: str = "") -> AbstractAsyncContextManager[Namespace]:
        """Give the namespace under a new lease; see `windlass_images.store.Store.lease`."""
        ...

    async def default(self, label: str) -> str:
        """Return what the namespace's ``label`` sets, "" if nothing."""
        ...

    def mountable(self, mounts: Sequence[Mount]) -> AbstractAsyncContextManager[Sequence[Mount]]:
        """Give mounts that mount(2) can make and that show the same as ``mounts``, as long as the context lasts.

        Use it under a lease, which keeps what the mount manager makes for it.
        """
        ...
