"""The files of checkpoints: written for one reader, read without trust in any of them.

An archive is a plain tar. That of a pod is sealed: only a daemon that has the key of the one that wrote it reads it,
since what criu restores has the rights that the archive says.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from windlass.errors import InvalidArgument, Unknown

SEAL = "seal"
MODE = 0o600
MOST_ENTRIES = 100_000
NAME = re.compile(r"(?!\.)[A-Za-z0-9_.+:@-]{1,200}")
"""Of a file or directory in an archive: no separator, and not hidden."""
BLOCK = 1 << 20


def copy_plain(source: Path, target: Path) -> None:
    """Copy a plain file. Raises Unknown for a link and all else that is not one, before it is opened."""
    if not stat.S_ISREG(source.lstat().st_mode):
        raise Unknown(f"refusing to copy {source}: not a regular file")
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file, open(target, "xb", opener=_private) as out:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unknown(f"refusing to copy {source}: not a regular file")
        shutil.copyfileobj(file, out, BLOCK)


def write_json(path: Path, document: object) -> None:
    """Write a document that only root reads."""
    with open(path, "x", opener=_private, encoding="utf-8") as file:
        json.dump(document, file)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)


def check_place(location: str) -> Path:
    """Return where an archive is to be. Raises InvalidArgument for a path that cannot be one."""
    path = Path(location)
    if not location or not path.is_absolute() or "\0" in location or location.endswith("/"):
        raise InvalidArgument(f"location {location[:200]!r} of a checkpoint is not the absolute path of a file")
    if not path.parent.is_dir():
        raise InvalidArgument(f"location {location[:200]!r} of a checkpoint is in a directory that does not exist")
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise InvalidArgument(f"location {location[:200]!r} of a checkpoint is there, and is not a regular file")
    return path


def pack(directory: Path, location: Path) -> None:
    """Write an archive of a directory, all or nothing; a file that is there is replaced."""
    temporary = location.with_name(f".{location.name[:100]}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb", opener=_private) as out, tarfile.open(fileobj=out, mode="w") as archive:
            for path in sorted(directory.rglob("*")):
                archive.add(path, path.relative_to(directory).as_posix(), recursive=False)
            out.flush()
        temporary.rename(location)
    finally:
        temporary.unlink(missing_ok=True)


def unpack(location: str, directory: Path) -> None:
    """Unpack an archive into an empty directory.

    Raises InvalidArgument for a path that is not a plain file, and for anything in it but plain files and directories
    with plain names.
    """
    with _opened(location) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for count, member in enumerate(archive):
                    if count >= MOST_ENTRIES:
                        raise InvalidArgument(f"checkpoint {location[:200]!r} has more than {MOST_ENTRIES} files")
                    _unpack(archive, member, directory)
        except (tarfile.TarError, EOFError, FileExistsError) as error:
            raise InvalidArgument(f"checkpoint {location[:200]!r} is damaged: {error}") from error


@contextmanager
def _opened(location: str) -> Iterator[BinaryIO]:
    if not Path(location).is_absolute() or "\0" in location:
        raise InvalidArgument(f"checkpoint_path {location[:200]!r} is not an absolute path")
    try:
        descriptor = os.open(location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(f"checkpoint {location[:200]!r} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidArgument(f"checkpoint {location[:200]!r} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    parts = member.name.split("/")
    if not all(NAME.fullmatch(part) for part in parts):
        raise InvalidArgument(f"checkpoint has a file of the name {member.name[:100]!r}, which no checkpoint has")
    target = directory.joinpath(*parts)
    if member.isdir():
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        return
    source = archive.extractfile(member) if member.isreg() else None
    if source is None or member.sparse is not None:
        raise InvalidArgument(f"checkpoint has {member.name[:100]!r}, which is neither a plain file nor a directory")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(target, "xb", opener=_private) as out:
        shutil.copyfileobj(source, out, BLOCK)


def seal(directory: Path, key: bytes) -> None:
    """Write the seal of a directory into it."""
    with open(directory / SEAL, "x", opener=_private, encoding="ascii") as file:
        file.write(_digest(directory, key))


def check_seal(directory: Path, key: bytes) -> None:
    """Raise InvalidArgument unless a directory has the seal of this key."""
    try:
        found = (directory / SEAL).read_bytes()[:100]
    except OSError:
        found = b""
    if not hmac.compare_digest(found, _digest(directory, key).encode()):
        raise InvalidArgument("the checkpoint was not written by this node, or was changed: its seal is not right")


def _digest(directory: Path, key: bytes) -> str:
    """Return the authentication code of all files with their names."""
    code = hmac.new(key, digestmod=hashlib.sha256)
    for path in sorted(each for each in directory.rglob("*") if each.name != SEAL and each.is_file()):
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        code.update(f"{inner} {path.relative_to(directory).as_posix()}\n".encode())
    return code.hexdigest()


def key(path: Path) -> bytes:
    """Return the key of this node's seals, which is made with the first."""
    try:
        with open(path, "xb", opener=_private) as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        pass
    found = path.read_bytes()
    if len(found) != 32:
        raise Unknown(f"{path} is not the key of checkpoints; remove it, and no older checkpoint of a pod is read")
    return found
