"""Named volumes on disk: a directory each, with a file that says since when it is there and what labels it has."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from windlass.errors import FailedPrecondition, InvalidArgument, NotFound
from windlass_client import datadir
from windlass_client.datadir import DataDirectory
from windlass_client.volumes.options import NAME

RECORD = "volume.json"
DATA = "_data"


@dataclass(frozen=True)
class Volume:
    """A volume."""

    name: str
    path: Path
    """The directory that containers see."""
    created: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False
    """Made for one container without a name."""

    def document(self) -> dict[str, object]:
        """Return the volume as docker's inspect prints it."""
        return {
            "CreatedAt": self.created,
            "Driver": "local",
            "Labels": dict(self.labels) or None,
            "Mountpoint": str(self.path),
            "Name": self.name,
            "Options": dict(self.options) or None,
            "Scope": "local",
        }


class Volumes:
    """The volumes of a namespace. A method that changes them is to be called under `locked`."""

    def __init__(self, data: DataDirectory) -> None:
        """Work in a namespace's data directory."""
        self._data = data
        self.directory = data.volumes
        self.locked = data.locked

    def get(self, name: str) -> Volume:
        """Return a volume. Raises NotFound."""
        if not NAME.fullmatch(name) or not (self.directory / name / DATA).is_dir():
            raise NotFound(f'volume "{name[:200]}" does not exist; `windlass volume ls` lists those that do')
        return self._read(name)

    def list(self) -> list[Volume]:
        """Return every volume, by name."""
        try:
            names = sorted(os.listdir(self.directory))  # noqa: PTH208 - names are all we need
        except FileNotFoundError:
            return []
        return [self._read(name) for name in names if NAME.fullmatch(name) and (self.directory / name / DATA).is_dir()]

    def create(
        self,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> tuple[Volume, bool]:
        """Return the volume of a name, and whether it is new; without a name a new one of 64 hex digits."""
        name = name or secrets.token_hex(32)
        if not NAME.fullmatch(name):
            raise InvalidArgument(
                f"volume name {name[:100]!r} has other characters than [a-zA-Z0-9_.-], or is too short or long"
            )
        try:
            return self.get(name), False
        except NotFound:
            pass
        record = {
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "labels": dict(labels or {}),
            "options": dict(options or {}),
            "anonymous": anonymous,
        }
        datadir.write(self.directory / name / RECORD, json.dumps(record))
        path = self.directory / name / DATA
        path.mkdir(mode=0o755, exist_ok=True)
        path.chmod(0o755)
        return self._read(name), True

    def remove(self, name: str) -> None:
        """Remove a volume with all that is in it. Raises NotFound."""
        self.get(name)
        place = self.directory / name
        # Out of sight at once, so that a removal that is cut off leaves no half of a volume under its name.
        trash = self.directory / f".{name}.{secrets.token_hex(4)}"
        place.rename(trash)
        try:
            shutil.rmtree(trash)
        except OSError as error:
            raise FailedPrecondition(f"volume {name} is only partly removed: {error}; remove {trash}") from None

    def sweep(self) -> None:
        """Remove what is left of volumes whose removal was cut off."""
        for trash in self.directory.glob(".*"):
            shutil.rmtree(trash, ignore_errors=True)

    def _read(self, name: str) -> Volume:
        path = self.directory / name / DATA
        try:
            record = json.loads((self.directory / name / RECORD).read_text())
            return Volume(name, path, record["created"], record["labels"], record["options"], bool(record["anonymous"]))
        except (OSError, ValueError, KeyError, TypeError):
            # Written by another hand, or lost: the data is what counts.
            return Volume(name, path)
