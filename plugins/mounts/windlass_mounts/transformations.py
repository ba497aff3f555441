"""The transformations ``mkdir/`` and ``mkfs/``, which make what a mount needs before it can be made.

Their options are ``X-containerd.mkdir.path=PATH[:MODE[:UID:GID]]`` and
``X-containerd.mkfs.size=``, ``.fs=`` and ``.uuid=``; the mount does not get them. Both
work below some directories only, and follow no symbolic link there.

Source: docs/containerd 3.19.
"""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from windlass.contracts.activations import ActiveMount
from windlass.contracts.mounts import Mount
from windlass.errors import InvalidArgument, Unimplemented
from windlass.records import dataclass
from windlass_mounts.mkfs import make_image
from windlass_mounts.templates import format_mount

MKDIR = "X-containerd.mkdir."
MKFS = "X-containerd.mkfs."
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
UNITS = " kmgtp"
LARGEST = 1 << 60
SHOWN = 200
OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Transformation = Callable[[Mount, Sequence[ActiveMount]], Mount]


def transformations(roots: Sequence[Path]) -> Mapping[str, Transformation]:
    """Return all transformations by their prefix; what they make is below one of ``roots``."""
    return {
        "format": format_mount,
        "mkdir": lambda mount, _: make_directories(mount, roots),
        "mkfs": lambda mount, _: make_filesystem(mount, roots),
    }


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that is wanted; without an owner, our own."""

    path: Path
    mode: int = 0o700
    uid: int | None = None
    gid: int | None = None


def make_directories(mount: Mount, roots: Sequence[Path]) -> Mount:
    """Make the directories that the options ask for, and return the mount without these options.

    Raises Unimplemented for one outside of ``roots`` or that is there with another mode or owner: the
    caller may know better. Raises InvalidArgument for options that cannot be understood.
    """
    mine, others = taken(mount.options, MKDIR)
    for option in mine:
        key, _, value = option.partition("=")
        if key != f"{MKDIR}path":
            raise InvalidArgument(f"mount option {option[:SHOWN]!r} is unknown, there is {MKDIR}path=")
        make_directory(parse_directory(value), roots)
    return replace(mount, options=others)


def taken(options: Sequence[str], prefix: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return those of ``options`` that begin with ``prefix``, and the others."""
    mine = tuple(option for option in options if option.startswith(prefix))
    return mine, tuple(option for option in options if option not in mine)


def parse_directory(value: str) -> Directory:
    """Read ``PATH[:MODE[:UID:GID]]``. Raises InvalidArgument."""
    match value.split(":"):
        case [path]:
            return Directory(Path(path))
        case [path, mode] if octal(mode):
            return Directory(Path(path), int(mode, 8))
        case [path, mode, uid, gid] if octal(mode) and identity(uid) and identity(gid):
            return Directory(Path(path), int(mode, 8), int(uid), int(gid))
    raise InvalidArgument(f"directory {value[:SHOWN]!r} is not of the form path[:mode[:uid:gid]] with an octal mode")


def octal(text: str) -> bool:
    """Return whether a text is a mode."""
    return re.fullmatch(r"[0-7]{1,5}", text, re.ASCII) is not None and int(text, 8) <= 0o7777


def identity(text: str) -> bool:
    """Return whether a text is the number of a user or group."""
    return re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) is not None and int(text) < (1 << 32) - 1


def make_directory(wanted: Directory, roots: Sequence[Path]) -> None:
    """Make a directory below one of ``roots``, and those above it as needed."""
    root, parts = below(wanted.path, roots)
    here = os.open(root, OPEN)
    try:
        made = False
        for part in parts:
            made = _make(part, here)
            there = _open(part, here, wanted.path)
            os.close(here)
            here = there
        if made:
            _own(here, wanted)
        else:
            _check(here, wanted)
    finally:
        os.close(here)


def below(path: Path, roots: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
    """Return the root that ``path`` is below, and the names from there. Raises Unimplemented."""
    if path.is_absolute() and ".." not in path.parts and "\0" not in str(path):
        for root in roots:
            if path != root and path.is_relative_to(root):
                return root, path.relative_to(root).parts
    raise Unimplemented(f"{str(path)[:SHOWN]!r} is not below {' or '.join(map(str, roots))}, where it could be made")


def _make(name: str, directory: int) -> bool:
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
    except FileExistsError:
        return False
    return True


def _open(name: str, directory: int, path: Path) -> int:
    try:
        return os.open(name, OPEN, dir_fd=directory)
    except (NotADirectoryError, OSError) as error:
        raise Unimplemented(f"cannot make directory {path}: {name} is there and no directory") from error


def _own(directory: int, wanted: Directory) -> None:
    if wanted.uid is not None and wanted.gid is not None:
        os.fchown(directory, wanted.uid, wanted.gid)
    # After chown, and whatever the umask is.
    os.fchmod(directory, wanted.mode)


def _check(directory: int, wanted: Directory) -> None:
    found = os.fstat(directory)
    mode = stat.S_IMODE(found.st_mode)
    if mode != wanted.mode:
        raise Unimplemented(f"directory {wanted.path} is there with mode {mode:o}, not {wanted.mode:o}")
    uid = os.geteuid() if wanted.uid is None else wanted.uid
    gid = os.getegid() if wanted.gid is None else wanted.gid
    if (found.st_uid, found.st_gid) != (uid, gid):
        raise Unimplemented(f"directory {wanted.path} is there and of {found.st_uid}:{found.st_gid}, not {uid}:{gid}")


def make_filesystem(mount: Mount, roots: Sequence[Path]) -> Mount:
    """Make a filesystem in the file that is the mount's source, if it is not there, and return the mount.

    Raises as `make_directories`; Unimplemented too when the program that makes it is not installed.
    """
    mine, others = taken(mount.options, MKFS)
    settings = dict(option.removeprefix(MKFS).partition("=")[::2] for option in mine)
    if unknown := settings.keys() - {"size", "fs", "uuid"}:
        raise InvalidArgument(f"mount option {MKFS}{min(unknown)[:SHOWN]} is unknown, there are size, fs and uuid")
    if "size" not in settings:
        raise InvalidArgument(f"{MKFS}size= is missing: how large is the filesystem in {mount.source[:SHOWN]!r} to be?")
    path = Path(mount.source)
    root, parts = below(path, roots)
    if Path(os.path.realpath(path)) != Path(os.path.realpath(root)).joinpath(*parts):
        raise Unimplemented(f"{str(path)[:SHOWN]!r} is reached by a symbolic link; name the file itself")
    make_image(path, parse_size(settings["size"]), settings.get("fs") or "ext4", checked_uuid(settings.get("uuid", "")))
    return replace(mount, options=others)


def parse_size(text: str) -> int:
    """Read a size such as ``512MiB`` or ``1.5g``; units are powers of 1024. Raises InvalidArgument."""
    match = SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * 1024 ** UNITS.index(match[2].lower() or " ")) if match and len(text) < 40 else 0
    if not 0 < size <= LARGEST:
        raise InvalidArgument(f"size {text[:40]!r} is not a size; write a number and a unit, such as 10GiB")
    return size


def checked_uuid(text: str) -> str:
    """Return a UUID as it is usually written, "" for none. Raises InvalidArgument."""
    try:
        return str(uuid.UUID(text)) if text else ""
    except ValueError:
        raise InvalidArgument(f"{MKFS}uuid={text[:SHOWN]} is not a UUID") from None
