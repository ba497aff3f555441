"""The accounts of a root file system: its /etc/passwd and /etc/group, read without trust in what they are.

Both are bounded, regular files, and no link in the image leads out of it. A snapshot is mounted read-only in a mount
namespace of one thread, which leaves nothing behind even after kill -9.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Sequence

from windlass.contracts.mounts import Mount
from windlass.errors import Error, InvalidArgument, NotFound, OutOfRange, PermissionDenied
from windlass_linux import calls as linux
from windlass_oci.users import Accounts

FILE_LIMIT = 10 << 20


def read_accounts(mounts: Sequence[Mount]) -> Accounts:
    """Read the accounts of a snapshot, given its mounts. Blocks; needs root."""
    result: list[Accounts | BaseException] = []
    thread = threading.Thread(target=_read_in_thread, args=(mounts, result), name="windlass-accounts", daemon=True)
    thread.start()
    thread.join()
    found = result[0]
    if isinstance(found, BaseException):
        raise found
    return found


def _read_in_thread(mounts: Sequence[Mount], result: list[Accounts | BaseException]) -> None:
    from windlass_linux import mounting

    try:
        # Of this thread alone, unshare(2): the namespace and its mounts end with it.
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
        with mounting.mounted(mounting.read_only(mounts)) as root:
            result.append(read_files(root))
    except PermissionError as error:
        result.append(PermissionDenied(f"the image's users can only be looked up by root: {error.strerror}"))
    except (OSError, Error) as error:
        result.append(error if isinstance(error, Error) else NotFound(f"the image's users cannot be read: {error}"))


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
