"""A daemon's metadata store, through its API, as the suite sees it; each view is a connection of its own."""

from __future__ import annotations

import builtins
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from windlass.contracts.containers import Container
from windlass.contracts.images import Image
from windlass.contracts.leases import Lease, Resource
from windlass.contracts.metadata import Collected
from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_api.containerd.services.containers.v1.containers_pb2_grpc import ContainersStub
from windlass_api.containerd.services.images.v1 import images_pb2
from windlass_api.containerd.services.images.v1.images_pb2_grpc import ImagesStub
from windlass_api.containerd.services.leases.v1 import leases_pb2
from windlass_api.containerd.services.leases.v1.leases_pb2_grpc import LeasesStub
from windlass_remote.content import RemoteContent
from windlass_remote.messages import any_of, from_timestamp, to_descriptor
from windlass_remote.peer import Peer
from windlass_remote.snapshots import RemoteSnapshotter


class RemoteMetadata:
    """As much of `windlass.contracts.metadata.Metadata` as `windlass_conformance.metadata.MetadataSuite` uses."""

    def __init__(self, address: str, snapshotter: str, namespace: str, stack: ExitStack) -> None:
        """Speak to the daemon at ``address``; connections are closed with ``stack``.

        Collections are asked for in ``namespace``.
        """
        self._namespace = namespace
        self._address = address
        self._snapshotter = snapshotter
        self._stack = stack

    def _peer(self, namespace: str, lease: str = "") -> Peer:
        return self._stack.enter_context(Peer(self._address, namespace, lease))

    def leases(self, namespace: str) -> RemoteLeases:
        """Return a namespace's leases."""
        return RemoteLeases(self._peer(namespace))

    def images(self, namespace: str, lease: str = "") -> RemoteImages:
        """Return a namespace's images."""
        return RemoteImages(self._peer(namespace, lease))

    def containers(self, namespace: str) -> RemoteContainers:
        """Return a namespace's containers."""
        return RemoteContainers(self._peer(namespace))

    def content(self, namespace: str, lease: str = "") -> RemoteContent:
        """Return a namespace's blobs."""
        return RemoteContent(self._peer(namespace, lease))

    def snapshotter(self, name: str, namespace: str, lease: str = "") -> RemoteSnapshotter:
        """Return a namespace's snapshots."""
        return RemoteSnapshotter(self._peer(namespace, lease), name)

    def snapshotters(self) -> Sequence[str]:
        """Return the snapshotter that the cases use."""
        return (self._snapshotter,)

    def collect(self) -> Collected:
        """Have a collection run, which a deletion of a lease can wait for."""
        with Peer(self._address, self._namespace) as peer:
            stub, name = LeasesStub(peer.channel), secrets.token_hex(8)
            peer.call(stub.Create, leases_pb2.CreateRequest(id=name))
            peer.call(stub.Delete, leases_pb2.DeleteRequest(id=name, sync=True))
        return Collected()


class RemoteLeases:
    """A `windlass.contracts.leases.LeaseStore`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub = LeasesStub(peer.channel)

    def create(self, id: str = "", labels: Mapping[str, str] | None = None) -> Lease:
        """Create a lease."""
        return _lease(self._peer.call(self._stub.Create, leases_pb2.CreateRequest(id=id, labels=labels)).lease)

    def delete(self, id: str) -> None:
        """Delete a lease."""
        self._peer.call(self._stub.Delete, leases_pb2.DeleteRequest(id=id))

    def list(self, filters: Sequence[str] = ()) -> builtins.list[Lease]:
        """Return those that match, by ID."""
        answer = self._peer.call(self._stub.List, leases_pb2.ListRequest(filters=filters))
        return sorted(map(_lease, answer.leases), key=lambda lease: lease.id)

    def add_resource(self, id: str, resource: Resource) -> None:
        """Hold a resource."""
        request = leases_pb2.AddResourceRequest(id=id, resource=_resource(resource))
        self._peer.call(self._stub.AddResource, request)

    def delete_resource(self, id: str, resource: Resource) -> None:
        """Let a resource go."""
        request = leases_pb2.DeleteResourceRequest(id=id, resource=_resource(resource))
        self._peer.call(self._stub.DeleteResource, request)

    def resources(self, id: str) -> builtins.list[Resource]:
        """Return what a lease holds."""
        answer = self._peer.call(self._stub.ListResources, leases_pb2.ListResourcesRequest(id=id))
        return [Resource(each.id, each.type) for each in answer.resources]


def _lease(message: leases_pb2.Lease) -> Lease:
    return Lease(message.id, dict(message.labels), from_timestamp(message.created_at))


def _resource(resource: Resource) -> leases_pb2.Resource:
    return leases_pb2.Resource(id=resource.id, type=resource.type)


class RemoteImages:
    """The part of a `windlass.contracts.images.ImageStore` that makes and removes."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub = ImagesStub(peer.channel)

    def create(self, image: Image, at: int | None = None) -> Image:
        """Record an image."""
        message = images_pb2.Image(name=image.name, labels=image.labels, target=to_descriptor(image.target))
        self._peer.call(self._stub.Create, images_pb2.CreateImageRequest(image=message))
        return image

    def delete(self, name: str, target: str = "") -> None:
        """Forget an image."""
        self._peer.call(self._stub.Delete, images_pb2.DeleteImageRequest(name=name))

    def names(self) -> list[str]:
        """Return the names of all."""
        return [image.name for image in self._peer.call(self._stub.List, images_pb2.ListImagesRequest()).images]


class RemoteContainers:
    """The part of a `windlass.contracts.containers.ContainerStore` that makes and removes."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub = ContainersStub(peer.channel)

    def create(self, container: Container) -> Container:
        """Record a container."""
        message = containers_pb2.Container(
            id=container.id,
            labels=container.labels,
            runtime=containers_pb2.Container.Runtime(name=container.runtime),
            spec=any_of(container.spec) if container.spec is not None else None,
            snapshotter=container.snapshotter,
            snapshot_key=container.snapshot_key,
        )
        self._peer.call(self._stub.Create, containers_pb2.CreateContainerRequest(container=message))
        return container

    def delete(self, id: str) -> None:
        """Forget a container."""
        self._peer.call(self._stub.Delete, containers_pb2.DeleteContainerRequest(id=id))

    def names(self) -> list[str]:
        """Return the IDs of all."""
        answer = self._peer.call(self._stub.List, containers_pb2.ListContainersRequest())
        return [container.id for container in answer.containers]
