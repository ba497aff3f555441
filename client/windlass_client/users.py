"""Who a process runs as: names looked up in the files of the image, which nobody has checked.

The snapshot is mounted read-only in a mount namespace of its own, so that nothing is left behind even by kill -9.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from windlass.contracts.mounts import Mount
from windlass.errors import Error, InvalidArgument, NotFound, OutOfRange, PermissionDenied
from windlass_linux import calls as linux

FILE_LIMIT = 10 << 20
MAX_ID = (1 << 31) - 1
"""Larger ones wrapped around to root: CVE-2024-40635."""
NUMBER = re.compile(r"[+-]?[0-9]+")
"""What containerd takes for a number (strconv.Atoi), of any length: one that is too long must not become a name."""
MISTAKABLE = re.compile(r"[+-]?(0[xX][0-9a-fA-F]*|0[oO][0-7]*|0[bB][01]*|[0-9][0-9_]*)")
"""What some program takes for a number and another one for a name; no account is called like that."""


@dataclass(frozen=True)
class User:
    """A user of a container and its groups."""

    uid: int
    gid: int
    additional: tuple[int, ...] = ()


@dataclass(frozen=True)
class Accounts:
    """The text of /etc/passwd and /etc/group, empty where the image has none."""

    passwd: str = ""
    group: str = ""


def is_numeric(text: str) -> bool:
    """Tell whether a user needs no file to be looked up in: ``uid:gid``."""
    user, colon, group = text.partition(":")
    return bool(colon and NUMBER.fullmatch(user) and NUMBER.fullmatch(group))


def parse(text: str, accounts: Accounts) -> User:
    """Return who ``user``, ``uid``, ``user:group`` or a mixture of them is; an empty text is root."""
    user, colon, group = (text or "0").partition(":")
    if not user or (colon and not group) or ":" in group:
        raise InvalidArgument(f"user {text[:100]!r} is not of the form user, uid, user:group or uid:gid")
    for part in filter(None, (user, group)):
        if MISTAKABLE.fullmatch(part) and not NUMBER.fullmatch(part):
            raise InvalidArgument(f"user or group {part[:100]!r} is neither a name nor a decimal number")
    name, uid, gid = _find_user(user, accounts)
    if group:
        gid = _number(group) if NUMBER.fullmatch(group) else _find_group(group, accounts)
    return User(uid, gid, tuple(_groups_of(name, accounts)) if name else ())


def _find_user(user: str, accounts: Accounts) -> tuple[str, int, int]:
    numeric = _number(user) if NUMBER.fullmatch(user) else None
    for name, uid, gid in _passwd(accounts.passwd):
        if name == user if numeric is None else _plain(uid) == str(numeric):
            return name, _number(uid), _number(gid)
    if numeric is None:
        raise NotFound(f"user {user[:100]!r} is not in the image's /etc/passwd; name one by number")
    return "", numeric, 0


def _find_group(group: str, accounts: Accounts) -> int:
    for name, gid, _ in _group(accounts.group):
        if name == group:
            return _number(gid)
    raise NotFound(f"group {group[:100]!r} is not in the image's /etc/group; name one by number")


def _groups_of(user: str, accounts: Accounts) -> Iterator[int]:
    return (_number(gid) for _, gid, members in _group(accounts.group) if user in members)


def _number(text: str) -> int:
    plain = _plain(text)
    # The length first: Python refuses to read a number of more than 4,300 digits.
    if plain.startswith("-") or len(plain) > len(str(MAX_ID)) or int(plain) > MAX_ID:
        raise OutOfRange(f"user or group {text[:100]} is out of range: 0 to {MAX_ID}")
    return int(plain)


def _plain(text: str) -> str:
    """Return a number as one writes it: 7 for +007."""
    digits = text.lstrip("+-").lstrip("0") or "0"
    return f"-{digits}" if text.startswith("-") and digits != "0" else digits


def _passwd(text: str) -> Iterator[tuple[str, str, str]]:
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) >= 4 and NUMBER.fullmatch(fields[2]) and NUMBER.fullmatch(fields[3]):
            yield fields[0], fields[2], fields[3]


def _group(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) >= 4 and NUMBER.fullmatch(fields[2]):
            yield fields[0], fields[2], fields[3].split(",")


def read_accounts(mounts: Sequence[Mount]) -> Accounts:
    """Read the accounts of a snapshot, given its mounts. Blocks; needs root."""
    result: list[Accounts | BaseException] = []
    thread = threading.Thread(target=_read_in_thread, args=(mounts, result), name="windlass-accounts", daemon=True)
    thread.start()
    thread.join()
    found = result[0]
    if isinstance(found, BaseException):
        raise found
    return found


def _read_in_thread(mounts: Sequence[Mount], result: list[Accounts | BaseException]) -> None:
    from windlass_linux import mounting

    try:
        # Of this thread alone, unshare(2): the namespace and its mounts end with it.
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
        with mounting.mounted(mounting.read_only(mounts)) as root:
            result.append(read_files(root))
    except PermissionError as error:
        result.append(PermissionDenied(f"the image's users can only be looked up by root: {error.strerror}"))
    except (OSError, Error) as error:
        result.append(error if isinstance(error, Error) else NotFound(f"the image's users cannot be read: {error}"))


def read_files(root: str) -> Accounts:
    """Read the accounts below a directory; symbolic links in it lead nowhere else."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return Accounts(_read(directory, "etc/passwd"), _read(directory, "etc/group"))
    finally:
        os.close(directory)


def _read(directory: int, path: str) -> str:
    # O_PATH first: opening a FIFO or a device of the image would have effects (GHSA-jpcc-p29g-p8mq).
    try:
        file = linux.openat2(directory, path, os.O_PATH | os.O_CLOEXEC, resolve=linux.RESOLVE_IN_ROOT)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return ""
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgument(f"the image's /{path} is not a regular file")
        if status.st_size > FILE_LIMIT:
            raise OutOfRange(f"the image's /{path} has {status.st_size} bytes, the limit is {FILE_LIMIT}")
        readable = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(file)
    with os.fdopen(readable, "rb") as opened:
        return opened.read(FILE_LIMIT).decode(errors="replace")
