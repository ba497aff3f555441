"""Where the mounts of an activation are made, and how they are unmounted even if nothing else is known of them.

The mounts of activation ``id`` are at ``<targets>/<id>/<n>``, and ``n`` counts down: in
ascending order they are unmounted. The file ``<n>-type`` names the handler (docs/containerd 3.19).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from windlass.contracts.activations import ActiveMount, MountHandler
from windlass.contracts.mounts import Mount

TYPE = "-type"


class Places:
    """The directory of the mounts of all activations."""

    def __init__(self, targets: Path, handlers: Mapping[str, MountHandler], plain: MountHandler) -> None:
        """Use ``plain`` for types that have no handler."""
        self.targets = targets
        self._handlers = handlers
        self._plain = plain
        targets.mkdir(mode=0o700, parents=True, exist_ok=True)
        targets.chmod(0o700)

    def make(self, id: int) -> None:
        """Make the directory of an activation; what is there is of one that was forgotten with all others."""
        self.clear(id)
        self.targets.joinpath(str(id)).mkdir(0o700)

    def mount(self, id: int, number: int, mount: Mount, below: Sequence[ActiveMount]) -> ActiveMount:
        """Make one mount."""
        place = self.targets / str(id) / str(number)
        place.with_name(place.name + TYPE).write_text(mount.type, errors="surrogateescape")
        return self._handler(mount.type).mount(mount, str(place), below)

    def is_mounted(self, active: ActiveMount) -> bool:
        """Return whether a mount is still there."""
        return self._handler(active.mount.type).is_mounted(active.mount_point)

    def clear(self, id: int) -> None:
        """Unmount and remove everything of an activation; what has been removed already is fine."""
        directory = self.targets / str(id)
        if not directory.is_dir():
            return
        for place in _places(directory):
            kind = place.with_name(place.name + TYPE)
            handler = self._handler(kind.read_text(errors="surrogateescape") if kind.exists() else "")
            handler.unmount(str(place))
            kind.unlink(missing_ok=True)
        directory.rmdir()

    def ids(self) -> Iterator[int]:
        """Yield the IDs that have a directory."""
        return (int(entry.name) for entry in list(self.targets.iterdir()) if entry.name.isdigit())

    def _handler(self, kind: str) -> MountHandler:
        return self._handlers.get(kind, self._plain)


def _places(directory: Path) -> list[Path]:
    """Return the places in the order of unmounting, whether there is a mount, its type, or both."""
    numbers = {entry.name.removesuffix(TYPE) for entry in directory.iterdir()}
    return [directory / number for number in sorted((n for n in numbers if n.isdigit()), key=int)]
