"""What a client can ask about the records that no daemon here has by itself: how they are made, and the calls."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_api.containerd.services.content.v1 import content_pb2, content_pb2_grpc
from windlass_api.containerd.services.images.v1 import images_pb2
from windlass_api.containerd.services.introspection.v1 import introspection_pb2
from windlass_api.containerd.services.leases.v1 import leases_pb2, leases_pb2_grpc
from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2, namespaces_pb2_grpc
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2, sandbox_pb2_grpc
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2, snapshots_pb2_grpc
from windlass_api.containerd.services.tasks.v1 import tasks_pb2
from windlass_api.containerd.types import sandbox_pb2 as sandbox_types

SERVICES = "/containerd.services."
SNAPSHOTTER = "native"
REFS = 50
"""Ingests that are open."""
HELD = 100
"""Resources of one lease."""

Metadata = tuple[tuple[str, str], ...]


def blob(number: int) -> bytes:
    """Return a blob's bytes."""
    return f"blob {number}".encode()


def digest(number: int) -> str:
    """Return a blob's digest."""
    return "sha256:" + hashlib.sha256(blob(number)).hexdigest()


def fill_more(channel: grpc.Channel, metadata: Metadata, records: int) -> None:
    """Make leases, namespaces, sandboxes, blobs, ingests and snapshots."""
    for make in (_leases, _namespaces, _sandboxes, _content, _snapshots):
        with contextlib.suppress(grpc.RpcError):  # a daemon that was here before
            make(channel, metadata, records)


def _leases(channel: grpc.Channel, metadata: Metadata, records: int) -> None:
    stub = leases_pb2_grpc.LeasesStub(channel)
    for number in range(records):
        stub.Create(leases_pb2.CreateRequest(id=f"lease-{number}", labels={"app": "bench"}), metadata=metadata)
    for number in range(HELD):
        resource = leases_pb2.Resource(id=f"box-{number}", type="snapshots/native")
        stub.AddResource(leases_pb2.AddResourceRequest(id="lease-7", resource=resource), metadata=metadata)


def _namespaces(channel: grpc.Channel, metadata: Metadata, records: int) -> None:
    stub = namespaces_pb2_grpc.NamespacesStub(channel)
    for number in range(records):
        made = namespaces_pb2.Namespace(name=f"bench-{number}", labels={"app": "bench"})
        stub.Create(namespaces_pb2.CreateNamespaceRequest(namespace=made))


def _sandboxes(channel: grpc.Channel, metadata: Metadata, records: int) -> None:
    stub = sandbox_pb2_grpc.StoreStub(channel)
    for number in range(records):
        made = sandbox_types.Sandbox(sandbox_id=f"pod-{number}", labels={"app": "bench"}, sandboxer="shim")
        made.runtime.name = "io.containerd.runc.v2"
        made.spec.type_url, made.spec.value = "spec", b"{}"
        stub.Create(sandbox_pb2.StoreCreateRequest(sandbox=made), metadata=metadata)


def _content(channel: grpc.Channel, metadata: Metadata, records: int) -> None:
    stub = content_pb2_grpc.ContentStub(channel)
    for number in range(records):
        data = blob(number)
        request = content_pb2.WriteContentRequest(
            action=content_pb2.COMMIT,
            ref=f"blob-{number}",
            total=len(data),
            expected=digest(number),
            data=data,
            labels={"containerd.io/gc.root": "now", "app": "bench"},
        )
        list(stub.Write(iter([request]), metadata=metadata))
    for number in range(REFS):
        request = content_pb2.WriteContentRequest(action=content_pb2.WRITE, ref=f"open-{number}", data=b"x")
        list(stub.Write(iter([request]), metadata=metadata))


def _snapshots(channel: grpc.Channel, metadata: Metadata, records: int) -> None:
    stub = snapshots_pb2_grpc.SnapshotsStub(channel)
    labels = {"containerd.io/gc.root": "now", "app": "bench"}
    for number in range(records):
        request = snapshots_pb2.PrepareSnapshotRequest(snapshotter=SNAPSHOTTER, key=f"snap-{number}", labels=labels)
        stub.Prepare(request, metadata=metadata)


def questions() -> Iterator[tuple[str, str, Message, int]]:
    """Return every call that asks: its short name, path, request, and how often it is made in a round."""
    one, many = 1000, 20
    yield "images get", "images.v1.Images/Get", images_pb2.GetImageRequest(name=image(7)), one
    yield "leases list", "leases.v1.Leases/List", leases_pb2.ListRequest(), many
    filtered = leases_pb2.ListRequest(filters=['labels."app"==bench'])
    yield "leases filtered", "leases.v1.Leases/List", filtered, many
    yield "lease resources", "leases.v1.Leases/ListResources", leases_pb2.ListResourcesRequest(id="lease-7"), 200
    yield "namespaces get", "namespaces.v1.Namespaces/Get", namespaces_pb2.GetNamespaceRequest(name="bench-7"), one
    yield "namespaces list", "namespaces.v1.Namespaces/List", namespaces_pb2.ListNamespacesRequest(), many
    yield "sandboxes get", "sandbox.v1.Store/Get", sandbox_pb2.StoreGetRequest(sandbox_id="pod-7"), one
    yield "sandboxes list", "sandbox.v1.Store/List", sandbox_pb2.StoreListRequest(), many
    yield "content info", "content.v1.Content/Info", content_pb2.InfoRequest(digest=digest(7)), one
    yield "content list", "content.v1.Content/List", content_pb2.ListContentRequest(), many
    tenth = content_pb2.ListContentRequest(filters=['labels."app"==bench'])
    yield "content filtered", "content.v1.Content/List", tenth, many
    yield "content read", "content.v1.Content/Read", content_pb2.ReadContentRequest(digest=digest(7)), one
    yield "ingest status", "content.v1.Content/Status", content_pb2.StatusRequest(ref="open-7"), one
    yield "ingests list", "content.v1.Content/ListStatuses", content_pb2.ListStatusesRequest(), 100
    yield "snapshot stat", "snapshots.v1.Snapshots/Stat", _snapshot(snapshots_pb2.StatSnapshotRequest), one
    yield "snapshot mounts", "snapshots.v1.Snapshots/Mounts", _snapshot(snapshots_pb2.MountsRequest), one
    yield "snapshot usage", "snapshots.v1.Snapshots/Usage", _snapshot(snapshots_pb2.UsageRequest), 300
    every = snapshots_pb2.ListSnapshotsRequest(snapshotter=SNAPSHOTTER)
    yield "snapshots list", "snapshots.v1.Snapshots/List", every, many
    some = snapshots_pb2.ListSnapshotsRequest(snapshotter=SNAPSHOTTER, filters=['labels."app"==bench'])
    yield "snapshots filtered", "snapshots.v1.Snapshots/List", some, many
    yield "tasks list", "tasks.v1.Tasks/List", tasks_pb2.ListTasksRequest(), 300
    yield "task get", "tasks.v1.Tasks/Get", tasks_pb2.GetRequest(container_id="run-0"), one
    yield "task pids", "tasks.v1.Tasks/ListPids", tasks_pb2.ListPidsRequest(container_id="run-0"), 200
    yield "task metrics", "tasks.v1.Tasks/Metrics", tasks_pb2.MetricsRequest(filters=["id==run-0"]), 200
    yield "plugins", "introspection.v1.Introspection/Plugins", introspection_pb2.PluginsRequest(), 200
    yield "server", "introspection.v1.Introspection/Server", Empty(), one
    absent = containers_pb2.GetContainerRequest(id="absent")
    yield "containers get, absent", "containers.v1.Containers/Get", absent, one


def _snapshot(kind: Callable[..., Message]) -> Message:
    return kind(snapshotter=SNAPSHOTTER, key="snap-7")


def image(number: int) -> str:
    """Return an image's name."""
    return f"registry.example/team/image-{number}:latest"
