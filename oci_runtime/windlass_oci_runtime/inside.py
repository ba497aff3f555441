"""Paths inside a root file system that nobody outside of it can be trusted for: resolved by descriptor, openat2(2)."""

from __future__ import annotations

import errno
import os
import stat

from windlass_linux import calls as linux

MOST_TRIES = 32
"""How often a path is looked up again while others change it."""


class Root:
    """A root file system by its directory's descriptor; no path leads out of it."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def open(self, path: str, flags: int = os.O_PATH, resolve: int = 0) -> int:
        """Open a path; symbolic links are followed, as if this were the root. Raises OSError."""
        return linux.openat2(self.descriptor, _within(path), flags, resolve=linux.RESOLVE_IN_ROOT | resolve)

    def directory(self, path: str, resolve: int = 0, mode: int = 0o755) -> int:
        """Open a directory, made with those above it if it is missing."""
        return self._ensure(path, resolve, mode, is_directory=True)

    def file(self, path: str, resolve: int = 0) -> int:
        """Open a file, made empty if it is missing, with the directories above it."""
        return self._ensure(path, resolve, 0o755, is_directory=False)

    def _ensure(self, path: str, resolve: int, mode: int, is_directory: bool) -> int:
        for _ in range(MOST_TRIES):
            try:
                return self.open(path, os.O_PATH | (os.O_DIRECTORY if is_directory else 0), resolve)
            except FileNotFoundError:
                self._make(path, resolve, mode, is_directory)
        raise OSError(errno.EAGAIN, "somebody changes it all the time", path)

    def _make(self, path: str, resolve: int, mode: int, is_directory: bool) -> None:
        above, _, name = path.rstrip("/").rpartition("/")
        if not name or name in (".", ".."):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        parent = self.directory(above or "/", resolve)
        try:
            if self._is_dangling(parent, name):
                return self._make_target(path, parent, name, resolve, mode, is_directory)
            if is_directory:
                os.mkdir(name, mode, dir_fd=parent)
            else:
                flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_WRONLY
                os.close(os.open(name, flags, 0o755, dir_fd=parent))
        except FileExistsError:
            pass
        finally:
            os.close(parent)

    def _make_target(self, path: str, parent: int, name: str, resolve: int, mode: int, is_directory: bool) -> None:
        target = os.readlink(name, dir_fd=parent)
        if resolve & linux.RESOLVE_NO_SYMLINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        above = path.rstrip("/").rpartition("/")[0]
        where = target if target.startswith("/") else f"{above}/{target}"
        # `..` and further links are Linux's to resolve, in the parent of what is missing.
        self._make(where, resolve, mode, is_directory)

    @staticmethod
    def _is_dangling(parent: int, name: str) -> bool:
        try:
            return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False


def _within(path: str) -> str:
    return path.lstrip("/") or "."
