"""What bringing a project up and down needs of a daemon; `adapter` does it by the client, tests by a dictionary."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from windlass_client.compose.identity import HASH, IMAGE, NUMBER, ONE_OFF, SERVICE
from windlass_client.compose.model import Network, Service, Volume

RUNNING, PAUSED, EXITED, CREATED = "running", "paused", "exited", "created"
HEALTHY, UNHEALTHY = "healthy", "unhealthy"


@dataclass(frozen=True)
class Member:
    """A container of a project, as it is now."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: str
    exit_code: int = 0
    health: str = ""
    """`starting`, `healthy` or `unhealthy`; empty if it has no health check."""
    image: str = ""
    command: str = ""
    created: str = ""
    ports: str = ""
    status: str = ""
    """The state as `windlass ps` shows it."""

    @property
    def service(self) -> str:
        """The name of its service."""
        return self.labels.get(SERVICE, "")

    @property
    def number(self) -> int:
        """Which of its service's containers it is."""
        text = self.labels.get(NUMBER, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0

    @property
    def one_off(self) -> bool:
        """Whether `compose run` made it."""
        return self.labels.get(ONE_OFF) == "True"

    @property
    def runs(self) -> bool:
        """Whether it has a process."""
        return self.state in (RUNNING, PAUSED)

    def made_from(self, hash: str, digest: str) -> bool:
        """Tell whether it is what would be made now."""
        return self.labels.get(HASH) == hash and self.labels.get(IMAGE, digest) == digest


@dataclass(frozen=True)
class Wanted:
    """A container that is to be made."""

    name: str
    service: Service
    labels: Mapping[str, str]
    networks: Mapping[str, tuple[str, ...]]
    """Names of networks, each with the container's names in it."""
    volumes: Mapping[str, str]
    """Names of volumes by what the service calls them."""
    sharing: str = ""
    """ID of the container whose network it shares."""
    remove: bool = False
    """Remove it when it has ended."""
    interactive: bool = False
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Addresses that it wants, by names of networks."""


@dataclass(frozen=True)
class Line:
    """A line that a container wrote; ``time`` is RFC 3339."""

    time: str
    stream: str
    text: str


class Engine(Protocol):
    """A daemon's namespace, with the client's networks and volumes."""

    async def members(self, project: str) -> Sequence[Member]:
        """Return the containers of a project."""
        ...

    async def digest(self, image: str, platform: str) -> str:
        """Return the digest of an image, empty if it is not there."""
        ...

    async def pull(self, image: str, platform: str) -> None:
        """Pull an image."""
        ...

    async def networks(self, project: str) -> Sequence[str]:
        """Return the names of the networks of a project."""
        ...

    async def has_network(self, name: str) -> bool:
        """Tell whether a network exists."""
        ...

    async def create_network(self, network: Network, labels: Mapping[str, str]) -> None:
        """Make a network."""
        ...

    async def remove_network(self, name: str) -> None:
        """Remove a network. Raises FailedPrecondition if it is in use."""
        ...

    async def volumes(self, project: str) -> Sequence[str]:
        """Return the names of the volumes of a project."""
        ...

    async def has_volume(self, name: str) -> bool:
        """Tell whether a volume exists."""
        ...

    async def create_volume(self, volume: Volume, labels: Mapping[str, str]) -> None:
        """Make a volume."""
        ...

    async def remove_volume(self, name: str) -> None:
        """Remove a volume. Raises FailedPrecondition if it is in use."""
        ...

    async def create(self, wanted: Wanted) -> str:
        """Make a container that does not run yet, and return its ID."""
        ...

    async def start(self, id: str) -> None:
        """Start a container that does not run."""
        ...

    async def stop(self, id: str, timeout: float | None) -> None:
        """Stop a container, and kill it after a time; None is what it was made with."""
        ...

    async def kill(self, id: str, signal: str) -> None:
        """Send a signal to a container."""
        ...

    async def remove(self, id: str, volumes: bool = False) -> None:
        """Remove a container, killing what still runs; ``volumes`` removes those without a name, too."""
        ...

    async def wait(self, id: str) -> int:
        """Wait until a container has ended, and return its exit code."""
        ...

    def logs(self, id: str, follow: bool, tail: int | None, since: str, until: str) -> AsyncIterator[Line]:
        """Yield what a container wrote; with ``follow`` until it has ended."""
        ...
