"""What `-v`, `--mount` and `--tmpfs` say, as docker reads them."""

from __future__ import annotations

import csv
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from windlass.errors import InvalidArgument
from windlass_client.arguments import parse_size

Kind = Literal["bind", "volume", "tmpfs"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,127}")
PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
IGNORED = frozenset({"", "rw", "z", "Z", "cached", "delegated", "consistent"})
"""Words that change nothing: what holds anyway, what only macOS needs, and SELinux's labels where it is off."""
SELINUX = "/sys/fs/selinux/enforce"
ALIASES = {"src": "source", "dst": "destination", "target": "destination", "readonly": "ro"}
MODE = re.compile(r"[0-7]{3,4}")


@dataclass(frozen=True)
class Wanted:
    """A mount that a container is to have."""

    kind: Kind
    source: str
    """A path of the host, a volume's name, or empty for a new volume and for tmpfs."""
    destination: str
    read_only: bool = False
    options: tuple[str, ...] = ()
    """What mount(2) gets besides."""
    copy: bool = True
    """Whether an empty volume gets what the image has at the destination."""
    create: bool = False
    """Whether a directory of the host that is missing is made."""
    labels: dict[str, str] = field(default_factory=dict)
    """Of a new volume."""


def parse_volume(text: str) -> Wanted:
    """Read ``NAME|PATH:DST[:OPTIONS]``, or ``DST`` alone for a new volume. Raises InvalidArgument."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(parts[:2]):
        raise InvalidArgument(f"volume {text[:200]!r} is not of the form NAME|PATH:DESTINATION[:OPTIONS]")
    source, destination = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    words = parts[2].split(",") if len(parts) > 2 else []
    wanted = _from_words(text, words)
    kind, source = _source(text, source)
    if kind == "bind" and not wanted.copy:
        raise InvalidArgument(f"volume {text[:200]!r}: nocopy is for volumes, not for directories of the host")
    return Wanted(
        kind,
        source,
        _destination(text, destination),
        wanted.read_only,
        wanted.options,
        wanted.copy,
        create=kind == "bind",
    )


def _from_words(text: str, words: Iterable[str]) -> Wanted:
    read_only, copy, options = False, True, []
    for word in words:
        if word in ("z", "Z"):
            _refuse_selinux(text)
        if word == "ro":
            read_only = True
        elif word == "nocopy":
            copy = False
        elif word in PROPAGATIONS:
            options.append(word)
        elif word not in IGNORED:
            raise InvalidArgument(
                f"volume {text[:200]!r} has unknown option {word[:40]!r}; known are ro, rw, nocopy, z, Z and "
                f"{', '.join(sorted(PROPAGATIONS))}"
            )
    return Wanted("bind", "", "", read_only, tuple(options), copy)


def _refuse_selinux(text: str) -> None:
    if os.path.exists(SELINUX):  # noqa: PTH110 - before pathlib is needed
        raise InvalidArgument(f"volume {text[:200]!r}: SELinux labels are not built; label the files with chcon")


def _source(text: str, source: str) -> tuple[Kind, str]:
    if source.startswith(("/", "./", "../")) or source in (".", ".."):
        return "bind", os.path.abspath(source)  # noqa: PTH100 - as typed, without following links
    if source and not NAME.fullmatch(source):
        raise InvalidArgument(
            f"volume name {source[:100]!r} in {text[:200]!r} has other characters than [a-zA-Z0-9_.-], or is too "
            "short; a directory of the host begins with / or ./"
        )
    return "volume", source


def _destination(text: str, destination: str) -> str:
    if not destination.startswith("/"):
        raise InvalidArgument(f"mount {text[:200]!r} has no absolute destination")
    clean = posixpath.normpath("/" + destination.lstrip("/"))
    if clean == "/":
        raise InvalidArgument(f"mount {text[:200]!r}: the destination cannot be /")
    return clean


def parse_mount(text: str) -> Wanted:
    """Read ``type=volume|bind|tmpfs,src=…,dst=…,…``; without a type an absolute src is a bind, else a volume."""
    fields = _fields(text)
    kind = fields.pop("type", "") or ("bind" if fields.get("source", "").startswith("/") else "volume")
    source, destination = fields.pop("source", ""), _destination(text, fields.pop("destination", ""))
    read_only = _flag(text, fields, "ro")
    words = [word for word in fields.pop("options", "").split(":") if word]
    if kind == "bind":
        return Wanted("bind", _host_path(text, source), destination, read_only, _bind_options(fields, words, text))
    if kind == "volume":
        return _volume(text, fields, source, destination, read_only, words)
    if kind == "tmpfs":
        return _tmpfs(text, fields, source, destination, read_only, words)
    raise InvalidArgument(f"mount {text[:200]!r} has type {kind[:40]!r}; known are bind, volume and tmpfs")


def _fields(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    labels = []
    for word in next(csv.reader([text]), []):
        key, _, value = word.partition("=")
        if key == "volume-label":
            labels.append(value)
        else:
            found[ALIASES.get(key, key)] = value
    if labels:
        found["volume-label"] = "\0".join(labels)
    return found


def _flag(text: str, fields: dict[str, str], key: str) -> bool:
    value = fields.pop(key, "false")
    if value not in ("", "true", "1", "false", "0"):
        raise InvalidArgument(f"mount {text[:200]!r}: {key}={value[:40]} is neither true nor false")
    return value in ("", "true", "1")


def _host_path(text: str, source: str) -> str:
    if not source.startswith(("/", "./", "../")) and source not in (".", ".."):
        raise InvalidArgument(f"mount {text[:200]!r} has no absolute src")
    return os.path.abspath(source)  # noqa: PTH100 - as typed, without following links


def _done(text: str, fields: dict[str, str], known: str) -> None:
    if fields:
        raise InvalidArgument(f"mount {text[:200]!r} has unknown fields {', '.join(fields)}; known are {known}")


def _bind_options(fields: dict[str, str], words: list[str], text: str) -> tuple[str, ...]:
    propagation = fields.pop("bind-propagation", "")
    if propagation and propagation not in PROPAGATIONS:
        raise InvalidArgument(f"mount {text[:200]!r}: bind-propagation={propagation[:40]} is not a propagation")
    if _flag(text, fields, "bind-nonrecursive"):
        words = ["bind", *words]
    _done(text, fields, "type, src, dst, ro, bind-propagation, bind-nonrecursive, options")
    return (*words, *([propagation] if propagation else []))


def _volume(
    text: str, fields: dict[str, str], source: str, destination: str, read_only: bool, words: list[str]
) -> Wanted:
    if source and not NAME.fullmatch(source):
        raise InvalidArgument(f"mount {text[:200]!r}: {source[:100]!r} cannot be the name of a volume")
    copy = not _flag(text, fields, "volume-nocopy")
    if (driver := fields.pop("volume-driver", "local")) != "local":
        raise InvalidArgument(f"mount {text[:200]!r}: volume driver {driver[:40]!r} is not known; there is only local")
    labels = dict(each.partition("=")[::2] for each in fields.pop("volume-label", "").split("\0") if each)
    _done(text, fields, "type, src, dst, ro, volume-nocopy, volume-label, volume-driver, options")
    return Wanted("volume", source, destination, read_only, tuple(words), copy, labels=labels)


def _tmpfs(
    text: str, fields: dict[str, str], source: str, destination: str, read_only: bool, words: list[str]
) -> Wanted:
    if source and source != "tmpfs":
        raise InvalidArgument(f"mount {text[:200]!r}: tmpfs has no src")
    options = list(words)
    if size := fields.pop("tmpfs-size", ""):
        options.append(f"size={parse_size(size)}")
    if mode := fields.pop("tmpfs-mode", ""):
        if not MODE.fullmatch(mode):
            raise InvalidArgument(f"mount {text[:200]!r}: tmpfs-mode={mode[:40]} is not an octal mode")
        options.append(f"mode={mode}")
    _done(text, fields, "type, dst, ro, tmpfs-size, tmpfs-mode, options")
    return Wanted("tmpfs", "", destination, read_only, tuple(options))


def parse_tmpfs(text: str) -> Wanted:
    """Read ``DST[:OPTIONS]``, options as mount(8) has them."""
    destination, _, words = text.partition(":")
    options = [word for word in words.split(",") if word]
    read_only = "ro" in options
    return Wanted(
        "tmpfs",
        "",
        _destination(text, destination),
        read_only,
        tuple(word for word in options if word not in ("ro", "rw")),
    )


def parse_all(volumes: Sequence[str], mounts: Sequence[str], tmpfs: Sequence[str]) -> list[Wanted]:
    """Read all three options. Raises InvalidArgument, also for two mounts at one place."""
    found = [*map(parse_volume, volumes), *map(parse_mount, mounts), *map(parse_tmpfs, tmpfs)]
    seen: set[str] = set()
    for each in found:
        if each.destination in seen:
            raise InvalidArgument(f"two mounts have destination {each.destination[:200]!r}; leave one out")
        seen.add(each.destination)
    return found
