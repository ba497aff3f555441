"""CDI specs, from files to types: which devices of the Container Device Interface there are, and what each changes.

Source: the CDI specification, SPEC.md of cncf-tags/container-device-interface.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from windlass.records import dataclass

LIMIT = 16 << 20
VERSIONS = frozenset({"0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"})
KIND = re.compile(r"[A-Za-z]([\w.-]*[A-Za-z0-9])?/[A-Za-z]([\w.-]*[A-Za-z0-9])?", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9]([\w.:-]*[A-Za-z0-9])?", re.ASCII)
HOOKS = frozenset({"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"})
OTHERS_WRITE = stat.S_IWOTH


@dataclass(frozen=True)
class Fields:
    """An object of a document; a field of another type than asked for is a ValueError that names it."""

    values: Mapping[str, object]
    where: str

    @classmethod
    def of(cls, value: object, where: str, known: str) -> Fields:
        """Return an object that has no other fields than those of ``known``."""
        if not isinstance(value, dict):
            raise ValueError(f"{where} is not an object")
        if unknown := sorted(set(map(str, value)) - set(known.split())):
            raise ValueError(f"{where} has unknown fields: {', '.join(unknown)[:200]}")
        return cls(value, where)

    def text(self, name: str) -> str:
        """Return a text, empty without the field."""
        value = self.values.get(name) or ""
        if not isinstance(value, str) or "\0" in value:
            raise ValueError(f"{name} of {self.where} is not a text")
        return value

    def needed(self, name: str) -> str:
        """Return a text that has to be there."""
        if not (value := self.text(name)):
            raise ValueError(f"{self.where} has no {name}")
        return value

    def number(self, name: str) -> int | None:
        """Return a number, None without the field."""
        value = self.values.get(name)
        if value is not None and (type(value) is not int or not 0 <= value < 1 << 32):
            raise ValueError(f"{name} of {self.where} is not a number")
        return value if isinstance(value, int) else None

    def items(self, name: str) -> Sequence[object]:
        """Return a list, empty without the field."""
        value = self.values.get(name) or []
        if not isinstance(value, list):
            raise ValueError(f"{name} of {self.where} is not a list")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts."""
        found = [each for each in self.items(name) if isinstance(each, str) and "\0" not in each]
        if len(found) != len(self.items(name)):
            raise ValueError(f"{name} of {self.where} is not a list of texts")
        return found

    def objects(self, name: str, known: str) -> list[Fields]:
        """Return a list of objects."""
        return [Fields.of(each, f"{name} of {self.where}", known) for each in self.items(name)]


@dataclass(frozen=True)
class Edits:
    """What a device, or any device of its spec, changes in a container's spec."""

    env: list[str]
    nodes: list[Fields]
    interfaces: list[Fields]
    mounts: list[Fields]
    hooks: list[Fields]
    rdt: Fields | None
    groups: list[int]

    @classmethod
    def of(cls, value: object, where: str) -> Edits:
        """Check and return ``containerEdits``. Raises ValueError."""
        fields = Fields.of(
            value or {}, where, "env deviceNodes netDevices hooks mounts intelRdt additionalGids additionalGIDs"
        )
        found = cls(
            fields.texts("env"),
            fields.objects("deviceNodes", "path hostPath type major minor fileMode permissions uid gid"),
            fields.objects("netDevices", "hostInterfaceName name"),
            fields.objects("mounts", "hostPath containerPath options type"),
            fields.objects("hooks", "hookName path args env timeout"),
            _rdt(fields),
            [_group(each, where) for each in [*fields.items("additionalGids"), *fields.items("additionalGIDs")]],
        )
        found.check()
        return found

    def check(self) -> None:
        """Raise ValueError for what cannot be applied."""
        for env in [self.env, *(hook.texts("env") for hook in self.hooks)]:
            if bad := [each for each in env if each.find("=") <= 0]:
                raise ValueError(f'invalid environment variable "{bad[0][:100]}"')
        for node in self.nodes:
            _check_node(node)
        for mount in self.mounts:
            mount.needed("hostPath"), mount.needed("containerPath"), mount.texts("options"), mount.text("type")
        for hook in self.hooks:
            hook.texts("args"), hook.number("timeout")
            if hook.needed("hookName") not in HOOKS or not hook.needed("path").startswith("/"):
                raise ValueError(f"{hook.where}: unknown hookName, or a path that is not absolute")
        for each in self.interfaces:
            each.needed("hostInterfaceName"), each.needed("name")

    @property
    def empty(self) -> bool:
        """Whether nothing is changed."""
        return not (self.env or self.nodes or self.interfaces or self.mounts or self.hooks or self.rdt or self.groups)


@dataclass(frozen=True)
class Document:
    """One CDI spec."""

    path: Path
    edits: Edits
    """Of every container that gets any of its devices."""
    devices: Mapping[str, Edits]
    """By their qualified names."""


def read(path: Path) -> Document:
    """Read a spec. Raises OSError, and ValueError for what is not one, or could have been written by anybody."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a regular file")
        if found.st_mode & OTHERS_WRITE or found.st_uid not in (0, os.geteuid()):
            raise ValueError("other users can write to it; it has to belong to root")
        text = file.read(LIMIT + 1)
    if len(text) > LIMIT:
        raise ValueError(f"it is larger than {LIMIT >> 20} MiB")
    return document(path, parsed(text, yaml=path.suffix == ".yaml"))


def parsed(text: bytes, *, yaml: bool) -> object:
    """Parse JSON, or YAML with the package PyYAML. Raises ValueError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if not yaml:
            raise ValueError(f"it is not JSON: {error}") from None
    try:
        parser = importlib.import_module("yaml")
    except ImportError:
        raise ValueError("it is YAML, which needs the Python package PyYAML; install it, or write JSON") from None
    try:
        value: object = parser.safe_load(text)
    except (parser.YAMLError, RecursionError) as error:
        raise ValueError(f"it is not YAML: {error}") from None
    return value


def document(path: Path, value: object) -> Document:
    """Check and return a spec. Raises ValueError."""
    fields = Fields.of(value, "the spec", "cdiVersion kind annotations devices containerEdits")
    if fields.text("cdiVersion").removeprefix("v") not in VERSIONS:
        raise ValueError(f'invalid version "{fields.text("cdiVersion")[:50]}"')
    kind = fields.text("kind")
    if not KIND.fullmatch(kind):
        raise ValueError(f'"{kind[:100]}" is not a vendor and a class')
    devices: dict[str, Edits] = {}
    for each in fields.objects("devices", "name annotations containerEdits"):
        name = each.text("name")
        if not NAME.fullmatch(name) or f"{kind}={name}" in devices:
            raise ValueError(f'"{name[:100]}" is not the name of a device, or is there twice')
        devices[f"{kind}={name}"] = edits = Edits.of(each.values.get("containerEdits"), f"device {name}")
        if edits.empty:
            raise ValueError(f"device {name} changes nothing")
    if not devices:
        raise ValueError("it has no devices")
    return Document(path, Edits.of(fields.values.get("containerEdits"), "the spec's containerEdits"), devices)


def _check_node(node: Fields) -> None:
    node.needed("path"), node.text("hostPath")
    for name in ("major", "minor", "fileMode", "uid", "gid"):
        node.number(name)
    if node.text("type") not in ("", "b", "c", "u", "p"):
        raise ValueError(f"{node.where}: invalid type")
    permissions = node.text("permissions")
    if permissions != "none" and permissions.strip("rwm"):
        raise ValueError(f"{node.where}: invalid permissions")


def _rdt(fields: Fields) -> Fields | None:
    value = fields.values.get("intelRdt")
    if value is None:
        return None
    found = Fields.of(value, "intelRdt", "closID l3CacheSchema memBwSchema schemata enableMonitoring")
    found.text("l3CacheSchema"), found.text("memBwSchema"), found.texts("schemata")
    if not isinstance(found.values.get("enableMonitoring", False), bool):
        raise ValueError("enableMonitoring of intelRdt is not true or false")
    name = found.text("closID")
    if name != "/" and (name in (".", "..") or "/" in name or "\n" in name or len(name) >= 4096):
        raise ValueError("invalid closID")
    return found


def _group(value: object, where: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise ValueError(f"additionalGids of {where} has what is not a group")
    return value
