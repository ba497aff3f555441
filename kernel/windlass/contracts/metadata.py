"""Contract: the metadata store, which gives every namespace its own view of everything that is kept.

It wraps the content store and the snapshotters: names are separated by
namespace, writes are recorded with a lease if one is given, and what nothing
refers to any more is collected (docs/containerd 3.14).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from windlass.contracts.checks import Problem
from windlass.contracts.containers import ContainerStore
from windlass.contracts.content import RememberedContent
from windlass.contracts.images import ImageStore
from windlass.contracts.leases import LeaseStore
from windlass.contracts.namespaces import NamespaceStore
from windlass.contracts.sandboxes import SandboxStore
from windlass.contracts.snapshots import Snapshotter
from windlass.plugin import PluginType, contract
from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Collected:
    """What one garbage collection did; ``seconds`` is how long others may have waited for it in the database."""

    removed: int = 0
    blobs: int = 0
    snapshots: int = 0
    seconds: float = 0.0
    failures: tuple[str, ...] = ()
    """One line for each store that could not be cleaned; it is tried again."""


@dataclass(frozen=True, slots=True)
class Collectible:
    """Something kept elsewhere that goes when nothing in the metadata store holds it.

    What holds it is its ``lease``, a label ``containerd.io/gc.root``, whatever its labels
    ``containerd.io/gc.bref.*`` name, and anything whose label ``containerd.io/gc.ref.<kind>`` has its ``name``.
    """

    namespace: str
    id: str
    """Never given twice, so that a later object of the same name is not taken for this one."""
    labels: Mapping[str, str] = field(default_factory=dict)
    lease: str = ""
    name: str = ""
    """What others call it; several may have the same one, and are then kept together."""


class Collectibles(Protocol):
    """A store, outside of the metadata store, whose objects are collected with what is inside."""

    def collectibles(self) -> Sequence[Collectible]:
        """Return all that are there, at once and without I/O that could hang."""
        ...

    def discard(self, namespace: str, id: str) -> None:
        """Remove one; one that is gone is not an error. It is asked again at the next collection when it fails."""
        ...


@contract
class Metadata(Protocol):
    """The views of the metadata store. Synchronous and thread-safe; views are cheap to make, and callers may keep them.

    Each takes a namespace and raises FailedPrecondition ("namespace is required")
    for an empty one and InvalidArgument for one that is not an identifier. A lease
    that does not exist is NotFound when something would be added to it.
    """

    def namespaces(self) -> NamespaceStore:
        """Return the store of all namespaces."""
        ...

    def containers(self, namespace: str) -> ContainerStore:
        """Return a namespace's containers."""
        ...

    def images(self, namespace: str, lease: str = "") -> ImageStore:
        """Return a namespace's images."""
        ...

    def leases(self, namespace: str) -> LeaseStore:
        """Return a namespace's leases."""
        ...

    def sandboxes(self, namespace: str) -> SandboxStore:
        """Return a namespace's sandbox records."""
        ...

    def content(self, namespace: str, lease: str = "") -> RememberedContent:
        """Return a namespace's view of the content store; what is written is held by ``lease``."""
        ...

    def snapshotter(self, name: str, namespace: str, lease: str = "") -> Snapshotter:
        """Return a namespace's view of a snapshotter. Raises InvalidArgument if there is none of that name."""
        ...

    def snapshotters(self) -> Sequence[str]:
        """Return the names of the snapshotters that can be used."""
        ...

    def on_mutation(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback`` after every change, in the thread that made it.

        True says that something may have become garbage. It must not block.
        """
        ...

    def collect_from(self, kind: str, store: Collectibles) -> None:
        """Make collections include the objects of ``store``; ``kind``, such as ``mount``, is for messages."""
        ...

    def collect(self) -> Collected:
        """Collect garbage now and return when it is done."""
        ...

    def check(self, repair: bool = False, deep: bool = False) -> list[Problem]:
        """Compare what is known with what the stores have; see `windlass.contracts.checks.Checked`."""
        ...


METADATA: PluginType[Metadata] = PluginType("io.containerd.metadata.v1", Metadata)
