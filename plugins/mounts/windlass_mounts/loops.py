"""The handler of mount type ``loop``: a file becomes a block device, for the mounts that come after it.

The place of such a mount is a symbolic link to the device. The device carries the
place as its name, by which a later daemon knows it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from windlass.contracts.activations import ActiveMount, MountHandler
from windlass.contracts.mounts import Mount
from windlass.errors import InvalidArgument
from windlass.typing import override
from windlass_linux import loop, loop_calls

OPTIONS = {"ro", "rw", "loop", "direct-io"}
DEVICE = "/dev/loop"


class LoopHandler(MountHandler):
    """Attaches files to loop devices; a place is a link to the device."""

    @override
    def mount(self, mount: Mount, place: str, below: Sequence[ActiveMount]) -> ActiveMount:
        if unknown := set(mount.options) - OPTIONS:
            raise InvalidArgument(f"loop device of {mount.source[:200]} has no option {min(unknown)[:80]!r}")
        # Until the link is there the device is freed by Linux if we die.
        with loop.attached(mount.source, readonly="ro" in mount.options, direct="direct-io" in mount.options) as device:
            Path(place).symlink_to(device)
            try:
                _rename(device, name_of(place))
            except BaseException:
                Path(place).unlink()
                raise
        return ActiveMount(mount, place, time.time_ns(), {"device": device})

    @override
    def unmount(self, place: str) -> None:
        if self.is_mounted(place):
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                loop_calls.loop_clr_fd(descriptor)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            finally:
                os.close(descriptor)
        Path(place).unlink(missing_ok=True)

    @override
    def is_mounted(self, place: str) -> bool:
        with suppress(OSError):
            device = str(Path(place).readlink())
            if device.startswith(DEVICE):
                descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    return loop_calls.loop_get_status(descriptor)[1] == name_of(place)
                finally:
                    os.close(descriptor)
        return False


def name_of(place: str) -> str:
    """Return the name of the device attached at ``place``: its end, as Linux keeps 63 bytes."""
    return os.fsdecode(os.fsencode(place)[1 - loop_calls.LO_NAME_SIZE :])


def _rename(device: str, name: str) -> None:
    """Name a device, which from then on stays until it is freed."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags, _ = loop_calls.loop_get_status(descriptor)
        loop_calls.loop_set_status(descriptor, flags & ~loop_calls.LO_FLAGS_AUTOCLEAR, name)
    finally:
        os.close(descriptor)
