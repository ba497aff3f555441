"""What tests send archives through: readers, writers, and images for several platforms."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from client.conftest import KIND, ArchiveFiles, digest_of

from windlass.errors import Cancelled


def contents(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    """Return the bytes of a regular file of an archive."""
    file = tar.extractfile(entry)
    assert file is not None
    return file.read()


class Sender:
    """A reader that brings bytes in small parts, and at the end hangs or breaks off if it is told so."""

    def __init__(self, data: bytes, part: int = 32 << 10, end: str = "well") -> None:
        self.parts = [data[at : at + part] for at in range(0, len(data), part)]
        self.end = end
        self.waiting = asyncio.Event()

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        if self.parts:
            return self.parts.pop(0)
        self.waiting.set()
        if self.end == "hangs":
            await asyncio.Event().wait()
        if self.end == "breaks":
            raise Cancelled("the sender has gone")
        return b""


class Receiver:
    """A writer that keeps what it is sent."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.largest = 0

    async def write(self, data: bytes) -> None:
        self.data += data
        self.largest = max(self.largest, len(data))

    def files(self) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(self.data)) as tar:
            return {entry.name: contents(tar, entry) for entry in tar if entry.isreg()}

    # Any: a document is an object or a list.
    def document(self, name: str) -> Any:
        return json.loads(self.files()[name])


def several(
    *architectures: str,
    name: str = "example.org/x:1",
    missing: Collection[str] = (),
    artifact: bool = False,
    platform: Mapping[str, object] | None = None,
) -> ArchiveFiles:
    """Return the files of an archive whose image is an index over some architectures; of some all but the manifest
    is missing."""  # fmt: skip
    whole = ArchiveFiles(b"unused", name=name)
    whole.files = {key: whole.files[key] for key in ("oci-layout", "index.json")}
    manifests = []
    for architecture in architectures:
        one = ArchiveFiles(
            f"layer of {architecture}".encode(),
            platform={"os": "linux", "architecture": architecture, **(platform or {})},
        )
        for key, data in one.files.items():
            if key.startswith("blobs/") and (architecture not in missing or digest_of(data) == one.target["digest"]):
                whole.files[key] = data
        manifests.append({key: one.target[key] for key in ("mediaType", "digest", "size", "platform")})
    if artifact:
        statement = whole.blob(b"statement", "application/vnd.in-toto+json")
        document = {
            "schemaVersion": 2,
            "config": whole.blob(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [statement],
        }
        manifest = whole.blob(json.dumps(document).encode(), f"{KIND}.manifest.v1+json")
        manifests.append({**manifest, "platform": {"os": "unknown", "architecture": "unknown"}})
    whole.target.pop("platform")
    index = {"schemaVersion": 2, "mediaType": f"{KIND}.index.v1+json", "manifests": manifests}
    whole.point_to(index, f"{KIND}.index.v1+json")
    return whole


def saved(files: ArchiveFiles, tmp_path: Path) -> bytes:
    """Return the bytes of an archive."""
    path = tmp_path / "some.tar"
    files.save(path)
    return path.read_bytes()
