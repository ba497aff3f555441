"""Contract: the mount manager, which carries out mounts that mount(2) alone cannot, and keeps them by name.

A list of mounts is *activated*: those that others build on, or that need a
handler, are made somewhere, and the rest is returned for the caller to make,
its references to the first resolved. An activation lives until it is
deactivated, or until garbage collection finds that neither a lease, nor a label
``containerd.io/gc.root``, nor what its ``containerd.io/gc.bref.*`` labels name
holds it (docs/containerd 3.19). It outlives the daemon, not the machine.

A type may begin with transformations, which are applied from left to right:
``format/`` fills in templates, ``mkdir/`` makes directories, ``mkfs/`` makes a
filesystem in a file. ``format/overlay`` is so an overlay whose lower directories
are the places where the mounts before it were made::

    Mount("erofs", "/…/layer.erofs", ("ro", "loop"))
    Mount("format/overlay", "overlay", ("lowerdir={{ overlay 0 0 }}", "upperdir=…", "workdir=…"))
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from windlass.contracts.mounts import Mount
from windlass.plugin import PluginType, contract
from windlass.records import dataclass

LABEL_BACK_REFERENCE = "containerd.io/gc.bref."
"""Begins the key of a label that names what keeps an activation, such as ``containerd.io/gc.bref.container``."""


@dataclass(frozen=True, slots=True)
class ActiveMount:
    """A mount that has been made at ``mount_point``; ``mounted_at`` is nanoseconds since the epoch, UTC."""

    mount: Mount
    mount_point: str
    mounted_at: int = 0
    data: Mapping[str, str] = field(default_factory=dict)
    """Facts that the handler adds for clients."""


@dataclass(frozen=True, slots=True)
class Activation:
    """What an activation has made, and what is left for the caller."""

    name: str
    active: tuple[ActiveMount, ...] = ()
    system: tuple[Mount, ...] = ()
    """Mounts for the caller to make, with mount(2)."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActivateOptions:
    """How to activate; ``lease`` holds the activation, if it is not empty."""

    labels: Mapping[str, str] = field(default_factory=dict)
    temporary: bool = False
    """Make all mounts, and leave one bind of the last to the caller."""
    allowed: tuple[str, ...] = ()
    """Types that the caller makes itself, whatever they are: ``loop``, or ``mkdir/*`` for all with a prefix."""
    lease: str = ""


@contract
class MountManager(Protocol):
    """Keeps the activations of all namespaces. Synchronous and thread-safe; activating may take seconds."""

    def handles(self, mounts: Sequence[Mount]) -> bool:
        """Return whether there is anything to activate; otherwise the caller makes the mounts. At once, without I/O."""
        ...

    def activate(
        self, namespace: str, name: str, mounts: Sequence[Mount], options: ActivateOptions | None = None
    ) -> Activation:
        """Make what has to be made; all or nothing.

        Raises Unimplemented when there is nothing to activate or something that only the
        caller could do, AlreadyExists, InvalidArgument, Unavailable (under way), NotFound (lease).
        """
        ...

    def deactivate(self, namespace: str, name: str) -> None:
        """Unmount, in reverse, and forget. Raises NotFound; who fails to unmount something can try again."""
        ...

    def info(self, namespace: str, name: str) -> Activation:
        """Describe an activation. Raises NotFound."""
        ...

    def update(self, namespace: str, activation: Activation, fieldpaths: Sequence[str] = ()) -> Activation:
        """Change labels, as `windlass.contracts.snapshots.Snapshotter.update` does, and return the result."""
        ...

    def list(self, namespace: str, filters: Sequence[str] = ()) -> builtins.list[Activation]:
        """Return those that match one of ``filters`` (``name``, ``labels.…``), by name."""
        ...


MOUNT_MANAGER: PluginType[MountManager] = PluginType("io.containerd.mount-manager.v1", MountManager)


@contract
class MountHandler(Protocol):
    """Makes mounts of one type, which is the plugin's ID. Synchronous and thread-safe."""

    def mount(self, mount: Mount, place: str, below: Sequence[ActiveMount]) -> ActiveMount:
        """Make ``mount`` at the path ``place``, where nothing is; all or nothing. ``below`` has been made before.

        A directory there is the handler's to make. Raises OSError, and errors for the caller.
        """
        ...

    def unmount(self, place: str) -> None:
        """Undo `mount`, also of an earlier daemon, or half of it; afterwards nothing is at ``place``."""
        ...

    def is_mounted(self, place: str) -> bool:
        """Return whether what `mount` has made is there still."""
        ...


MOUNT_HANDLER: PluginType[MountHandler] = PluginType("io.containerd.mount-handler.v1", MountHandler)
