"""Answers that are bytes are those that a store without bytes gets translated."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from metadata.conftest import Events
from metadata.memory_content import MemoryContent

from windlass.contracts import rpc
from windlass.contracts.containers import Container, ContainerStore
from windlass.contracts.content import ContentStore
from windlass.contracts.images import Image, ImageStore
from windlass.contracts.leases import LeaseStore, Resource
from windlass.contracts.metadata import Metadata
from windlass.contracts.namespaces import NamespaceStore
from windlass.contracts.sandboxes import Sandbox, SandboxStore
from windlass.contracts.values import Descriptor, Payload
from windlass.gate import Gate, Handle
from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_api.containerd.services.content.v1 import content_pb2
from windlass_api.containerd.services.images.v1 import images_pb2
from windlass_api.containerd.services.leases.v1 import leases_pb2
from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2
from windlass_metadata.database import Database
from windlass_metadata.store import MetadataStore
from windlass_services.containers import Containers
from windlass_services.content import Content
from windlass_services.images import Images
from windlass_services.leases import Leases
from windlass_services.namespaces import Namespaces
from windlass_services.sandboxes import SandboxStoreService

DIGEST = "sha256:" + 64 * "a"
BLOB = "sha256:" + hashlib.sha256(b"a").hexdigest()


class Plain:
    """A view as its contract describes it, and no more."""

    def __init__(self, view: ContainerStore | ImageStore | SandboxStore | LeaseStore | NamespaceStore) -> None:
        self.list = view.list
        # leases have no `get`, and only they have resources
        self.get, self.resources = getattr(view, "get", None), getattr(view, "resources", None)


class PlainContent:
    """A view of content as its contract describes it, and no more."""

    def __init__(self, view: ContentStore) -> None:
        self.info, self.walk = view.info, view.walk


class Foreign:
    """A metadata store of somebody else."""

    def __init__(self, store: Metadata) -> None:
        self._store = store

    def containers(self, namespace: str) -> Plain:
        return Plain(self._store.containers(namespace))

    def images(self, namespace: str, lease: str = "") -> Plain:
        return Plain(self._store.images(namespace, lease))

    def sandboxes(self, namespace: str) -> Plain:
        return Plain(self._store.sandboxes(namespace))

    def leases(self, namespace: str) -> Plain:
        return Plain(self._store.leases(namespace))

    def namespaces(self) -> Plain:
        return Plain(self._store.namespaces())

    def content(self, namespace: str, lease: str = "") -> PlainContent:
        return PlainContent(self._store.content(namespace, lease))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MetadataStore]:
    found = MetadataStore(Database(tmp_path / "meta.db"), MemoryContent(), {}, Events())
    for id in ("b", "a"):
        extensions = {"x": Payload("t", b"v")}
        found.containers("ns").create(Container(id, "rt", None, Payload("s", b"1"), {"l": id}, extensions=extensions))
        found.images("ns").create(Image(id, Descriptor("m", DIGEST, 1, {"k": id}), {"l": id}))
        found.sandboxes("ns").create(Sandbox(id, "rt", labels={"l": id}))
        found.leases("ns").create(id, {"l": id})
        found.leases("ns").add_resource(id, Resource(id, "ingests"))
        with closing(found.content("ns").writer(id)) as writer:
            writer.write(id.encode())
            writer.commit(labels={"l": id})
    yield found
    found.close()


def methods(store: MetadataStore, foreign: bool) -> dict[str, rpc.Method]:
    """Return the methods of the three services, by path."""
    metadata = cast("Metadata", Handle(Foreign(store) if foreign else store, Gate("io.containerd.metadata.v1.it")))
    services = (
        (containers_pb2, "Containers", Containers(metadata)),
        (images_pb2, "Images", Images(metadata, None)),  # type: ignore[arg-type] # nothing is deleted
        (sandbox_pb2, "Store", SandboxStoreService(metadata)),
        (leases_pb2, "Leases", Leases(metadata, None)),  # type: ignore[arg-type] # nothing is collected
        (namespaces_pb2, "Namespaces", Namespaces(metadata)),
        (content_pb2, "Content", Content(metadata)),
    )
    found = {}
    for module, name, service in services:
        each = rpc.methods_of(module.DESCRIPTOR.services_by_name[name], service)
        found.update({f"{name}.{method}": each[method] for method in each})
    return found


async def answers(method: rpc.Method, request: bytes) -> list[bytes]:
    answer = method.handler(method.decode(request), rpc.Call(((rpc.NAMESPACE, "ns"),)))
    if isinstance(answer, AsyncIterable):
        return [method.encode(each) async for each in answer]
    return [method.encode(await answer)]


@pytest.mark.parametrize(
    ("name", "request_", "kind"),
    [
        ("Containers.Get", containers_pb2.GetContainerRequest(id="a"), containers_pb2.GetContainerResponse),
        ("Containers.List", containers_pb2.ListContainersRequest(), containers_pb2.ListContainersResponse),
        ("Containers.ListStream", containers_pb2.ListContainersRequest(), containers_pb2.ListContainerMessage),
        ("Images.Get", images_pb2.GetImageRequest(name="a"), images_pb2.GetImageResponse),
        ("Images.List", images_pb2.ListImagesRequest(filters=["labels.l==b"]), images_pb2.ListImagesResponse),
        ("Store.Get", sandbox_pb2.StoreGetRequest(sandbox_id="a"), sandbox_pb2.StoreGetResponse),
        ("Store.List", sandbox_pb2.StoreListRequest(), sandbox_pb2.StoreListResponse),
        ("Leases.List", leases_pb2.ListRequest(), leases_pb2.ListResponse),
        ("Leases.List", leases_pb2.ListRequest(filters=["labels.l==b"]), leases_pb2.ListResponse),
        ("Leases.ListResources", leases_pb2.ListResourcesRequest(id="a"), leases_pb2.ListResourcesResponse),
        ("Namespaces.Get", namespaces_pb2.GetNamespaceRequest(name="ns"), namespaces_pb2.GetNamespaceResponse),
        ("Namespaces.List", namespaces_pb2.ListNamespacesRequest(), namespaces_pb2.ListNamespacesResponse),
        ("Content.Info", content_pb2.InfoRequest(digest=BLOB), content_pb2.InfoResponse),
        ("Content.List", content_pb2.ListContentRequest(), content_pb2.ListContentResponse),
        ("Content.List", content_pb2.ListContentRequest(filters=["labels.l==b"]), content_pb2.ListContentResponse),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_store_without_bytes_gives_the_same_answers(
    store: MetadataStore, name: str, request_: containers_pb2.GetContainerRequest, kind: Callable[..., object]
) -> None:
    data = request_.SerializeToString()
    ours = await answers(methods(store, False)[name], data)
    theirs = await answers(methods(store, True)[name], data)
    parse = kind.FromString  # type: ignore[attr-defined] # a class of messages
    assert [parse(each) for each in ours] == [parse(each) for each in theirs]
    assert ours != [b""]
