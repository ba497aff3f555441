"""Network configurations: files of a directory, read and checked (CNI specification, section 1).

A ``.conflist`` names a list of plugins, a ``.conf`` or ``.json`` one plugin, which is a list of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import InvalidArgument

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
Object = Mapping[str, Json]

SUFFIXES = (".conf", ".conflist", ".json")
LIMIT = 1 << 20
"""Bytes of one file."""
SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LEGACY = "0.1.0"
"""The version of a configuration that names none."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}(\.\d{1,9})?")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin of a network: the program's name, what it is capable of, and its configuration as it was read."""

    type: str
    capabilities: frozenset[str]
    conf: Object


@dataclass(frozen=True, slots=True)
class Network:
    """A network: its plugins are executed in this order, and in reverse to detach."""

    name: str
    version: str
    plugins: tuple[Plugin, ...]
    source: str
    """The text that it was read from, which the cache keeps for a DEL after the file has changed."""
    disable_check: bool = False
    disable_gc: bool = False

    def at_least(self, version: str) -> bool:
        """Return whether the network's version of CNI has what came with ``version``."""
        return version_key(self.version) >= version_key(version)


def version_key(version: str) -> tuple[int, ...]:
    """Return what orders versions."""
    return tuple(int(part) for part in version.split("."))


def load_directory(directory: Path, most: int = 0) -> list[Network]:
    """Return the networks of a directory's files by name, the first ``most`` of them, 0 is all.

    Raises InvalidArgument naming the file that is not a configuration, and OSError.
    """
    files = sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES and path.is_file())
    return [load(path) for path in files[: most or None]]


def load(path: Path) -> Network:
    """Read one file. Raises InvalidArgument and OSError."""
    with path.open("rb") as file:
        data = file.read(LIMIT + 1)
    try:
        if len(data) > LIMIT:
            raise InvalidArgument(f"it is larger than {LIMIT} bytes")
        return parse(data.decode(), path)
    except UnicodeDecodeError:
        raise InvalidArgument(f"network configuration {path} is not UTF-8") from None
    except InvalidArgument as error:
        raise InvalidArgument(f"network configuration {path}: {error}") from None


def parse(text: str, path: Path | None = None) -> Network:
    """Parse a configuration; plugins next to the file (``NAME/*.conf``, CNI 1.1) are read if it says so.

    Raises InvalidArgument with what is wrong.
    """
    try:
        document: Json = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"it is not JSON: {error}") from None
    if not isinstance(document, Mapping):
        raise InvalidArgument("it is not a JSON object")
    name = _text(document, "name")
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f'"name" is {name[:100]!r}; it needs letters, digits, "_", "." and "-"')
    if "plugins" not in document:
        plugins = [_plugin(document)]
    else:
        plugins = [_plugin(each) for each in _list(document, "plugins")]
        if path is not None and document.get("loadOnlyInlinedPlugins") is False:
            plugins += _beside(path.parent / name)
    if not plugins:
        raise InvalidArgument('"plugins" is empty')
    return Network(
        name=name,
        version=_version(document),
        plugins=tuple(plugins),
        source=text,
        disable_check=_flag(document, "disableCheck"),
        disable_gc=_flag(document, "disableGC"),
    )


def _beside(folder: Path) -> list[Plugin]:
    plugins = []
    for path in sorted(folder.glob("*.conf")) if folder.is_dir() else ():
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
        try:
            plugins.append(_plugin(json.loads(data[:LIMIT])))
        except ValueError as error:
            raise InvalidArgument(f"{path} is not JSON: {error}") from None
    return plugins


def _plugin(document: Json) -> Plugin:
    if not isinstance(document, Mapping):
        raise InvalidArgument('an entry of "plugins" is not an object')
    kind = _text(document, "type")
    if "/" in kind or kind in (".", ".."):
        raise InvalidArgument(f'"type" is {kind[:100]!r}; it is the name of a program, without a path')
    capabilities = document.get("capabilities") or {}
    if not isinstance(capabilities, Mapping):
        raise InvalidArgument(f'"capabilities" of {kind} is not an object')
    return Plugin(kind, frozenset(name for name, on in capabilities.items() if on is True), document)


def _version(document: Object) -> str:
    """Return the highest version that the file and we know (section "cniVersions")."""
    offered = [str(each) for each in _list(document, "cniVersions")] if "cniVersions" in document else []
    version = document.get("cniVersion") or LEGACY
    if not isinstance(version, str) or not all(_VERSION.fullmatch(each) for each in (version, *offered)):
        raise InvalidArgument(f'"cniVersion" is not a version: {version!r}')
    known = [each for each in (version, *offered) if each in SUPPORTED]
    if not known:
        raise InvalidArgument(f"CNI version {version} is not supported; there are {', '.join(SUPPORTED)}")
    return max(known, key=version_key)


def _text(document: Object, key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f'"{key}" is missing' if value is None else f'"{key}" is not a text')
    return value


def _list(document: Object, key: str) -> Sequence[Json]:
    value = document[key]
    if not isinstance(value, list):
        raise InvalidArgument(f'"{key}" is not a list')
    return value


def _flag(document: Object, key: str) -> bool:
    """Return a flag; libcni takes the texts "true" and "false" as well."""
    return document.get(key) in (True, "true")
