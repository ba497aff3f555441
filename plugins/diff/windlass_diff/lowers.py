"""What lies beneath an overlay's upper directory: owners of implied parents, and files that a hard link names.

The layers beneath stay open as descriptors when the worker is chrooted into the
upper directory; every look-up is bounded by `openat2` to one layer's root.
"""

# Names are bytes, which pathlib does not take:
# ruff: noqa: PTH101
from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from windlass.errors import FailedPrecondition
from windlass_diff.headers import shown
from windlass_linux import calls as linux

_COPIED = 1 << 20


class Lowers:
    """The lower directories of one overlay, the uppermost first; empty for any other mount."""

    def __init__(self, directories: Sequence[str] = ()) -> None:
        """Open ``directories``; they stay open as long as the process lives."""
        self._roots = [os.open(d, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for d in directories]

    def dress(self, path: bytes) -> None:
        """Give the new directory ``path`` owner and mode of the one it is merged with, if there is one."""
        fd = self._find(path)
        if fd is None:
            return
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                os.lchown(path, status.st_uid, status.st_gid)
                os.chmod(path, stat.S_IMODE(status.st_mode))
        finally:
            os.close(fd)

    def copy_up(self, path: bytes) -> bool:
        """Copy a regular file to ``path`` with everything that belongs to it; return whether there was one."""
        found = self._find(path)
        if found is None:
            return False
        try:
            status = os.fstat(found)
            if not stat.S_ISREG(status.st_mode):
                return False
            # O_PATH descriptors cannot be read; /proc is not there to reopen them by.
            self._copy(path, status)
        finally:
            os.close(found)
        return True

    def _copy(self, path: bytes, status: os.stat_result) -> None:
        from windlass_diff.paths import make_parents

        make_parents(path, self)
        source = self._find(path, os.O_RDONLY | os.O_NONBLOCK)
        if source is None:
            raise FileNotFoundError(path)
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while os.sendfile(target, source, None, _COPIED):
                pass
            os.fchown(target, status.st_uid, status.st_gid)
            for key in os.listxattr(source):
                if not key.startswith("trusted."):
                    os.setxattr(target, key, os.getxattr(source, key))
            os.fchmod(target, stat.S_IMODE(status.st_mode))
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(target)
            os.close(source)

    def _find(self, path: bytes, flags: int = os.O_PATH) -> int | None:
        """Open ``path`` in the uppermost layer that has it, unless a layer above says that it is gone."""
        parts = path.strip(b"/").split(b"/")
        for root in self._roots:
            hidden = False
            for depth in range(1, len(parts) + 1):
                status = self._stat(root, b"/".join(parts[:depth]))
                if status is None:
                    break
                if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                    return None
                if not stat.S_ISDIR(status.st_mode) and depth < len(parts):
                    return None
                if depth == len(parts):
                    return self._open(root, path, flags)
                hidden = hidden or self._opaque(root, b"/".join(parts[:depth]))
            if hidden:
                return None
        return None

    def _open(self, root: int, path: bytes, flags: int) -> int | None:
        try:
            name = os.fsdecode(path.strip(b"/"))
            inside = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_SYMLINKS
            return linux.openat2(root, name, flags | os.O_NOFOLLOW, 0, inside)
        except OSError:
            return None

    def _stat(self, root: int, path: bytes) -> os.stat_result | None:
        fd = self._open(root, path, os.O_PATH)
        if fd is None:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _opaque(self, root: int, path: bytes) -> bool:
        fd = self._open(root, path, os.O_RDONLY | os.O_DIRECTORY)
        if fd is None:
            return False
        try:
            return os.getxattr(fd, "trusted.overlay.opaque") == b"y"
        except OSError:
            return False
        finally:
            os.close(fd)


class Absent(Lowers):
    """Lower directories that will be there later: whatever needs them is refused."""

    def dress(self, path: bytes) -> None:
        """Refuse; what is merged with ``path`` decides on its owner and mode."""
        raise FailedPrecondition(f"directory {shown(path)} has no entry, so that it needs the layers below")

    def copy_up(self, path: bytes) -> bool:
        """Refuse; the file may be below."""
        raise FailedPrecondition(f"file {shown(path)} is not in the layer, so that it needs the layers below")
