"""What the two arguments of `cp` mean, by docker's rules."""

from __future__ import annotations

import os
import posixpath
import stat
from dataclasses import dataclass

from windlass.errors import FailedPrecondition, InvalidArgument, NotFound
from windlass_client.copying.tree import Tree


@dataclass(frozen=True)
class Argument:
    """A path, and the container that it is in."""

    container: str
    """Empty for this machine."""
    path: str

    @property
    def is_stream(self) -> bool:
        """Whether it is a tar stream on standard input or output."""
        return not self.container and self.path == "-"


def parse(text: str) -> Argument:
    """Read ``CONTAINER:PATH`` or a path of this machine, which begins with / or . if it has a colon."""
    container, colon, path = text.partition(":")
    if text.startswith(("/", ".")) or not colon:
        return Argument("", text)
    if not container or not path:
        raise InvalidArgument(f"{text[:100]!r} is not of the form CONTAINER:PATH")
    return Argument(container, path)


@dataclass(frozen=True)
class Source:
    """What is copied: a descriptor of it, and its name."""

    descriptor: int
    name: str
    is_directory: bool
    contents: bool
    """Whether not the directory itself is meant, but all that is in it."""


def source(tree: Tree, path: str, follow: bool) -> Source:
    """Return what a path of a tree stands for; the caller closes its descriptor. Raises NotFound."""
    contents = path.endswith("/.") or path in (".", "/")
    into = follow or path.endswith("/") or contents
    descriptor = tree.open(path, follow=into)
    is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    if not is_directory and (contents or path.endswith("/")):
        os.close(descriptor)
        raise FailedPrecondition(f"{tree.name}{path} is not a directory; leave out what follows the name")
    name = posixpath.basename(path.rstrip("/")) if not contents else "."
    return Source(descriptor, name or ".", is_directory, contents)


@dataclass(frozen=True)
class Target:
    """Where it is copied to: an existing directory, and the name in it; `.` is the directory itself."""

    directory: str
    name: str


def target(tree: Tree, path: str, copied: Source) -> Target:
    """Return where something comes if it is copied to a path of a tree. Raises NotFound, FailedPrecondition."""
    try:
        descriptor = tree.open(path)
    except NotFound:
        return _new(tree, path, copied)
    try:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
    if is_directory:
        return Target(path, copied.name)
    if copied.is_directory:
        raise FailedPrecondition(f"{tree.name}{path} is not a directory; a directory cannot be copied to it")
    if path.endswith("/"):
        raise FailedPrecondition(f"{tree.name}{path} is not a directory")
    return Target(posixpath.dirname(path), posixpath.basename(path))


def _new(tree: Tree, path: str, copied: Source) -> Target:
    plain = path.rstrip("/")
    if path.endswith("/") and not copied.is_directory:
        raise NotFound(f"{tree.name}{path}: there is no such directory")
    parent, name = posixpath.split(plain.removesuffix("/."))
    descriptor = tree.open(parent or "/")
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise NotFound(f"{tree.name}{parent}: there is no such directory")
    finally:
        os.close(descriptor)
    return Target(parent, name)
