"""One copy: what packs on one side and what unpacks on the other, with a pipe in between."""

from __future__ import annotations

import os
import posixpath
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from windlass.errors import Error, FailedPrecondition
from windlass_client.copying import places
from windlass_client.copying.packing import Packer, kept
from windlass_client.copying.places import Source
from windlass_client.copying.tree import Tree, of_host
from windlass_client.copying.unpacking import Unpacker


def out_of(tree: Tree, path: str, destination: str, follow: bool, archive: bool) -> int:
    """Copy from a container to a path of this machine, and return the bytes of the files."""
    copied = places.source(tree, path, follow)
    try:
        with of_host("/") as host:
            where = places.target(host, _absolute(destination), copied)
        with of_host(where.directory or "/") as directory:
            unpacker = Unpacker(directory, trusted=False, owners=archive and os.geteuid() == 0)
            return _through(Packer, copied, where.name, unpacker)
    finally:
        os.close(copied.descriptor)


def into(tree: Tree, path: str, origin: str, follow: bool, archive: bool) -> int:
    """Copy a path of this machine into a container, and return the bytes of the files."""
    with of_host("/") as host:
        # Above the file itself the path is the user's own, and links in it are followed.
        copied = places.source(host, _absolute(origin), follow)
        try:
            where = places.target(tree, _from_root(path), copied)
            owner = kept if archive else _roots
            unpacker = Unpacker(tree, where.directory)
            return _through(lambda stream: Packer(stream, owner), copied, where.name, unpacker)
        finally:
            os.close(copied.descriptor)


def stream_out(tree: Tree, path: str, stream: IO[bytes], follow: bool) -> None:
    """Write a path of a container to a stream, as tar."""
    copied = places.source(tree, path, follow)
    try:
        packer = Packer(stream)
        packer.add(copied.descriptor, copied.name)
        packer.close()
    finally:
        os.close(copied.descriptor)


def stream_in(tree: Tree, path: str, stream: IO[bytes]) -> int:
    """Unpack a tar stream in a directory of a container, and return the bytes of the files."""
    unpacker = Unpacker(tree, _from_root(path))
    copied = places.source(tree, _from_root(path), follow=True)
    os.close(copied.descriptor)
    if not copied.is_directory:
        raise FailedPrecondition(f"{tree.name}{path} is not a directory; a tar stream is unpacked in one")
    unpacker.unpack(stream)
    return unpacker.size


def _roots(uid: int, gid: int) -> tuple[int, int]:
    """Let everything belong to root, as docker does without --archive."""
    return 0, 0


def _through(make: Callable[[IO[bytes]], Packer], copied: Source, name: str, unpacker: Unpacker) -> int:
    """Pack in a thread and unpack here, so that ^C ends both."""
    reading, writing = os.pipe()
    problems: list[Error | OSError] = []

    def pack() -> None:
        try:
            with os.fdopen(writing, "wb", buffering=0) as stream:
                packer = make(stream)
                packer.add(copied.descriptor, name)
                packer.close()
        except BrokenPipeError:
            pass  # the other side has a reason of its own
        except (Error, OSError) as error:
            problems.append(error)

    thread = threading.Thread(target=pack, name="windlass-pack", daemon=True)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as stream:
            _unpack(unpacker, stream, thread, problems)
    finally:
        thread.join()
    return unpacker.size


def _unpack(unpacker: Unpacker, stream: IO[bytes], thread: threading.Thread, problems: list[Error | OSError]) -> None:
    try:
        unpacker.unpack(stream)
        while stream.read(1 << 16):  # the padding after the end
            pass
    except Error:
        with suppress(OSError):
            stream.close()
        thread.join()
        if problems:
            raise problems[0] from None  # it broke the archive
        raise
    thread.join()
    if problems:
        raise problems[0]


def _absolute(path: str) -> str:
    """Return a path of this machine from the root, with what follows the name as it is."""
    end = "/." if path.endswith("/.") or path in (".", "..") else "/" if path.endswith("/") else ""
    return posixpath.normpath(posixpath.join(os.getcwd(), path)).rstrip("/") + end or "/"  # noqa: PTH109


def _from_root(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def standard_output() -> IO[bytes]:
    """Return where a tar stream goes. Raises FailedPrecondition for a terminal."""
    if sys.stdout.isatty():
        raise FailedPrecondition("a tar stream is not written to a terminal; redirect standard output")
    return sys.stdout.buffer
