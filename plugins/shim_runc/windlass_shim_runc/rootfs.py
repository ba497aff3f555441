"""The root filesystem of a container: what a shim mounts in the bundle, and unmounts."""

from __future__ import annotations

from windlass_linux import mounting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from windlass.contracts.mounts import Mount
    from windlass_shim_runc import messages


class Rootfs:
    """The directory ``rootfs`` of a bundle."""

    __slots__ = ("mounted", "path")

    def __init__(self, bundle: str) -> None:
        self.path = f"{bundle}/rootfs"
        self.mounted = False

    def mount(self, wanted: Sequence[messages.Mount]) -> None:
        """Make the mounts of a request; without any, the rootfs is what the bundle has."""
        if wanted:
            # Mounting reads only the four attributes that the message has too.
            mounts: Sequence[Mount] = wanted  # type: ignore[assignment] # see above
            mounting.mount_all(mounts, self.path)
            self.mounted = True

    def unmount(self) -> None:
        """Undo `mount`."""
        if self.mounted:
            mounting.unmount_all(self.path)
            self.mounted = False
