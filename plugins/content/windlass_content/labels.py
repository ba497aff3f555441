"""Labels of blobs, one JSON file each, for a store that is used without a metadata store."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from windlass.errors import DataLoss
from windlass.records import dataclass
from windlass_content.disk import replace_file


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """Files in a directory next to the blobs', at which containerd does not look; a blob without labels has none."""

    root: Path

    def read(self, digest: str) -> tuple[dict[str, str], int]:
        """Return the labels of a blob, and when they were last changed (0: never)."""
        path = self._path(digest)
        try:
            text = path.read_text()
            changed = path.stat().st_mtime_ns
        except FileNotFoundError:
            return {}, 0
        try:
            labels: dict[str, str] = json.loads(text)
        except ValueError as error:
            raise DataLoss(f"labels of {digest} cannot be read; remove {path} to forget them") from error
        return labels, changed

    def write(self, digest: str, labels: Mapping[str, str]) -> None:
        """Replace the labels of a blob, durably."""
        path = self._path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(dict(labels), sort_keys=True).encode(), durable=True)

    def forget(self, digest: str) -> None:
        """Remove the labels of a blob."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.root}/{digest.replace(':', '/')}")  # noqa: PTH108 - faster

    def known(self, algorithm: str) -> set[str]:
        """Return the hexadecimal halves of the digests that have labels."""
        directory = self.root / algorithm
        return {path.name for path in directory.iterdir()} if directory.is_dir() else set()

    def _path(self, digest: str) -> Path:
        return self.root.joinpath(*digest.split(":"))
