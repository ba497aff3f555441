"""Reads and writes small files without Python's text layers, whose objects no shim needs to touch."""

# ruff: noqa: PTH108
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import os

MAX_FILE = 1 << 20


def read(path: str) -> bytes:
    """Return a file's content, at most a megabyte of it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        parts = [os.read(fd, 4096)]
        while parts[-1] and len(parts) * 4096 < MAX_FILE:
            parts.append(os.read(fd, 4096))
        return b"".join(parts)
    finally:
        os.close(fd)


def exists(path: str) -> bool:
    """Return whether there is something at a path; with a slash at its end, whether that is a directory.

    Unlike those of `os.path`, this costs no exception and no second function.
    """
    return os.access(path, os.F_OK)


def write(path: str, data: bytes, flags: int = os.O_CREAT | os.O_TRUNC) -> None:
    """Write a file that only root can read."""
    fd = os.open(path, os.O_WRONLY | flags, 0o600)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Delete a file that may not be there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
