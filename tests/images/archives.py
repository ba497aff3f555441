"""What tests send archives through: readers, writers, and images for several platforms."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile

from client.conftest import KIND, ArchiveFiles, digest_of

from windlass.errors import Cancelled


class Sender:
    """A reader that brings bytes in small parts, and at the end hangs or breaks off if it is told so."""

    def __init__(self, data, part=32 << 10, end="well"):
        self.parts = [data[at : at + part] for at in range(0, len(data), part)]
        self.end = end
        self.waiting = asyncio.Event()

    async def read(self):
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

    def __init__(self):
        self.data = bytearray()
        self.largest = 0

    async def write(self, data):
        self.data += data
        self.largest = max(self.largest, len(data))

    def files(self):
        with tarfile.open(fileobj=io.BytesIO(self.data)) as tar:
            return {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isreg()}

    def document(self, name):
        return json.loads(self.files()[name])


def several(*architectures, name="example.org/x:1", missing=(), artifact=False, platform=None):
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


def saved(files, tmp_path):
    """Return the bytes of an archive."""
    path = tmp_path / "some.tar"
    files.save(path)
    return path.read_bytes()
