"""Who a process runs as: names are looked up in the accounts of an image, which a stranger wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator

from windlass.errors import InvalidArgument, NotFound, OutOfRange
from windlass.records import dataclass

MAX_ID = (1 << 31) - 1
"""Larger ones wrapped around to root: CVE-2024-40635."""
NUMBER = re.compile(r"[+-]?[0-9]+")
"""What containerd takes for a number (strconv.Atoi), of any length: a number that is too long is not a name."""
MISTAKABLE = re.compile(r"[+-]?(0[xX][0-9a-fA-F]*|0[oO][0-7]*|0[bB][01]*|[0-9][0-9_]*)")
"""What some programs read as a number and others as a name; such a user is refused."""


@dataclass(frozen=True)
class User:
    """A user of a container, its primary group, and the groups that the image's accounts add.

    CRI's policy Merge adds further groups to ``additional``, its policy Strict replaces it.
    """

    uid: int
    gid: int
    additional: tuple[int, ...] = ()


@dataclass(frozen=True)
class Accounts:
    """The text of /etc/passwd and /etc/group, empty where the image has none."""

    passwd: str = ""
    group: str = ""


def is_numeric(text: str) -> bool:
    """Return whether a user needs no look-up in the image's accounts: ``uid:gid``."""
    user, colon, group = text.partition(":")
    return bool(colon and NUMBER.fullmatch(user) and NUMBER.fullmatch(group))


def find_user(text: str, accounts: Accounts) -> User:
    """Return who ``user``, ``uid``, ``user:group`` or a mixture of them is; an empty text is root.

    Raises InvalidArgument, NotFound for an unknown name, OutOfRange for a number above `MAX_ID`.
    """
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
