"""What the streaming server asks of CRI: to execute, to attach, to reach a port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Size:
    """A terminal's size in characters."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which streams there are."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


@dataclass(frozen=True, slots=True)
class Exec:
    """A request to execute a command in a container."""

    container: str
    command: tuple[str, ...]
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Attach:
    """A request to attach to a container's main process."""

    container: str
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class PortForward:
    """A request to reach ports of a pod; ``ports`` are needed by WebSocket clients alone."""

    sandbox: str
    ports: tuple[int, ...] = ()


Request = Exec | Attach | PortForward


class Session(Protocol):
    """The client's end of an exec or attach."""

    async def read(self) -> bytes:
        """Return what comes for standard input, b"" when it has ended or was not asked for."""
        ...

    async def write(self, data: bytes, *, error: bool = False) -> None:
        """Send to standard output or error; returns when the client keeps up. Raises ConnectionError."""
        ...

    def sizes(self) -> AsyncIterator[Size]:
        """Yield the sizes that the client's terminal has."""
        ...


class Pipe(Protocol):
    """The client's end of one forwarded connection."""

    async def read(self) -> bytes:
        """Return what comes, b"" when the client has ended its side."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; returns when the client keeps up. Raises ConnectionError."""
        ...

    async def write_end(self) -> None:
        """Say that no more is sent."""
        ...


class Backend(Protocol):
    """CRI, as the streaming server sees it. Cancelled when the client has gone."""

    async def exec(self, request: Exec, session: Session) -> int:
        """Execute and return the exit status. Raises errors for what the client is told."""
        ...

    async def attach(self, request: Attach, session: Session) -> None:
        """Attach until the process or the client's input ends."""
        ...

    async def forward(self, sandbox: str, port: int, pipe: Pipe) -> None:
        """Connect a pipe with a port in a pod until both sides have ended. Raises errors for the client."""
        ...
