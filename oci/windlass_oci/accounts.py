"""The accounts of a root file system: its /etc/passwd and /etc/group, read without trust in what they are.

Both are bounded, regular files, and no link in the image leads out of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from windlass.contracts.mounts import Mount
from windlass.errors import InvalidArgument, NotFound, OutOfRange, PermissionDenied
from windlass_linux import calls as linux
from windlass_oci.rootfs import looked_into
from windlass_oci.users import Accounts

FILE_LIMIT = 10 << 20


def read_accounts(mounts: Sequence[Mount]) -> Accounts:
    """Read the accounts of a snapshot, given its mounts. Blocks; needs root."""
    try:
        return looked_into(mounts, read_files)
    except PermissionError as error:
        raise PermissionDenied(f"the image's users can only be looked up by root: {error.strerror}") from error
    except OSError as error:
        raise NotFound(f"the image's users cannot be read: {error}") from error


def read_files(root: str) -> Accounts:
    """Read the accounts below a directory; symbolic links are resolved below it."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return Accounts(_read(directory, "etc/passwd"), _read(directory, "etc/group"))
    finally:
        os.close(directory)


def _read(directory: int, path: str) -> str:
    # O_PATH first: opening a FIFO or a device of the image has effects (GHSA-jpcc-p29g-p8mq).
    try:
        file = linux.openat2(directory, path, os.O_PATH | os.O_CLOEXEC, resolve=linux.RESOLVE_IN_ROOT)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return ""
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgument(f"the image's /{path} is not a regular file")
        if status.st_size > FILE_LIMIT:
            raise OutOfRange(f"the image's /{path} has {status.st_size} bytes, the limit is {FILE_LIMIT}")
        readable = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(file)
    with os.fdopen(readable, "rb") as opened:
        return opened.read(FILE_LIMIT).decode(errors="replace")
