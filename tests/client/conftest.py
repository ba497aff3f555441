"""A small daemon in memory, and archives to feed to it."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty

from windlass.contracts.rpc import Call, serve
from windlass.errors import AlreadyExists, FailedPrecondition, NotFound
from windlass_api.containerd.services.containers.v1 import containers_pb2 as containers
from windlass_api.containerd.services.content.v1 import content_pb2 as content
from windlass_api.containerd.services.diff.v1 import diff_pb2 as diff
from windlass_api.containerd.services.images.v1 import images_pb2 as images
from windlass_api.containerd.services.introspection.v1 import introspection_pb2 as introspection
from windlass_api.containerd.services.leases.v1 import leases_pb2 as leases
from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2 as namespaces
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2 as snapshots
from windlass_api.containerd.services.tasks.v1 import tasks_pb2 as tasks
from windlass_api.containerd.services.version.v1 import version_pb2 as version
from windlass_api.containerd.v1.types import task_pb2 as task
from windlass_client.client import Client
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.server import Server

KIND = "application/vnd.oci.image"

Json = dict[str, Any]
"""A document as it is parsed."""


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class FakeDaemon:
    """Everything that a daemon keeps, in dictionaries; garbage goes when a lease is deleted with ``sync``."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.leased: dict[str, set[str]] = {}
        self.ingests: set[str] = set()
        self.images: dict[str, images.Image] = {}
        self.snapshots: dict[str, snapshots.Info] = {}
        self.plugins: list[introspection.Plugin] = []
        self.containers: list[containers.Container] = []
        self.namespaces: set[str] = set()
        self.disk = 1 << 40
        self.slow = 0.0
        self.changes: asyncio.Task[None] | None = None

    def services(self) -> list[tuple[Any, object]]:
        return [
            (content.DESCRIPTOR.services_by_name["Content"], _Content(self)),
            (images.DESCRIPTOR.services_by_name["Images"], _Images(self)),
            (leases.DESCRIPTOR.services_by_name["Leases"], _Leases(self)),
            (snapshots.DESCRIPTOR.services_by_name["Snapshots"], _Snapshots(self)),
            (containers.DESCRIPTOR.services_by_name["Containers"], _Containers(self)),
            (tasks.DESCRIPTOR.services_by_name["Tasks"], _Tasks(self)),
            (diff.DESCRIPTOR.services_by_name["Diff"], _Diff(self)),
            (namespaces.DESCRIPTOR.services_by_name["Namespaces"], _Namespaces(self)),
            (introspection.DESCRIPTOR.services_by_name["Introspection"], _Introspection(self)),
            (version.DESCRIPTOR.services_by_name["Version"], _Version(self)),
        ]


class _Part:
    def __init__(self, daemon: FakeDaemon) -> None:
        self.daemon = daemon


class _Version(_Part):
    async def version(self, request: Empty, call: Call) -> version.VersionResponse:
        return version.VersionResponse(version="1.2.3", revision="fake")


class _Introspection(_Part):
    async def plugins(self, request: introspection.PluginsRequest, call: Call) -> introspection.PluginsResponse:
        return introspection.PluginsResponse(plugins=self.daemon.plugins)

    async def server(self, request: Empty, call: Call) -> introspection.ServerResponse:
        return introspection.ServerResponse(uuid="u-u-i-d", pid=1)


class _Namespaces(_Part):
    async def get(self, request: namespaces.GetNamespaceRequest, call: Call) -> namespaces.GetNamespaceResponse:
        return namespaces.GetNamespaceResponse(namespace=namespaces.Namespace(name=request.name))


class _Content(_Part):
    async def info(self, request: content.InfoRequest, call: Call) -> content.InfoResponse:
        if request.digest not in self.daemon.blobs:
            raise NotFound(f"blob {request.digest} does not exist")
        size = len(self.daemon.blobs[request.digest])
        labels = self.daemon.labels.get(request.digest)
        return content.InfoResponse(info=content.Info(digest=request.digest, size=size, labels=labels))

    async def update(self, request: content.UpdateRequest, call: Call) -> content.UpdateResponse:
        self.daemon.labels.setdefault(request.info.digest, {}).update(request.info.labels)
        return content.UpdateResponse(info=request.info)

    async def read(self, request: content.ReadContentRequest, call: Call) -> AsyncIterator[content.ReadContentResponse]:
        if request.digest not in self.daemon.blobs:
            raise NotFound(f"blob {request.digest} does not exist")
        data = self.daemon.blobs[request.digest][: request.size or None]
        for start in range(0, len(data), 1 << 20):
            yield content.ReadContentResponse(data=data[start : start + (1 << 20)])

    async def abort(self, request: content.AbortRequest, call: Call) -> Empty:
        if request.ref not in self.daemon.ingests:
            raise NotFound(f"ingest {request.ref} does not exist")
        self.daemon.ingests.discard(request.ref)
        return Empty()

    async def write(self, requests: Any, call: Call) -> AsyncIterator[content.WriteContentResponse]:
        data = b""
        async for request in requests:
            if request.expected in self.daemon.blobs:
                raise AlreadyExists(f"blob {request.expected} exists")
            self.daemon.ingests.add(request.ref)
            data += request.data
            self.daemon.disk -= len(request.data)
            if self.daemon.disk < 0:
                raise FailedPrecondition("disk is full")
            if request.action == content.COMMIT:
                if request.expected and digest_of(data) != request.expected:
                    raise FailedPrecondition(f"unexpected commit digest {digest_of(data)}")
                if request.total != len(data):
                    raise FailedPrecondition(f"unexpected commit size {len(data)}")
                self.daemon.ingests.discard(request.ref)
                self.daemon.blobs[digest_of(data)] = data
                self.daemon.labels.setdefault(digest_of(data), {}).update(request.labels)
                self.daemon.leased[call.lease].add(digest_of(data))
            yield content.WriteContentResponse(action=request.action, offset=len(data), digest=digest_of(data))


class _Images(_Part):
    async def create(self, request: images.CreateImageRequest, call: Call) -> images.CreateImageResponse:
        if request.image.name in self.daemon.images:
            raise AlreadyExists(f"image {request.image.name} exists")
        self.daemon.images[request.image.name] = request.image
        return images.CreateImageResponse(image=request.image)

    async def update(self, request: images.UpdateImageRequest, call: Call) -> images.UpdateImageResponse:
        self.daemon.images[request.image.name] = request.image
        return images.UpdateImageResponse(image=request.image)

    async def list(self, request: images.ListImagesRequest, call: Call) -> images.ListImagesResponse:
        self.daemon.namespaces.add(call.namespace)
        found = self.daemon.images.values()
        wanted = set(request.filters)
        return images.ListImagesResponse(
            images=[
                each
                for each in found
                if not wanted or wanted & {f"name=={each.name}", f"target.digest=={each.target.digest}"}
            ]
        )

    async def get(self, request: images.GetImageRequest, call: Call) -> images.GetImageResponse:
        if request.name not in self.daemon.images:
            raise NotFound(f"image {request.name} does not exist")
        return images.GetImageResponse(image=self.daemon.images[request.name])

    async def delete(self, request: images.DeleteImageRequest, call: Call) -> Empty:
        if self.daemon.images.pop(request.name, None) is None:
            raise NotFound(f"image {request.name} does not exist")
        return Empty()


class _Leases(_Part):
    async def create(self, request: leases.CreateRequest, call: Call) -> leases.CreateResponse:
        self.daemon.leased[request.id] = set()
        return leases.CreateResponse(lease=leases.Lease(id=request.id))

    async def add_resource(self, request: leases.AddResourceRequest, call: Call) -> Empty:
        if self.daemon.changes:
            await asyncio.shield(self.daemon.changes)
        return Empty()

    async def delete(self, request: leases.DeleteRequest, call: Call) -> Empty:
        for digest in self.daemon.leased.pop(request.id) if request.sync else ():
            del self.daemon.blobs[digest]
        self.daemon.leased.pop(request.id, None)
        return Empty()


class _Snapshots(_Part):
    async def stat(self, request: snapshots.StatSnapshotRequest, call: Call) -> snapshots.StatSnapshotResponse:
        if request.key not in self.daemon.snapshots:
            raise NotFound(f"snapshot {request.key} does not exist")
        return snapshots.StatSnapshotResponse(info=self.daemon.snapshots[request.key])

    async def prepare(self, request: snapshots.PrepareSnapshotRequest, call: Call) -> snapshots.PrepareSnapshotResponse:
        if request.key in self.daemon.snapshots:
            raise AlreadyExists(f"snapshot {request.key} already exists")
        self.daemon.snapshots[request.key] = snapshots.Info(
            kind=snapshots.COMMITTED, name=request.key, parent=request.parent
        )
        return snapshots.PrepareSnapshotResponse()

    async def commit(self, request: snapshots.CommitSnapshotRequest, call: Call) -> Empty:
        info = self.daemon.snapshots.pop(request.key)
        self.daemon.snapshots[request.name] = snapshots.Info(
            kind=snapshots.COMMITTED, name=request.name, parent=info.parent
        )
        return Empty()

    async def usage(self, request: snapshots.UsageRequest, call: Call) -> snapshots.UsageResponse:
        if request.key not in self.daemon.snapshots:
            raise NotFound(f"snapshot {request.key} does not exist")
        return snapshots.UsageResponse(size=1000, inodes=1)

    async def remove(self, request: snapshots.RemoveSnapshotRequest, call: Call) -> Empty:
        del self.daemon.snapshots[request.key]
        return Empty()


class _Containers(_Part):
    """As on a slow disk a record is there later than ``slow`` seconds say; other changes wait for it."""

    async def create(
        self, request: containers.CreateContainerRequest, call: Call
    ) -> containers.CreateContainerResponse:
        self.daemon.changes = asyncio.create_task(self._record(request.container))
        await asyncio.shield(self.daemon.changes)
        return containers.CreateContainerResponse(container=request.container)

    async def _record(self, container: containers.Container) -> None:
        await asyncio.sleep(self.daemon.slow)
        self.daemon.containers.append(container)

    async def get(self, request: containers.GetContainerRequest, call: Call) -> containers.GetContainerResponse:
        for each in self.daemon.containers:
            if each.id == request.id:
                return containers.GetContainerResponse(container=each)
        raise NotFound(f"container {request.id} does not exist")

    async def delete(self, request: containers.DeleteContainerRequest, call: Call) -> Empty:
        self.daemon.containers = [each for each in self.daemon.containers if each.id != request.id]
        return Empty()

    async def list(self, request: containers.ListContainersRequest, call: Call) -> containers.ListContainersResponse:
        return containers.ListContainersResponse(containers=self.daemon.containers)


class _Tasks(_Part):
    async def list(self, request: tasks.ListTasksRequest, call: Call) -> tasks.ListTasksResponse:
        running = [task.Process(id=each.id, pid=1, status=task.RUNNING) for each in self.daemon.containers]
        return tasks.ListTasksResponse(tasks=running)


class _Diff(_Part):
    async def apply(self, request: diff.ApplyRequest, call: Call) -> diff.ApplyResponse:
        data = self.daemon.blobs[request.diff.digest]
        plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        applied = type(request.diff)(media_type="plain", digest=digest_of(plain), size=len(plain))
        return diff.ApplyResponse(applied=applied)


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
async def address(daemon: FakeDaemon, tmp_path: Path) -> AsyncIterator[str]:
    server = Server(Limits(16 << 20, 16 << 20))
    for descriptor, service in daemon.services():
        serve(server, descriptor, service)
    path = tmp_path / "d.sock"
    listener = await asyncio.get_running_loop().create_unix_server(server.connection, str(path))
    yield str(path)
    listener.close()
    await server.stop(0)


@pytest.fixture
async def client(address: str) -> AsyncIterator[Client]:
    async with Client(address, "tests", timeout=5) as client:
        yield client


class ArchiveFiles:
    """The files of an OCI layout with one image of one or more layers; change what a test is about, then `save`."""

    def __init__(
        self, *layers: bytes, name: str = "example.org/x:1", platform: Mapping[str, object] | None = None
    ) -> None:
        self.platform: Json = dict(platform or {"os": "linux", "architecture": "amd64"})
        self.files: dict[str, bytes] = {}
        self.layers = layers or (b"layer one",)
        config = {
            **self.platform,
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in self.layers]},
        }
        self.manifest: Json = {
            "schemaVersion": 2,
            "mediaType": f"{KIND}.manifest.v1+json",
            "config": self.blob(json.dumps(config).encode(), f"{KIND}.config.v1+json"),
            "layers": [self.blob(gzip.compress(layer, mtime=0), f"{KIND}.layer.v1.tar+gzip") for layer in self.layers],
        }
        self.target = self.blob(json.dumps(self.manifest).encode(), f"{KIND}.manifest.v1+json")
        self.target["annotations"] = {"io.containerd.image.name": name}
        self.target["platform"] = self.platform
        self.index: Json = {"schemaVersion": 2, "manifests": [self.target]}
        self.files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
        self.files["index.json"] = b""

    def blob(self, data: bytes, media_type: str) -> Json:
        self.files["blobs/" + digest_of(data).replace(":", "/")] = data
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def point_to(self, document: object, media_type: str = f"{KIND}.manifest.v1+json") -> None:
        """Let the image be another manifest or index."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.target.update(self.blob(data, media_type))

    def save(self, path: Path, wrap: Callable[[bytes], bytes] = bytes) -> str:
        if self.files.get("index.json") == b"":
            self.files["index.json"] = json.dumps(self.index).encode()
        path.write_bytes(wrap(pack(self.files)))
        return str(path)


def pack(files: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            if isinstance(data, tarfile.TarInfo):
                tar.addfile(data)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def archive_files() -> type[ArchiveFiles]:
    return ArchiveFiles
