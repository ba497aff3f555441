"""Records as messages."""

from __future__ import annotations

from windlass.contracts import content, snapshots
from windlass.contracts.containers import Container
from windlass.contracts.images import Image
from windlass.contracts.leases import Lease
from windlass.contracts.namespaces import Namespace
from windlass.contracts.sandboxes import Sandbox
from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_api.containerd.services.content.v1 import content_pb2
from windlass_api.containerd.services.images.v1 import images_pb2
from windlass_api.containerd.services.leases.v1 import leases_pb2
from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2
from windlass_api.containerd.types import sandbox_pb2 as types_pb
from windlass_remote.messages import (
    any_of,
    from_any,
    payloads,
    put_any,
    put_timestamp,
    to_any,
    to_descriptor,
    to_timestamp,
)


def to_record(sandbox: Sandbox) -> types_pb.Sandbox:
    """Return a sandbox's record as a message."""
    message = types_pb.Sandbox(
        sandbox_id=sandbox.id,
        runtime=types_pb.Sandbox.Runtime(name=sandbox.runtime, options=to_any(sandbox.runtime_options)),
        spec=to_any(sandbox.spec),
        labels=sandbox.labels,
        created_at=to_timestamp(sandbox.created_at),
        updated_at=to_timestamp(sandbox.updated_at),
        sandboxer=sandbox.sandboxer,
    )
    for key, payload in sandbox.extensions.items():
        message.extensions[key].CopyFrom(any_of(payload))
    return message


def from_record(message: types_pb.Sandbox) -> Sandbox:
    """Return a sandbox's record; its times are ours to set."""
    return Sandbox(
        id=message.sandbox_id,
        runtime=message.runtime.name,
        runtime_options=from_any(message.runtime.options),
        spec=from_any(message.spec),
        labels=dict(message.labels),
        extensions=payloads(message.extensions),
        sandboxer=message.sandboxer,
    )


def to_container(container: Container) -> containers_pb2.Container:
    """Return a container's record as a message."""
    message = containers_pb2.Container(
        id=container.id,
        labels=container.labels or None,
        image=container.image,
        snapshotter=container.snapshotter,
        snapshot_key=container.snapshot_key,
        sandbox=container.sandbox,
    )
    message.runtime.name = container.runtime
    put_any(message.runtime.options, container.runtime_options)
    put_any(message.spec, container.spec)
    put_timestamp(message.created_at, container.created_at)
    put_timestamp(message.updated_at, container.updated_at)
    for key, payload in container.extensions.items():
        put_any(message.extensions[key], payload)
    return message


def to_image(image: Image) -> images_pb2.Image:
    """Return an image as a message."""
    message = images_pb2.Image(name=image.name, labels=image.labels or None, target=to_descriptor(image.target))
    put_timestamp(message.created_at, image.created_at)
    put_timestamp(message.updated_at, image.updated_at)
    return message


def to_lease(lease: Lease) -> leases_pb2.Lease:
    """Return a lease as a message."""
    message = leases_pb2.Lease(id=lease.id, labels=lease.labels)
    put_timestamp(message.created_at, lease.created_at)
    return message


def to_namespace(namespace: Namespace) -> namespaces_pb2.Namespace:
    """Return a namespace as a message."""
    return namespaces_pb2.Namespace(name=namespace.name, labels=namespace.labels)


def to_blob(info: content.Info) -> content_pb2.Info:
    """Return a blob's description as a message."""
    message = content_pb2.Info(digest=info.digest, size=info.size, labels=info.labels or None)
    put_timestamp(message.created_at, info.created_at)
    put_timestamp(message.updated_at, info.updated_at)
    return message


def to_snapshot(info: snapshots.Info) -> snapshots_pb2.Info:
    """Return a snapshot's description as a message."""
    message = snapshots_pb2.Info(
        name=info.name, parent=info.parent, kind=snapshots_pb2.Kind.ValueType(info.kind), labels=info.labels or None
    )
    put_timestamp(message.created_at, info.created_at)
    put_timestamp(message.updated_at, info.updated_at)
    return message
