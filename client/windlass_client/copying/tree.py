"""A root file system as a descriptor of its root: of a container that runs, of one that does not, or of the host.

Paths are resolved by openat2(2) with RESOLVE_IN_ROOT: symbolic links, `..` and renames that a container makes
meanwhile stay inside. What is found is a descriptor, so that a name that changes afterwards changes nothing.
"""

from __future__ import annotations

import errno
import os
import posixpath
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from windlass.contracts.mounts import Mount
from windlass.errors import Error, FailedPrecondition, NotFound, PermissionDenied
from windlass_linux import calls as linux
from windlass_linux import mounting

INSIDE = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
PATH = os.O_PATH | os.O_CLOEXEC


@dataclass
class Tree:
    """A root; ``name`` is what errors call it. To be used as a context, which closes the descriptor."""

    descriptor: int
    name: str

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    def open(self, path: str, flags: int = PATH, follow: bool = True) -> int:
        """Return a descriptor of what is at a path. Raises NotFound, FailedPrecondition."""
        if not follow:
            flags |= os.O_NOFOLLOW
        try:
            return linux.openat2(self.descriptor, path.lstrip("/") or ".", flags, resolve=INSIDE)
        except OSError as error:
            raise self.problem(path, error) from None

    def problem(self, path: str, error: OSError) -> Error:
        """Return what an error of the system means here."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return NotFound(f"{self.name}{path}: there is no such file or directory")
        if error.errno in (errno.EACCES, errno.EPERM):
            return PermissionDenied(f"{self.name}{path}: {error.strerror}; use root")
        return FailedPrecondition(f"{self.name}{path}: {error.strerror}")


def of_host(directory: str) -> Tree:
    """Return a directory of this machine as a root of its own: nothing in it leads out of it. Raises NotFound."""
    tree = Tree(-1, "")
    try:
        tree.descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise tree.problem(directory, error) from None
    return tree


def of_process(pid: int, name: str) -> Tree:
    """Return the root of a process that runs in a container, with all that is mounted there. Raises NotFound."""
    try:
        return Tree(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), name)
    except PermissionError:
        raise PermissionDenied(f"the files of container {name.rstrip(':')} can be reached by root only") from None
    except FileNotFoundError:
        raise NotFound(f"the process of container {name.rstrip(':')} has ended; try again") from None


def of_mounts(mounts: Sequence[Mount], volumes: Sequence[Mount], name: str) -> Tree:
    """Return the root of a snapshot with volumes in their places. Nothing is mounted in any namespace afterwards.

    Blocks; needs root. The descriptor alone keeps the mounts, also if this process is killed.
    """
    found: list[int] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            found.append(_detached(mounts, volumes))
        except (OSError, Error) as error:
            problems.append(error)

    # unshare(2) of mounts needs a thread that no other work ever uses.
    thread = threading.Thread(target=work, name="windlass-tree", daemon=True)
    thread.start()
    thread.join()
    for problem in problems:
        if isinstance(problem, PermissionError):
            raise PermissionDenied(f"the files of container {name.rstrip(':')} can be mounted by root only")
        if isinstance(problem, OSError):
            raise FailedPrecondition(f"the files of container {name.rstrip(':')} cannot be mounted: {problem}")
        raise problem
    return Tree(found[0], name)


def _detached(mounts: Sequence[Mount], volumes: Sequence[Mount]) -> int:
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    with mounting.mounted(mounts) as root:
        for each in volumes:
            _mount_inside(root, each)
        return linux.open_tree(
            linux.AT_FDCWD, root, linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_RECURSIVE
        )


def _mount_inside(root: str, mount: Mount) -> None:
    """Mount at the mount's place below a root; a directory for it is made, as the runtime does when it starts."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        inside = mount.target.strip("/")
        if os.path.isdir(mount.source):  # noqa: PTH112 - a source is a text
            place = made_directory(top, inside)
        else:
            place = linux.openat2(top, inside, PATH, resolve=INSIDE)
    except FileNotFoundError:
        return  # a single file, whose place the runtime makes at the first start
    finally:
        os.close(top)
    try:
        # Its path has no links, and no container runs that could change it; the descriptor is below what is mounted.
        mounting.mount_one(mount, os.readlink(f"/proc/self/fd/{place}"))  # noqa: PTH115 - not one of the user's
    finally:
        os.close(place)


def made_directory(top: int, path: str) -> int:
    """Return a descriptor of a directory in a root, which is made, with those above it, if it is not there."""
    try:
        return linux.openat2(top, path or ".", PATH | os.O_DIRECTORY, resolve=INSIDE)
    except FileNotFoundError:
        above, name = posixpath.split(path)
        if not name:
            raise
    parent = made_directory(top, above)
    try:
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
    finally:
        os.close(parent)
    return linux.openat2(top, path, PATH | os.O_DIRECTORY, resolve=INSIDE)
