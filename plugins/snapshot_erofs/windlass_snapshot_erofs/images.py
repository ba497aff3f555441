"""Makes images of directories with the program ``mkfs.erofs``, and puts images where snapshots have them."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from windlass.errors import DeadlineExceeded, FailedPrecondition, NoSpace
from windlass_storage.disks import disk_errors

logger = logging.getLogger(__name__)

PROGRAM = "mkfs.erofs"
SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMEOUT = 600.0
SHOWN = 400

MAGIC = 0xE0F5E1E2
SUPERBLOCK_OFFSET = 1024
SUPERBLOCK = struct.Struct("<I8xB23xI")
"""struct erofs_super_block of linux/fs/erofs/erofs_fs.h: magic number, bits of the block size, blocks."""

# ioctl_iflags(2)
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_IMMUTABLE_FL = 0x10


class Images:
    """Makes images, all in one way."""

    def __init__(self, options: Sequence[str] = (), immutable: bool = False) -> None:
        """Add ``options`` to the command line; images that are ``immutable`` have to be thawed before removal."""
        self._options = tuple(options)
        self.immutable = immutable

    @property
    def program(self) -> str:
        """The path of the program, empty when it is not installed."""
        return shutil.which(PROGRAM, path=f"{os.environ.get('PATH', '')}:{SEARCHED}") or ""

    def make(self, directory: Path, image: Path) -> None:
        """Make ``image`` of all that is in a directory; it is durable, and there in full or not at all.

        Raises FailedPrecondition when the program refuses, NoSpace on a full disk.
        """
        place(image, lambda new: self._run(directory, new))

    def seal(self, image: Path) -> None:
        """Make a finished image immutable, if that is wanted; where files cannot be, it is used all the same."""
        if self.immutable:
            try:
                set_immutable(image, True)
            except OSError as error:
                logger.warning("%s is not made immutable: %s", image, error.strerror)

    def _run(self, directory: Path, image: Path) -> None:
        command = [self.program or PROGRAM, "--quiet", *self._options, str(image), str(directory)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False)
        except FileNotFoundError:
            raise FailedPrecondition(f"{PROGRAM} is not installed; install erofs-utils") from None
        except subprocess.TimeoutExpired:
            raise DeadlineExceeded(f"{PROGRAM} of {directory} took longer than {TIMEOUT:g} s") from None
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            if os.strerror(errno.ENOSPC) in said:
                raise NoSpace(f"no space left for {image}; free some or enlarge the filesystem")
            # The first line is the reason; what follows may be the whole manual.
            reason = said.partition("\n")[0][:SHOWN] or f"exit code {done.returncode}"
            raise FailedPrecondition(f"{PROGRAM} of {directory} failed: {reason}")


def place(image: Path, write: Callable[[Path], None]) -> None:
    """Have ``write`` make a file under a temporary name, and give it its own when it is durable."""
    new = image.with_name(f".{image.name}-{secrets.token_hex(8)}")
    try:
        with disk_errors(f"write {image}", image.parent):
            write(new)
            new.chmod(0o600)
            _sync(new)
            new.replace(image)
            _sync(image.parent)
    finally:
        new.unlink(missing_ok=True)


def problem_of(path: Path) -> str:
    """Return why a file is not an image, judged by its superblock and size; empty for one that may be."""
    with path.open("rb") as file:
        file.seek(SUPERBLOCK_OFFSET)
        found = file.read(SUPERBLOCK.size)
    if len(found) < SUPERBLOCK.size:
        return "it is too short"
    magic, bits, blocks = SUPERBLOCK.unpack(found)
    if magic != MAGIC or not 9 <= bits <= 16:
        return "it has no superblock"
    if path.stat().st_size < blocks << bits:
        return f"it is cut off: {blocks} blocks of {1 << bits} bytes do not fit"
    return ""


def thaw(image: Path) -> None:
    """Let an image be removed; one that is not there, or was never immutable, is fine."""
    try:
        set_immutable(image, False)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTTY, errno.EOPNOTSUPP):
            raise


def set_immutable(path: Path, on: bool) -> None:
    """Set or clear the attribute ``i`` of chattr(1)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        (flags,) = struct.unpack("=i4x", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8)))
        wanted = flags | FS_IMMUTABLE_FL if on else flags & ~FS_IMMUTABLE_FL
        if wanted != flags:
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("=i4x", wanted))
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
