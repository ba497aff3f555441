"""Mounts with other owners: user namespaces made for their mapping, and mounts that carry one.

mount_setattr(2), "ID-mapped mounts". The mapping is taken from a user namespace,
and only a process can have one; ours is a copy of the daemon that sleeps inside
the C library until its mapping has been read, so nothing of Python runs in it.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from windlass.errors import InvalidArgument
from windlass_linux import calls as linux
from windlass_linux import overlay_mount
from windlass_linux.mount_options import Options

STACK = 64 * 1024
SLEEP_SECONDS = 10
MAX_RANGES = 340
"""user_namespaces(7): what a map may have at most."""

DETACHED_LAYERS = (6, 15)
"""From this Linux on overlay takes layers from mounts that are attached nowhere, so a crash leaves none behind."""

_RANGE = re.compile(r"(\d{1,10}):(\d{1,10}):(\d{1,10})")


def parse_mapping(text: str) -> tuple[tuple[int, int, int], ...]:
    """Parse ``container:host:length,…``; raises InvalidArgument."""
    ranges = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise InvalidArgument(f"ID mapping {text[:80]!r} is not valid: container:host:length, separated by commas")
        inside, outside, length = (int(number) for number in match.groups())
        if not length or max(inside, outside) + length > 2**32 - 1:
            raise InvalidArgument(f"ID mapping {part} is empty or leaves the range of IDs")
        ranges.append((inside, outside, length))
    if len(ranges) > MAX_RANGES:
        raise InvalidArgument(f"ID mapping has {len(ranges)} ranges, Linux takes {MAX_RANGES}")
    return tuple(ranges)


def root_of(mapping: str) -> int:
    """Return the host's ID of the mapping's ID 0; raises InvalidArgument if it has none."""
    for inside, outside, _ in parse_mapping(mapping):
        if inside == 0:
            return outside
    raise InvalidArgument(f"ID mapping {mapping[:80]!r} does not map 0")


def user_namespace(uidmap: str, gidmap: str) -> int:
    """Return a descriptor of a new user namespace with these mappings; the caller closes it."""
    with sleeper(uidmap, gidmap) as pid:
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def sleeper(uidmap: str, gidmap: str, flags: int = 0) -> Iterator[int]:
    """Yield a process in a new user namespace with these mappings, and in new namespaces of it that ``flags`` name."""
    maps = {"uid_map": parse_mapping(uidmap), "gid_map": parse_mapping(gidmap)}
    libc = linux.libc()
    stack = ctypes.create_string_buffer(STACK)
    top = ctypes.c_void_p((ctypes.addressof(stack) + STACK) & ~15)
    kinds = linux.CLONE_NEWUSER | linux.CLONE_FILES | flags
    # No exit signal: code that waits for the daemon's other children never sees this one.
    pid = libc.clone(libc.sleep, top, kinds, ctypes.c_void_p(SLEEP_SECONDS))
    if pid < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot make a user namespace: {os.strerror(code)}")
    try:
        for name, ranges in maps.items():
            # Linux takes a map in one write(2) only.
            Path(f"/proc/{pid}/{name}").write_bytes("\n".join(f"{i} {o} {n}" for i, o, n in ranges).encode())
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, linux.WALL)


def clone_mapped(path: str, namespace: int, recursive: bool = False) -> int:
    """Return a detached copy of the mount at ``path`` that shows owners through ``namespace``."""
    below = linux.AT_RECURSIVE if recursive else 0
    tree = linux.open_tree(linux.AT_FDCWD, path, linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | below)
    try:
        flags = linux.AT_EMPTY_PATH | below
        linux.mount_setattr(tree, "", flags, attr_set=linux.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    except BaseException:
        os.close(tree)
        raise
    return tree


@contextmanager
def mapped_layers(options: Options) -> Iterator[Options]:
    """Yield the options of an overlay with lower directories that are mapped.

    The overlay as a whole cannot be mapped, and the upper directory's files have the mapped owners already.
    """
    with ExitStack() as stack:
        namespace = user_namespace(options.uidmap, options.gidmap)
        stack.callback(os.close, namespace)
        data = []
        for option in options.data:
            if option.startswith("lowerdir="):
                lowers = [path for _, path in overlay_mount.parse([option])]
                option = "lowerdir=" + ":".join(_layer(stack, path, namespace) for path in lowers)
            data.append(option)
        yield Options(options.flags, options.propagation, tuple(data), uidmap=options.uidmap, gidmap=options.gidmap)


def _layer(stack: ExitStack, path: str, namespace: int) -> str:
    """Return a name for a mapped copy of ``path`` that is valid as long as ``stack``."""
    tree = clone_mapped(path, namespace)
    stack.callback(os.close, tree)
    if linux_version() >= DETACHED_LAYERS:
        return f"/proc/self/fd/{tree}"
    place = tempfile.mkdtemp(prefix="windlass-layer-")
    stack.callback(os.rmdir, place)
    linux.move_mount(tree, "", linux.AT_FDCWD, place, linux.MOVE_MOUNT_F_EMPTY_PATH)
    stack.callback(linux.umount2, place, linux.MNT_DETACH)
    return place


def linux_version() -> tuple[int, int]:
    """Return the two leading numbers of the running Linux."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(re.sub(r"\D.*", "", minor))


def bind(source: str, target: str, options: Options) -> None:
    """Attach a mapped copy of ``source`` at ``target``."""
    namespace = user_namespace(options.uidmap, options.gidmap)
    try:
        tree = clone_mapped(source, namespace, recursive=bool(options.flags & linux.MS_REC))
    finally:
        os.close(namespace)
    try:
        here = linux.MOVE_MOUNT_F_EMPTY_PATH | linux.MOVE_MOUNT_T_SYMLINKS
        linux.move_mount(tree, "", linux.AT_FDCWD, target, here)
    finally:
        os.close(tree)
