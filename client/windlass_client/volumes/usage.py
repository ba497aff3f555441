"""Which container has which mounts, by its spec, and which volumes are in use."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument
from windlass_client.volumes.options import Kind
from windlass_client.volumes.volume import DATA, Volumes
from windlass_oci.payloads import read_spec

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_oci.runtime_spec import Spec

PLACES = "io.windlass.mounts"
"""Annotation of a spec: the destinations of the mounts that its user or its image asked for, as a JSON list."""
USERS = "users"
RESERVED = 120.0
"""Seconds for which a container that is being created keeps its volumes, should its client die meanwhile."""


@dataclass(frozen=True)
class Attached:
    """A mount of a container."""

    kind: Kind
    name: str
    """A volume's name, otherwise empty."""
    source: str
    destination: str
    read_only: bool
    options: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """Return the mount as docker's inspect prints it."""
        propagation = next((word for word in self.options if word.lstrip("r") in ("private", "shared", "slave")), "")
        named = {"Name": self.name, "Driver": "local"} if self.kind == "volume" else {}
        return {
            "Type": self.kind,
            **named,
            "Source": "" if self.kind == "tmpfs" else self.source,
            "Destination": self.destination,
            "Mode": "ro" if self.read_only else "",
            "RW": not self.read_only,
            "Propagation": "" if self.kind != "bind" else propagation,
        }


def places(spec: Spec) -> set[str]:
    """Return the destinations of the mounts that a container's user or image asked for."""
    try:
        return set(json.loads((spec.get("annotations") or {}).get(PLACES) or "[]"))
    except (ValueError, TypeError):
        return set()  # another client's


def mounts_of(spec: Spec, volumes: Path) -> list[Attached]:
    """Return the mounts that a container's user or image asked for; ``volumes`` is the directory of all volumes."""
    asked, found = places(spec), []
    for each in spec.get("mounts") or []:
        if each["destination"] in asked:
            source, options = each.get("source", ""), tuple(each.get("options") or ())
            name = _volume_of(source, volumes)
            kind: Kind = "volume" if name else "tmpfs" if each.get("type") == "tmpfs" else "bind"
            found.append(Attached(kind, name, source, each["destination"], "ro" in options, options))
    return found


def _volume_of(source: str, volumes: Path) -> str:
    path = Path(source)
    return path.parent.name if path.name == DATA and path.parent.parent == volumes else ""


def users(containers: Iterable[Container], volumes: Path) -> dict[str, list[str]]:
    """Return the IDs of the containers that use a volume, by its name; stopped containers count."""
    found: dict[str, list[str]] = {}
    for container in containers:
        try:
            spec = read_spec(container.id, container.spec.value)
        except InvalidArgument:
            continue  # another client's, of another kind
        for name in {_volume_of(each.get("source", ""), volumes) for each in spec.get("mounts") or []} - {""}:
            found.setdefault(name, []).append(container.id)
    return found


def reserve(volumes: Volumes, name: str, id: str) -> None:
    """Keep a volume for a container whose record is not there yet."""
    place = volumes.directory / name / USERS
    place.mkdir(mode=0o700, exist_ok=True)
    (place / id).touch()


def release(volumes: Volumes, name: str, id: str) -> None:
    """End a reservation: the record is there, or will not be."""
    (volumes.directory / name / USERS / id).unlink(missing_ok=True)


def reserved(volumes: Volumes, name: str) -> list[str]:
    """Return the IDs of containers that are being created and have a volume reserved."""
    now = time.time()
    try:
        return [each.name for each in (volumes.directory / name / USERS).iterdir() if _is_young(each, now)]
    except FileNotFoundError:
        return []


def _is_young(path: Path, now: float) -> bool:
    try:
        return now - path.stat().st_mtime < RESERVED
    except FileNotFoundError:
        return False


def holders(volumes: Volumes, name: str, used: Mapping[str, list[str]]) -> list[str]:
    """Return the containers for whose sake a volume may not be removed."""
    return [*used.get(name, []), *reserved(volumes, name)]
