"""Contract: transfers, which move images between registries, the image store, and archives.

What happens follows from the two ends: registry to store is a pull, store to
registry a push, archive to store an import, store to archive an export, store to
store a tag (docs/containerd 3.17).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Protocol

from windlass.contracts.values import Descriptor, Platform
from windlass.plugin import PluginType, contract
from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a registry is given: user name and password, or, without a user name, a refresh token.

    Their text never shows in messages or logs.
    """

    username: str = ""
    secret: str = field(default="", repr=False)


Ask = Callable[[str, str], Awaitable[Credentials | None]]
"""Asks the client of the transfer for credentials, by host and reference; None means to try without."""


class ByteReader(Protocol):
    """Where the bytes of an archive come from."""

    async def read(self) -> bytes:
        """Return the next bytes, none at the end. Raises Cancelled when the sender has gone."""
        ...


class ByteWriter(Protocol):
    """Where the bytes of an archive go to."""

    async def write(self, data: bytes) -> None:
        """Send bytes; waits as long as the receiver takes none. Raises Cancelled when it has gone."""
        ...


@dataclass(frozen=True, slots=True)
class Registry:
    """An image in a registry."""

    reference: str
    ask: Ask | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    host_dir: str = ""
    """Directories with ``hosts.toml`` files, separated by colons; empty for those of the configuration."""
    default_scheme: str = ""
    patience: float | None = None
    """Seconds in which the registry has to bring something, 0 is without end; None for the configuration's."""
    trace: Callable[[str], None] | None = field(default=None, compare=False)
    """Is given a line for each request and each answer, with nothing secret in it."""


@dataclass(frozen=True, slots=True)
class Unpack:
    """A platform whose layers are to become snapshots; an empty snapshotter is the daemon's choice."""

    platform: Platform
    snapshotter: str = ""


@dataclass(frozen=True, slots=True)
class ExtraReference:
    """A further name, or the prefix of names, for what an import or a pull brings."""

    name: str
    is_prefix: bool = False
    allow_overwrite: bool = False
    add_digest: bool = False
    skip_named_digest: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """An image in the namespace's store: as the source its name, as the destination also what to take of it."""

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[Platform, ...] = ()
    all_metadata: bool = False
    manifest_limit: int = 0
    extra_references: tuple[ExtraReference, ...] = ()
    unpacks: tuple[Unpack, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportArchive:
    """An archive that is being sent to us; with an empty media type its compression is found out."""

    source: ByteReader
    media_type: str = ""
    force_compress: bool = False


@dataclass(frozen=True, slots=True)
class ExportArchive:
    """An archive that we send."""

    sink: ByteWriter
    media_type: str = ""
    platforms: tuple[Platform, ...] = ()
    all_platforms: bool = False
    skip_compatibility_manifest: bool = False
    skip_non_distributable: bool = False


Source = Registry | Stored | ImportArchive
Destination = Registry | Stored | ExportArchive


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a transfer, for people; ``event`` is in containerd's words (docs/containerd 3.17), sizes in bytes."""

    event: str
    name: str = ""
    parents: tuple[str, ...] = ()
    progress: int = 0
    total: int = 0
    desc: Descriptor | None = None


Report = Callable[[Progress], None]
"""Is given each step, on the loop; it must not block."""


@contract
class Transferrer(Protocol):
    """Moves images."""

    async def transfer(
        self, namespace: str, source: Source, destination: Destination, report: Report, lease: str = ""
    ) -> None:
        """Move an image, and return when it is there. Cancelling it leaves nothing that can be seen.

        Raises Unimplemented for ends that do not fit each other (the next transferrer is
        asked), NotFound, InvalidArgument, PermissionDenied (a verifier), Unauthenticated, Unavailable.
        """
        ...


TRANSFER: PluginType[Transferrer] = PluginType("io.containerd.transfer.v1", Transferrer)
