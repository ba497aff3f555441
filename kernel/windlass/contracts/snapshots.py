"""Contract: snapshotters, which keep the states of filesystems.

A snapshot has a *kind*. An **active** snapshot is writable and is identified by
its *key*; `commit` freezes it under a *name* and the key is free again. A
**view** is an active snapshot that is read-only and can never be committed. A
**committed** snapshot never changes and may be the *parent* of others; ``""``
is the parent of a snapshot that starts empty. Keys and names share one space.

Importing a layer: ``prepare(key, parent)`` gives mounts; the layer is applied
onto them; ``commit(name, key)``. The next layer has that name for its parent. A
container runs on ``prepare(container, top)``, and when it is gone the snapshot
is removed. A snapshot that is some other's parent cannot be removed.

Snapshotters only *describe* mounts; making them is the caller's business.
All methods are synchronous and may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from enum import IntEnum
from typing import Protocol

from windlass.contracts.mounts import Mount
from windlass.plugin import PluginType, contract
from windlass.records import dataclass


class Kind(IntEnum):
    """Kinds of snapshots; the numbers are the wire's."""

    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


@dataclass(frozen=True, slots=True)
class Info:
    """The answer of `Snapshotter.stat`; times are nanoseconds since the epoch, UTC."""

    kind: Kind
    name: str
    """The key of an active snapshot or view, the name of a committed one."""
    parent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0
    updated_at: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """The space of a snapshot on disk, without its parents: inodes, and bytes."""

    inodes: int
    size: int


@contract
class Snapshotter(Protocol):
    """Keeps filesystem states; see the module's text for the words."""

    def stat(self, key: str) -> Info:
        """Describe a snapshot of any kind. Raises NotFound."""
        ...

    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        """Change labels, nothing else, and return the result.

        No ``fieldpaths``, or ``labels``: replace them all. ``labels.<key>``: set that
        one, or remove it when ``info`` lacks it. Other paths: InvalidArgument. Raises NotFound.
        """
        ...

    def usage(self, key: str) -> Usage:
        """Measure a snapshot: live for an active one, 0 for a view, as stored at commit otherwise. Raises NotFound."""
        ...

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return the mounts of an active snapshot or view. Raises NotFound; FailedPrecondition if committed."""
        ...

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """Make an active snapshot on ``parent`` and return its mounts.

        Raises AlreadyExists (key), NotFound (parent), InvalidArgument (parent is not committed).
        """
        ...

    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """Make a read-only snapshot of ``parent``; errors as `prepare`."""
        ...

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """Freeze the active snapshot ``key`` as ``name``; ``labels`` replace those it had.

        ``parent`` rebases a snapshot that was prepared without one; only snapshotters
        with the capability ``rebase`` honour it. Raises AlreadyExists (name), NotFound
        (key), FailedPrecondition (a view, or committed already).
        """
        ...

    def remove(self, key: str) -> None:
        """Remove a snapshot. Raises NotFound; FailedPrecondition ("cannot remove snapshot with child")."""
        ...

    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        """Yield each snapshot that matches one of ``filters`` (`windlass.filters.expressions`), in any order.

        Other methods may be called while the walk is under way.
        """
        ...

    def cleanup(self) -> None:
        """Delete from disk what removal has left there. Raises Unimplemented if removal leaves nothing."""
        ...


SNAPSHOTTER: PluginType[Snapshotter] = PluginType("io.containerd.snapshotter.v1", Snapshotter)

LABEL_PREFIX = "containerd.io/snapshot/"
LABEL_REF = "containerd.io/snapshot.ref"
LABEL_UID_MAPPING = "containerd.io/snapshot/uidmapping"
LABEL_GID_MAPPING = "containerd.io/snapshot/gidmapping"


def inherited_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return the labels that are passed on to a snapshotter behind the metadata store (docs/containerd 3.7)."""
    return {k: v for k, v in (labels or {}).items() if k.startswith(LABEL_PREFIX) or k == LABEL_REF}
