"""Subvolumes of btrfs: made, copied, frozen and deleted by ioctl(2), as linux/btrfs.h has them."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

from windlass_linux import calls as linux

SUBVOL_CREATE = 0x5000940E
SNAP_DESTROY = 0x5000940F
INO_LOOKUP = 0xD0009412
SNAP_CREATE_V2 = 0x50009417
SUBVOL_GETFLAGS = 0x80089419
SUBVOL_SETFLAGS = 0x4008941A

READ_ONLY = 1 << 1
FIRST_INODE = 256
"""BTRFS_FIRST_FREE_OBJECTID: the inode of every subvolume's root."""

_VOLUME = struct.Struct("=q 4088s")
_VOLUME_V2 = struct.Struct("=q Q Q 32x 4040s")
_LOOKUP = struct.Struct("=Q Q 4080x")
_FLAGS = struct.Struct("=Q")


def create(place: Path) -> None:
    """Make an empty subvolume."""
    with _opened(place.parent) as parent:
        _ask(parent, SUBVOL_CREATE, _VOLUME.pack(0, os.fsencode(place.name)))


def snapshot(source: Path, place: Path) -> None:
    """Make a writable copy of a subvolume; subvolumes in it are empty directories in the copy."""
    with _opened(source) as subvolume, _opened(place.parent) as parent:
        _ask(parent, SNAP_CREATE_V2, _VOLUME_V2.pack(subvolume, 0, 0, os.fsencode(place.name)))


def freeze(subvolume: Path, frozen: bool = True) -> None:
    """Make a subvolume read-only, or writable again."""
    with _opened(subvolume) as descriptor:
        _freeze(descriptor, frozen)


def _freeze(descriptor: int, frozen: bool) -> None:
    (flags,) = _FLAGS.unpack(_ask(descriptor, SUBVOL_GETFLAGS, _FLAGS.pack(0)))
    wanted = flags | READ_ONLY if frozen else flags & ~READ_ONLY
    if wanted != flags:
        _ask(descriptor, SUBVOL_SETFLAGS, _FLAGS.pack(wanted))


def id_of(subvolume: Path) -> int:
    """Return the number by which a subvolume is mounted."""
    with _opened(subvolume) as descriptor:
        # A tree of 0 asks for the tree that holds the descriptor's inode.
        answer = _ask(descriptor, INO_LOOKUP, _LOOKUP.pack(0, FIRST_INODE))
        tree: int = _LOOKUP.unpack(answer)[0]
        return tree


def sync(subvolume: Path) -> None:
    """Return when the filesystem as it is now would survive a power cut.

    An fsync of one file says nothing of others here: it is answered from a log of that file alone.
    """
    with _opened(subvolume) as descriptor:
        linux.syncfs(descriptor)


def delete(subvolume: Path) -> None:
    """Delete a subvolume with all that is in it; none there is not an error."""
    try:
        _destroy(subvolume)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        # Linux deletes no subvolume that has others in it, such as a container can make, and none from a frozen one.
        with _opened(subvolume) as root:
            for _, _, _, directory in os.fwalk(".", dir_fd=root):
                if os.fstat(directory).st_ino == FIRST_INODE:
                    _freeze(directory, False)
            for _, names, _, directory in os.fwalk(".", topdown=False, dir_fd=root):
                for name in names:
                    _destroy_nested(directory, name)
        _destroy(subvolume)


def _destroy(subvolume: Path) -> None:
    with _opened(subvolume.parent) as parent:
        _ask(parent, SNAP_DESTROY, _VOLUME.pack(0, os.fsencode(subvolume.name)))


def _destroy_nested(parent: int, name: str) -> None:
    if os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino == FIRST_INODE:
        _ask(parent, SNAP_DESTROY, _VOLUME.pack(0, os.fsencode(name)))


def _ask(descriptor: int, request: int, argument: bytes) -> bytearray:
    # A buffer that can be changed: others Python takes up to 1024 bytes only.
    answer = bytearray(argument)
    ioctl(descriptor, request, answer)
    return answer


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
