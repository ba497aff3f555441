"""Walks two trees side by side and tells what turns the lower into the upper (docs/containerd 3.16, "Walking diff")."""

# Names are bytes, which pathlib does not take:
# ruff: noqa: PTH115
from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from enum import Enum

from windlass.records import dataclass

READ_SIZE = 256 << 10
CAPABILITY = "security.capability"

Listing = dict[bytes, os.stat_result]


class Kind(Enum):
    """What happened to a path."""

    UNMODIFIED = "unmodified"
    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change:
    """A path relative to both roots, and what is there in the upper, nothing when it was deleted."""

    kind: Kind
    path: bytes
    status: os.stat_result | None


def changes(lower: bytes, upper: bytes) -> Iterator[Change]:
    """Yield every path of either tree, directories before what is in them, names sorted.

    There is nothing about what was below a path that was deleted. The roots themselves are not looked at.
    """
    stack = [_children(lower, upper, b"", True)]
    while stack:
        for change, in_lower in stack[-1]:
            yield change
            if change.status is not None and stat.S_ISDIR(change.status.st_mode):
                stack.append(_children(lower, upper, change.path, in_lower))
                break
        else:
            stack.pop()


def _children(lower: bytes, upper: bytes, path: bytes, in_lower: bool) -> Iterator[tuple[Change, bool]]:
    """Yield the changes in one directory, and whether each is a directory in the lower tree."""
    old = _list(lower + b"/" + path) if in_lower else {}
    new = _list(upper + b"/" + path)
    for name in sorted(old.keys() | new.keys()):
        child = path + b"/" + name if path else name
        before, now = old.get(name), new.get(name)
        if now is None:
            yield Change(Kind.DELETED, child, None), False
        elif before is None:
            yield Change(Kind.ADDED, child, now), False
        else:
            same = _same(lower + b"/" + child, before, upper + b"/" + child, now)
            kind = Kind.UNMODIFIED if same else Kind.MODIFIED
            yield Change(kind, child, now), stat.S_ISDIR(before.st_mode)


def _list(directory: bytes) -> Listing:
    listing: Listing = {}
    for item in os.scandir(directory):
        try:
            listing[item.name] = item.stat(follow_symlinks=False)
        except FileNotFoundError:
            # Gone since the directory was read.
            continue
    return listing


def _same(old_path: bytes, old: os.stat_result, new_path: bytes, new: os.stat_result) -> bool:
    if os.path.samestat(old, new):
        return True
    if (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) != (new.st_mode, new.st_uid, new.st_gid, new.st_rdev):
        return False
    if xattrs(old_path) != xattrs(new_path):
        return False
    if stat.S_ISDIR(new.st_mode):
        return True
    if (old.st_size, old.st_mtime_ns) != (new.st_size, new.st_mtime_ns):
        return False
    # A time without a fraction was perhaps cut, in both: then only the content tells.
    if new.st_mtime_ns % 1_000_000_000 or not new.st_size:
        return True
    if stat.S_ISLNK(new.st_mode):
        return os.readlink(old_path) == os.readlink(new_path)
    return not stat.S_ISREG(new.st_mode) or _same_content(old_path, new_path)


def _same_content(old_path: bytes, new_path: bytes) -> bool:
    old, new = open_file(old_path), open_file(new_path)
    try:
        while piece := os.read(old, READ_SIZE):
            if piece != os.read(new, len(piece)):
                return False
        return not os.read(new, 1)
    finally:
        os.close(old)
        os.close(new)


def open_file(path: bytes) -> int:
    """Open what was a regular file a moment ago, without following or waiting for what it may be now."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def xattrs(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the extended attributes that a layer carries: capabilities and the user's own."""
    found = []
    try:
        for key in sorted(os.listxattr(path, follow_symlinks=False)):
            if key == CAPABILITY or (key.startswith("user.") and not key.startswith("user.overlay.")):
                found.append((os.fsencode(key), os.getxattr(path, key, follow_symlinks=False)))
    except OSError:
        # No support (ENOTSUP), or gone meanwhile (ENODATA, ENOENT): then there is nothing to carry.
        return tuple(found)
    return tuple(found)
