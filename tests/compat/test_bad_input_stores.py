"""Stores asked for what cannot be, over the wire: each call is refused with its code and one line that says why."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any  # messages are of many types

import grpc
import pytest
from compat.scratch_daemon import METADATA, ScratchDaemon, needs_root
from google.protobuf.field_mask_pb2 import FieldMask

from windlass_api.containerd.services.containers.v1 import containers_pb2, containers_pb2_grpc
from windlass_api.containerd.services.content.v1 import content_pb2, content_pb2_grpc
from windlass_api.containerd.services.diff.v1 import diff_pb2, diff_pb2_grpc
from windlass_api.containerd.services.images.v1 import images_pb2, images_pb2_grpc
from windlass_api.containerd.services.leases.v1 import leases_pb2, leases_pb2_grpc
from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2, namespaces_pb2_grpc
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2, snapshots_pb2_grpc
from windlass_api.containerd.types.descriptor_pb2 import Descriptor

pytestmark = needs_root

SNAPSHOTTER = "native"
BLOB = b"twelve bytes"
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
LONG = {"key": "v" * 4094}
KEPT = {"containerd.io/gc.root": "test"}
"""On whatever is made, which a collection would take otherwise."""
LAYER = "application/vnd.oci.image.layer.v1.tar"
UNKNOWN = ("md5:" + "0" * 32, "sha256:" + "0" * 63, "sha256:" + "G" * 64, "sha1:" + "0" * 40, "sha256", "")
BROKEN = ("name==", "labels.", "?", 'labels."a', "name~=/a", "name==a,")

INVALID, MISSING, STATE = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
)


class Stores:
    """Calls of the stores, in a namespace of the test's."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._content = content_pb2_grpc.ContentStub(channel)
        self._images = images_pb2_grpc.ImagesStub(channel)
        self._snapshots = snapshots_pb2_grpc.SnapshotsStub(channel)
        self._leases = leases_pb2_grpc.LeasesStub(channel)
        self._containers = containers_pb2_grpc.ContainersStub(channel)
        self._namespaces = namespaces_pb2_grpc.NamespacesStub(channel)
        self._diff = diff_pb2_grpc.DiffStub(channel)

    def prepare(self, key: str, parent: str = "", metadata: Any = METADATA, **fields: Any) -> None:
        kept = {"labels": KEPT, **fields}
        request = snapshots_pb2.PrepareSnapshotRequest(snapshotter=SNAPSHOTTER, key=key, parent=parent, **kept)
        self._snapshots.Prepare(request, metadata=metadata, timeout=30)

    def view(self, key: str, parent: str = "") -> None:
        request = snapshots_pb2.ViewSnapshotRequest(snapshotter=SNAPSHOTTER, key=key, parent=parent, labels=KEPT)
        self._snapshots.View(request, metadata=METADATA, timeout=30)

    def commit(self, name: str, key: str, **fields: Any) -> None:
        kept = {"labels": KEPT, **fields}
        request = snapshots_pb2.CommitSnapshotRequest(snapshotter=SNAPSHOTTER, name=name, key=key, **kept)
        self._snapshots.Commit(request, metadata=METADATA, timeout=30)

    def remove(self, key: str) -> None:
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=key)
        self._snapshots.Remove(request, metadata=METADATA, timeout=30)

    def update_snapshot(self, key: str, labels: dict[str, str]) -> None:
        info = snapshots_pb2.Info(name=key, labels=labels)
        request = snapshots_pb2.UpdateSnapshotRequest(
            snapshotter=SNAPSHOTTER, info=info, update_mask=FieldMask(paths=["labels.key"])
        )
        self._snapshots.Update(request, metadata=METADATA, timeout=30)

    def write(self, *messages: content_pb2.WriteContentRequest) -> None:
        list(self._content.Write(iter(messages), metadata=METADATA, timeout=30))

    def ingest(
        self, action: content_pb2.WriteAction.ValueType = content_pb2.COMMIT, data: bytes = BLOB, **fields: Any
    ) -> None:
        more = {"ref": "ref", "labels": KEPT, **fields}
        self.write(content_pb2.WriteContentRequest(action=action, data=data, **more))

    def abort(self, ref: str = "ref") -> None:
        self._content.Abort(content_pb2.AbortRequest(ref=ref), metadata=METADATA, timeout=30)

    def read(self, digest: str, offset: int = 0) -> None:
        request = content_pb2.ReadContentRequest(digest=digest, offset=offset)
        list(self._content.Read(request, metadata=METADATA, timeout=30))

    def info(self, digest: str) -> None:
        self._content.Info(content_pb2.InfoRequest(digest=digest), metadata=METADATA, timeout=30)

    def delete(self, digest: str) -> None:
        self._content.Delete(content_pb2.DeleteContentRequest(digest=digest), metadata=METADATA, timeout=30)

    def update_content(self, digest: str, labels: dict[str, str]) -> None:
        request = content_pb2.UpdateRequest(info=content_pb2.Info(digest=digest, labels=labels))
        self._content.Update(request, metadata=METADATA, timeout=30)

    def image(self, digest: str, labels: dict[str, str] | None = None) -> None:
        image = images_pb2.Image(
            name="image", target=Descriptor(media_type=LAYER, digest=digest, size=1), labels=labels or {}
        )
        self._images.Create(images_pb2.CreateImageRequest(image=image), metadata=METADATA, timeout=30)

    def lease(self, labels: dict[str, str]) -> None:
        self._leases.Create(leases_pb2.CreateRequest(id="lease", labels=labels), metadata=METADATA, timeout=30)

    def end_lease(self) -> None:
        self._leases.Delete(leases_pb2.DeleteRequest(id="lease"), metadata=METADATA, timeout=30)

    def namespace(self, labels: dict[str, str]) -> None:
        namespace = namespaces_pb2.Namespace(name="bad", labels=labels)
        self._namespaces.Create(namespaces_pb2.CreateNamespaceRequest(namespace=namespace), timeout=30)

    def container(self, labels: dict[str, str]) -> None:
        container = containers_pb2.Container(id="c", labels=labels, runtime=containers_pb2.Container.Runtime(name="r"))
        container.spec.type_url = "t"
        self._containers.Create(
            containers_pb2.CreateContainerRequest(container=container), metadata=METADATA, timeout=30
        )

    def apply(self, digest: str) -> None:
        request = diff_pb2.ApplyRequest(diff=Descriptor(media_type=LAYER, digest=digest, size=1))
        self._diff.Apply(request, metadata=METADATA, timeout=30)

    def lists(self, expression: str) -> dict[str, Callable[[], object]]:
        """Every list that takes filters."""
        with_filters: dict[str, Any] = {
            "blobs": (self._content.List, content_pb2.ListContentRequest(filters=[expression])),
            "ingests": (self._content.ListStatuses, content_pb2.ListStatusesRequest(filters=[expression])),
            "images": (self._images.List, images_pb2.ListImagesRequest(filters=[expression])),
            "leases": (self._leases.List, leases_pb2.ListRequest(filters=[expression])),
            "containers": (self._containers.List, containers_pb2.ListContainersRequest(filters=[expression])),
            "snapshots": (
                self._snapshots.List,
                snapshots_pb2.ListSnapshotsRequest(snapshotter=SNAPSHOTTER, filters=[expression]),
            ),
        }
        streams = ("blobs", "snapshots")

        def ask(name: str) -> object:
            method, request = with_filters[name]
            answer = method(request, metadata=METADATA, timeout=30)
            return list(answer) if name in streams else answer

        return {name: partial(ask, name) for name in with_filters}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScratchDaemon]:
    daemon = ScratchDaemon(tmp_path_factory.mktemp("d"))
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def stores(daemon: ScratchDaemon) -> Iterator[Stores]:
    with daemon.channel() as channel:
        yield Stores(channel)
    assert "Traceback" not in daemon.log.read_text()


def refused(code: grpc.StatusCode, *words: str) -> Callable[[Callable[[], object]], None]:
    """Return what fails unless a call is refused so, with these words in one line."""

    def check(call: Callable[[], object]) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        details = str(caught.value.details())
        assert caught.value.code() == code, details
        assert all(word in details for word in words), details
        assert "\n" not in details
        assert len(details) < 1000

    return check


def test_snapshots_that_cannot_be(stores: Stores) -> None:
    """Parents that are missing, active, or in another namespace; names that are taken or empty; a view; a child."""
    stores.prepare("base-key")
    stores.commit("base", "base-key")
    stores.prepare("active")
    stores.view("view", "base")
    elsewhere = (("containerd-namespace", "elsewhere"),)

    refused(MISSING, "nobody")(lambda: stores.prepare("x", "nobody"))
    refused(INVALID, "active")(lambda: stores.prepare("x", "active"))
    refused(INVALID, "view")(lambda: stores.prepare("x", "view"))
    refused(MISSING, "base")(lambda: stores.prepare("x", "base", elsewhere))
    refused(INVALID, "empty")(lambda: stores.prepare(""))
    refused(INVALID, "empty")(lambda: stores.commit("", "active"))
    refused(grpc.StatusCode.ALREADY_EXISTS, "active")(lambda: stores.prepare("active"))
    refused(grpc.StatusCode.ALREADY_EXISTS, "base")(lambda: stores.commit("base", "active"))
    refused(STATE, "view")(lambda: stores.commit("x", "view"))
    refused(MISSING, "nobody")(lambda: stores.commit("x", "nobody"))
    refused(STATE, "child")(lambda: stores.remove("base"))
    for key in ("view", "active", "base"):
        stores.remove(key)


@pytest.mark.parametrize("key", ["a/b/../../c", "k" * 4096, "名前", "with\nnewline", "../../../etc"])
def test_keys_are_names_and_no_paths(stores: Stores, key: str) -> None:
    stores.prepare(key)
    stores.remove(key)


def test_labels_over_the_limit(stores: Stores) -> None:
    """4096 bytes of key and value are the most, but for leases, which take any, as containerd's do."""
    stores.prepare("key")
    stores.ingest(expected=DIGEST, total=len(BLOB))
    for call in (
        lambda: stores.prepare("x", labels=LONG),
        lambda: stores.commit("x", "key", labels=LONG),
        lambda: stores.update_snapshot("key", LONG),
        lambda: stores.image(DIGEST, LONG),
        lambda: stores.namespace(LONG),
        lambda: stores.container(LONG),
        lambda: stores.update_content(DIGEST, LONG),
        lambda: stores.ingest(data=b"other", labels=LONG),
    ):
        refused(INVALID, "label key", "limit is 4096")(call)
    stores.lease(LONG)
    stores.end_lease()
    stores.abort()
    stores.remove("key")
    stores.delete(DIGEST)


@pytest.mark.parametrize("expression", BROKEN)
def test_filters_that_do_not_parse(stores: Stores, expression: str) -> None:
    """In every list that takes them."""
    for call in stores.lists(expression).values():
        refused(INVALID, "parse error")(call)


@pytest.mark.parametrize("digest", UNKNOWN)
def test_digests_that_are_none(stores: Stores, digest: str) -> None:
    """Unknown algorithms, wrong lengths, none at all."""
    for call in (stores.info, stores.read, stores.delete, stores.image, partial(stores.update_content, labels={})):
        refused(INVALID, "digest")(lambda call=call: call(digest))  # type: ignore[misc]
    refused(INVALID, "digest")(lambda: stores.apply(digest))
    if digest:
        refused(INVALID, "digest")(lambda: stores.ingest(expected=digest))


def test_offsets_and_expectations(stores: Stores) -> None:
    """Beyond the end, in reads and writes; another digest, another size, no ref."""
    stores.ingest(expected=DIGEST)
    stores.read(DIGEST, len(BLOB))
    stores.read(DIGEST, -5)
    refused(grpc.StatusCode.OUT_OF_RANGE, "13")(lambda: stores.read(DIGEST, len(BLOB) + 1))
    refused(grpc.StatusCode.OUT_OF_RANGE, "5")(lambda: stores.ingest(content_pb2.WRITE, b"x", offset=5))
    refused(STATE, "digest")(lambda: stores.ingest(data=b"other", expected="sha256:" + "0" * 64))
    refused(STATE, "bytes")(lambda: stores.ingest(data=b"other", total=4, offset=0))
    refused(INVALID, "ref")(lambda: stores.ingest(ref=""))
    refused(grpc.StatusCode.ALREADY_EXISTS, DIGEST)(lambda: stores.ingest(expected=DIGEST))
    stores.delete(DIGEST)
