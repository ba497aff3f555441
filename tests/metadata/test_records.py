"""Namespaces, containers, images, leases and sandboxes: what is kept, refused, changed and told.

Source: docs/containerd 3.2-3.8.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from metadata.conftest import World, digest_of, image, put

from windlass.contracts.containers import Container
from windlass.contracts.content import Info
from windlass.contracts.leases import Resource
from windlass.contracts.namespaces import Namespace
from windlass.contracts.sandboxes import Sandbox
from windlass.contracts.snapshots import Info as SnapshotInfo
from windlass.contracts.snapshots import Kind
from windlass.contracts.values import Descriptor, Payload
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from windlass_api.containerd.events.container_pb2 import ContainerCreate, ContainerUpdate
from windlass_api.containerd.services.images.v1.events_pb2 import ImageUpdate
from windlass_metadata.store import MetadataStore

SPEC = Payload("types.containerd.io/opencontainers/runtime-spec/1/Spec", b'{"a":1}')
OPTIONS = Payload("containerd.runc.v1.Options", b"\x0a\x01x")
OTHER = Payload("other", b"\x00\xff")
ONE, TWO = digest_of(b"one"), digest_of(b"two")


# Any: fields of a Container, each of its own type
def container(id: str = "c1", **changes: Any) -> Container:
    plain = Container(id, runtime="io.containerd.runc.v2", spec=SPEC, labels={"a": "1", "b": "2"}, image="img")
    return replace(plain, **changes)


@pytest.mark.parametrize("view", ["containers", "images", "leases", "sandboxes", "content"])
def test_every_view_needs_a_valid_namespace(metadata: MetadataStore, view: str) -> None:
    with pytest.raises(FailedPrecondition, match="namespace is required"):
        getattr(metadata, view)("")
    with pytest.raises(InvalidArgument):
        getattr(metadata, view)("not/valid")


def test_unknown_snapshotters_are_invalid(metadata: MetadataStore) -> None:
    for name in ("", "zfs"):
        with pytest.raises(InvalidArgument):
            metadata.snapshotter(name, "ns")
    assert metadata.snapshotters() == ["memory", "other"]


class TestLabelKeys:
    """An empty key is refused wherever labels come in (containerd: "key required"); without a value it is none."""

    BAD, NONE = {"": "x"}, {"": ""}

    def test_namespaces(self, metadata: MetadataStore) -> None:
        namespaces = metadata.namespaces()
        with pytest.raises(InvalidArgument, match="key of a label must not be empty"):
            namespaces.create(Namespace("one", self.BAD))
        assert namespaces.create(Namespace("one", self.NONE)).labels == {}
        with pytest.raises(InvalidArgument):
            namespaces.update(Namespace("one", self.BAD))

    def test_containers(self, metadata: MetadataStore) -> None:
        containers = metadata.containers("ns")
        with pytest.raises(InvalidArgument):
            containers.create(container(labels=self.BAD))
        assert containers.create(container(labels=self.NONE)).labels == {}
        for paths in ([], ["labels"]):
            with pytest.raises(InvalidArgument):
                containers.update(container(labels=self.BAD), paths)

    def test_images(self, metadata: MetadataStore) -> None:
        """Annotations of their targets the same."""
        images = metadata.images("ns")
        bad = replace(image("i", ONE), target=Descriptor("application/x", ONE, 3, self.BAD))
        for refused in (bad, replace(image("i", ONE), labels=self.BAD)):
            with pytest.raises(InvalidArgument):
                images.create(refused)
        assert images.create(replace(image("i", ONE), labels=self.NONE)).labels == {}
        for paths in ([], ["annotations"], ["target"]):
            with pytest.raises(InvalidArgument):
                images.update(bad, paths)

    def test_leases_and_sandboxes(self, metadata: MetadataStore) -> None:
        leases, sandboxes = metadata.leases("ns"), metadata.sandboxes("ns")
        with pytest.raises(InvalidArgument):
            leases.create("l", self.BAD)
        with pytest.raises(InvalidArgument):
            sandboxes.create(Sandbox("s", labels=self.BAD))
        assert leases.create("l", self.NONE).labels == {} == sandboxes.create(Sandbox("s", labels=self.NONE)).labels
        with pytest.raises(InvalidArgument):
            sandboxes.update(Sandbox("s", labels=self.BAD), ["labels"])

    def test_content_and_snapshots(self, metadata: MetadataStore) -> None:
        content, snapshots = metadata.content("ns"), metadata.snapshotter("memory", "ns")
        with closing(content.writer("ref")) as writer, pytest.raises(InvalidArgument):
            writer.commit(labels=self.BAD)
        put(content, b"one")
        with pytest.raises(InvalidArgument):
            content.update(Info(ONE, labels=self.BAD))
        for make in (snapshots.prepare, snapshots.view):
            with pytest.raises(InvalidArgument):
                make("s", "", self.BAD)
        snapshots.prepare("s", "", self.NONE)
        with pytest.raises(InvalidArgument):
            snapshots.commit("name", "s", self.BAD)
        with pytest.raises(InvalidArgument):
            snapshots.update(SnapshotInfo(Kind.ACTIVE, "s", labels=self.BAD))


def test_leases_and_sandboxes_take_long_labels(metadata: MetadataStore) -> None:
    """containerd limits neither (core/metadata/leases.go, sandbox.go); annotations of images are not limited either."""
    long = {"k": "v" * 8000}
    leases, sandboxes, images = metadata.leases("ns"), metadata.sandboxes("ns"), metadata.images("ns")

    assert leases.create("l", long).labels == long
    assert sandboxes.create(Sandbox("s", labels=long)).labels == long
    assert sandboxes.update(Sandbox("s", labels={"l": "w" * 9000}), ["labels.l"]).labels == {**long, "l": "w" * 9000}
    images.create(image("i", ONE))
    annotated = replace(image("i", ONE), target=Descriptor("application/x", ONE, 3, long))
    assert images.update(annotated, ["annotations.k"]).target.annotations == long


class TestNamespaces:
    def test_unknown_namespace_has_no_labels_and_is_no_error(self, metadata: MetadataStore) -> None:
        assert metadata.namespaces().get("nobody") == Namespace("nobody", {})
        assert metadata.namespaces().list() == []

    def test_create_keeps_labels_but_for_empty_ones(self, metadata: MetadataStore, world: World) -> None:
        created = metadata.namespaces().create(Namespace("one", {"k": "v", "empty": ""}))

        assert created.labels == {"k": "v"} == metadata.namespaces().get("one").labels
        with pytest.raises(AlreadyExists):
            metadata.namespaces().create(Namespace("one"))
        with pytest.raises(InvalidArgument):
            metadata.namespaces().create(Namespace("-"))
        assert [(namespace, topic) for namespace, topic, _ in world.events.published] == [("one", "/namespaces/create")]

    def test_first_write_makes_a_namespace(self, metadata: MetadataStore) -> None:
        metadata.leases("implicit").create("l")

        assert [namespace.name for namespace in metadata.namespaces().list()] == ["implicit"]
        with pytest.raises(AlreadyExists):
            metadata.namespaces().create(Namespace("implicit"))

    def test_update_sets_single_labels_or_replaces_all(self, metadata: MetadataStore) -> None:
        namespaces = metadata.namespaces()
        namespaces.create(Namespace("one", {"a": "1", "b": "2"}))

        assert namespaces.update(Namespace("one", {"a": "x"}), ["labels.a", "labels.b"]).labels == {"a": "x"}
        assert namespaces.update(Namespace("one", {"c": "3"})).labels == {"c": "3"}
        assert namespaces.update(Namespace("new", {"d": "4"})).labels == {"d": "4"}
        for path in ("labels", "name", "labels."):
            with pytest.raises(InvalidArgument):
                namespaces.update(Namespace("one", {}), [path])

    def test_only_empty_namespaces_are_deleted(self, metadata: MetadataStore) -> None:
        """Images, blobs, containers and snapshots keep a namespace; leases, ingests and sandboxes go with it."""
        metadata.images("ns").create(image("i", ONE))
        metadata.containers("ns").create(container())
        put(metadata.content("ns"), b"x")
        metadata.snapshotter("memory", "ns").prepare("s")
        metadata.content("ns").writer("ref").close()
        metadata.leases("ns").create("l")
        metadata.sandboxes("ns").create(Sandbox("sb"))

        with pytest.raises(FailedPrecondition, match="images, blobs, containers, snapshots on memory snapshotter"):
            metadata.namespaces().delete("ns")
        metadata.images("ns").delete("i")
        metadata.containers("ns").delete("c1")
        metadata.content("ns").delete(digest_of(b"x"))
        metadata.snapshotter("memory", "ns").remove("s")
        metadata.namespaces().delete("ns")

        assert metadata.leases("ns").list() == [] == metadata.sandboxes("ns").list()
        assert metadata.content("ns").statuses() == []
        with pytest.raises(NotFound):
            metadata.namespaces().delete("ns")


class TestContainers:
    def test_record_is_read_as_it_was_written(self, metadata: MetadataStore, world: World) -> None:
        wanted = container(
            runtime_options=OPTIONS, snapshotter="memory", snapshot_key="s", extensions={"x": OTHER}, sandbox="sb"
        )

        created = metadata.containers("ns").create(wanted)

        assert created == metadata.containers("ns").get("c1")
        assert replace(created, created_at=0, updated_at=0) == wanted
        assert created.created_at == created.updated_at > 0
        _, topic, payload = world.events.published[-1]
        event = ContainerCreate.FromString(payload.value)
        assert (topic, payload.type_url) == ("/containers/create", "containerd.events.ContainerCreate")
        assert (event.id, event.image, event.runtime.name) == ("c1", "img", "io.containerd.runc.v2")
        assert (event.runtime.options.type_url, event.runtime.options.value) == (OPTIONS.type_url, OPTIONS.value)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"id": ""},
            {"id": "a/b"},
            {"runtime": ""},
            {"spec": None},
            {"snapshot_key": "s"},
            {"extensions": {"": OTHER}},
            {"labels": {"k": "v" * 4096}},
        ],
    )
    def test_incomplete_containers_are_refused(self, metadata: MetadataStore, wrong: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgument):
            metadata.containers("ns").create(container(**wrong))
        assert metadata.containers("ns").list() == []

    def test_ids_are_unique_in_their_namespace_only(self, metadata: MetadataStore) -> None:
        metadata.containers("one").create(container())
        metadata.containers("two").create(container())
        with pytest.raises(AlreadyExists):
            metadata.containers("one").create(container())

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ([], ["c1", "c2", "c3"]),
            (["labels.kind==web"], ["c2"]),
            (["id==c1", "labels.kind==web"], ["c1", "c2"]),
            (["id==c2,labels.kind==web"], ["c2"]),
            (["id==c1,labels.kind==web"], []),
            (["runtime.name==other"], ["c3"]),
            (["image==img"], ["c1", "c2", "c3"]),
            (["labels.kind"], ["c2"]),
        ],
    )
    def test_list_selects(self, metadata: MetadataStore, filters: list[str], found: list[str]) -> None:
        containers = metadata.containers("ns")
        containers.create(container("c3", runtime="other"))
        containers.create(container("c2", labels={"kind": "web"}))
        containers.create(container("c1"))

        assert [one.id for one in containers.list(filters)] == found

    @pytest.mark.parametrize(
        ("paths", "changed"),
        [
            (["spec"], {"spec": OTHER}),
            (["image"], {"image": "new"}),
            (["snapshotkey"], {"snapshot_key": "new"}),
            (["labels.a"], {"labels": {"a": "new", "b": "2"}}),
            (["labels.b"], {"labels": {"a": "1"}}),
            (["labels"], {"labels": {"a": "new"}}),
            (["extensions"], {"extensions": {"y": SPEC}}),
            (["extensions.y"], {"extensions": {"x": OTHER, "y": SPEC}}),
            (["extensions.x"], {"extensions": {}}),
            (
                [],
                {
                    "spec": OTHER,
                    "image": "new",
                    "snapshot_key": "new",
                    "labels": {"a": "new"},
                    "extensions": {"y": SPEC},
                },
            ),
        ],
    )
    def test_update_changes_what_it_names(
        self, metadata: MetadataStore, paths: list[str], changed: dict[str, Any]
    ) -> None:
        containers = metadata.containers("ns")
        old = containers.create(container(snapshotter="memory", snapshot_key="s", extensions={"x": OTHER}))
        wanted = replace(
            old, spec=OTHER, image="new", snapshot_key="new", labels={"a": "new", "b": ""}, extensions={"y": SPEC}
        )

        new = containers.update(wanted, paths)

        assert new == containers.get("c1")
        assert replace(new, updated_at=0) == replace(old, updated_at=0, **changed)
        assert new.updated_at > old.updated_at

    def test_update_tells_the_world(self, metadata: MetadataStore, world: World) -> None:
        metadata.containers("ns").create(container())
        metadata.containers("ns").update(container(image="new"), ["image"])

        event = ContainerUpdate.FromString(world.events.published[-1][2].value)
        assert (event.id, event.image, dict(event.labels)) == ("c1", "new", {"a": "1", "b": "2"})

    def test_runtime_and_snapshotter_do_not_change(self, metadata: MetadataStore) -> None:
        containers = metadata.containers("ns")
        old = containers.create(container(snapshotter="memory", snapshot_key="s"))

        for wrong, paths in (
            (replace(old, runtime="x"), ["runtime"]),
            (replace(old, runtime="x"), []),
            (replace(old, snapshotter="x"), []),
            (replace(old, snapshotter="x"), ["snapshotter"]),
            (replace(old, spec=None), []),
        ):
            with pytest.raises(InvalidArgument):
                containers.update(wrong, paths)
        with pytest.raises(NotFound):
            containers.update(container("nobody"), ["id"])
        assert containers.get("c1") == old

    def test_deleted_is_gone(self, metadata: MetadataStore, world: World) -> None:
        metadata.containers("ns").create(container())
        metadata.containers("ns").delete("c1")

        for call in (metadata.containers("ns").get, metadata.containers("ns").delete):
            with pytest.raises(NotFound):
                call("c1")
        assert world.events.topics() == ["/containers/create", "/containers/delete"]


class TestImages:
    @pytest.mark.parametrize(
        "target",
        [Descriptor("m", "", 7), Descriptor("m", "sha256:1", 7), Descriptor("m", ONE, 0), Descriptor("", ONE, 7)],
    )
    def test_incomplete_targets_are_refused(self, metadata: MetadataStore, target: Descriptor) -> None:
        images = metadata.images("ns")
        with pytest.raises(InvalidArgument):
            images.create(replace(image("i", ONE), target=target))
        images.create(image("i", ONE))
        for paths in ([], ["target"]):
            with pytest.raises(InvalidArgument):
                images.update(replace(image("i", ONE), target=target), paths)
        assert images.get("i").target.digest == ONE

    def test_times_are_ours_unless_a_source_date_is_given(self, metadata: MetadataStore) -> None:
        images = metadata.images("ns")
        new = images.create(replace(image("new", ONE), created_at=5, updated_at=5))
        old = images.create(image("old", ONE), at=1000)

        assert new.created_at == new.updated_at > 1000
        assert (old.created_at, old.updated_at) == (1000, 1000)
        assert images.update(image("old", TWO), at=2000).updated_at == 2000
        assert images.get("old").created_at == 1000

    @pytest.mark.parametrize(
        ("paths", "labels", "annotations", "digest"),
        [
            ([], {"a": "new"}, {"x": "new"}, TWO),
            (["labels"], {"a": "new"}, {"x": "1", "y": "2"}, ONE),
            (["labels.a"], {"a": "new", "b": "2"}, {"x": "1", "y": "2"}, ONE),
            (["labels.b"], {"a": "1"}, {"x": "1", "y": "2"}, ONE),
            (["annotations"], {"a": "1", "b": "2"}, {"x": "new"}, ONE),
            (["annotations.x"], {"a": "1", "b": "2"}, {"x": "new", "y": "2"}, ONE),
            (["target"], {"a": "1", "b": "2"}, {"x": "new"}, TWO),
            (["target", "labels.a"], {"a": "new", "b": "2"}, {"x": "new"}, TWO),
        ],
    )
    def test_update_changes_what_it_names(
        self,
        metadata: MetadataStore,
        world: World,
        paths: list[str],
        labels: dict[str, str],
        annotations: dict[str, str],
        digest: str,
    ) -> None:
        images = metadata.images("ns")
        old = image("i", ONE, {"a": "1", "b": "2"})
        old = images.create(replace(old, target=replace(old.target, annotations={"x": "1", "y": "2"})))
        new = image("i", TWO, {"a": "new"})

        updated = images.update(replace(new, target=replace(new.target, annotations={"x": "new"})), paths)

        assert updated == images.get("i")
        assert (updated.labels, updated.target.annotations, updated.target.digest) == (labels, annotations, digest)
        assert updated.created_at == old.created_at < updated.updated_at
        event = ImageUpdate.FromString(world.events.published[-1][2].value)
        assert (event.name, dict(event.labels)) == ("i", labels)
        assert world.events.published[-1][2].type_url == "containerd.services.images.v1.ImageUpdate"

    def test_unknown_paths_and_names_are_refused(self, metadata: MetadataStore) -> None:
        with pytest.raises(NotFound):
            metadata.images("ns").update(image("i", ONE))
        metadata.images("ns").create(image("i", ONE))
        with pytest.raises(InvalidArgument):
            metadata.images("ns").update(image("i", ONE), ["name"])
        with pytest.raises(AlreadyExists):
            metadata.images("ns").create(image("i", TWO))

    def test_delete_with_another_target_is_not_found(self, metadata: MetadataStore) -> None:
        images = metadata.images("ns")
        images.create(image("i", ONE))

        with pytest.raises(NotFound):
            images.delete("i", TWO)
        images.delete("i", ONE)
        with pytest.raises(NotFound):
            images.delete("i")

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            (["name==a"], ["a"]),
            (["labels.k==v"], ["b"]),
            (["target.mediatype~=/index/"], ["a", "b"]),
            ([f"target.digest=={ONE}"], ["a"]),
            (["annotations.x==y"], []),
        ],
    )
    def test_list_selects(self, metadata: MetadataStore, filters: list[str], found: list[str]) -> None:
        metadata.images("ns").create(image("b", TWO, {"k": "v"}))
        metadata.images("ns").create(image("a", ONE))

        assert [one.name for one in metadata.images("ns").list(filters)] == found


class TestLeases:
    def test_random_ids(self, metadata: MetadataStore) -> None:
        first, second = metadata.leases("ns").create(), metadata.leases("ns").create()

        assert first.id != second.id
        number, _, rest = first.id.partition("-")
        assert number.isdigit() and len(rest) == 4

    def test_list_selects_and_keeps_times(self, metadata: MetadataStore) -> None:
        leases = metadata.leases("ns")
        one, two = leases.create("one", {"k": "v"}), leases.create("two", {"empty": ""})

        assert leases.list() == [one, two]
        assert leases.list(["id==two"]) == [two]
        assert leases.list(["labels.k==v", "id==two"]) == [one, two]
        assert leases.list(["labels.empty"]) == []
        with pytest.raises(AlreadyExists):
            leases.create("one")

    def test_resources_are_held_whether_they_exist_or_not(self, metadata: MetadataStore) -> None:
        leases = metadata.leases("ns")
        leases.create("l")
        held = [
            Resource(ONE, "content"),
            Resource("name", "images"),
            Resource("ref", "ingests"),
            Resource("key", "snapshots/overlayfs"),
        ]
        for resource in [*reversed(held), held[0]]:
            leases.add_resource("l", resource)

        assert leases.resources("l") == held
        leases.delete_resource("l", held[1])
        assert leases.resources("l") == [held[0], *held[2:]]
        leases.delete("l")
        for call in (leases.delete, leases.resources):
            with pytest.raises(NotFound):
                call("l")

    @pytest.mark.parametrize(
        ("type", "error"),
        [
            ("snapshots", InvalidArgument),
            ("snapshots/a/b", InvalidArgument),
            ("snapshots/", InvalidArgument),
            ("content", InvalidArgument),
            ("containers", Unimplemented),
            ("leases", Unimplemented),
            ("", Unimplemented),
        ],
    )
    def test_other_resources_are_refused(self, metadata: MetadataStore, type: str, error: type[Exception]) -> None:
        metadata.leases("ns").create("l")
        for call in (metadata.leases("ns").add_resource, metadata.leases("ns").delete_resource):
            with pytest.raises(error):
                call("l", Resource("x", type))

    def test_unknown_lease_is_not_found(self, metadata: MetadataStore) -> None:
        with pytest.raises(NotFound):
            metadata.leases("ns").add_resource("l", Resource(ONE, "content"))
        with pytest.raises(NotFound):
            metadata.content("ns", "l").writer("ref")
        with pytest.raises(NotFound):
            metadata.snapshotter("memory", "ns", "l").prepare("s")
        assert metadata.content("ns").statuses() == []
        assert list(metadata.snapshotter("memory", "ns").walk()) == []

    def test_image_is_leased_only_if_it_expires(self, metadata: MetadataStore) -> None:
        metadata.leases("ns").create("l")
        images = metadata.images("ns", "l")
        images.create(image("stays", ONE))
        images.create(image("expires", ONE, {"containerd.io/gc.expire": "2000-01-01T00:00:00Z"}))

        assert metadata.leases("ns").resources("l") == [Resource("expires", "images")]
        images.delete("expires")
        assert metadata.leases("ns").resources("l") == []


class TestSandboxes:
    def test_record_is_read_as_it_was_written(self, metadata: MetadataStore) -> None:
        wanted = Sandbox("s", "runtime", OPTIONS, SPEC, {"k": "v"}, {"x": OTHER}, "shim")

        created = metadata.sandboxes("ns").create(wanted)

        assert created == metadata.sandboxes("ns").get("s")
        assert replace(created, created_at=0, updated_at=0) == wanted
        assert metadata.sandboxes("ns").list(["id==s"]) == [created]
        assert metadata.sandboxes("ns").list(["labels.k==x"]) == []
        with pytest.raises(AlreadyExists):
            metadata.sandboxes("ns").create(wanted)

    @pytest.mark.parametrize(
        ("paths", "changed"),
        [
            (["labels.k"], {"labels": {"k": "new", "l": "2"}}),
            (["extensions.x"], {"extensions": {"x": SPEC}}),
            (["spec"], {"spec": OTHER}),
            (["runtime"], {"runtime": "new", "runtime_options": None}),
            (
                [],
                {
                    "labels": {"k": "new"},
                    "extensions": {"x": SPEC},
                    "spec": OTHER,
                    "runtime": "new",
                    "runtime_options": None,
                },
            ),
        ],
    )
    def test_update_changes_what_it_names(
        self, metadata: MetadataStore, paths: list[str], changed: dict[str, Any]
    ) -> None:
        sandboxes = metadata.sandboxes("ns")
        old = sandboxes.create(Sandbox("s", "runtime", OPTIONS, SPEC, {"k": "v", "l": "2"}, {"x": OTHER}, "shim"))

        new = sandboxes.update(Sandbox("s", "new", None, OTHER, {"k": "new"}, {"x": SPEC}), paths)

        assert replace(new, updated_at=0) == replace(old, updated_at=0, **changed)
        with pytest.raises(InvalidArgument):
            sandboxes.update(new, ["sandboxer"])

    def test_unknown_is_not_found(self, metadata: MetadataStore) -> None:
        sandboxes = metadata.sandboxes("ns")
        with pytest.raises(NotFound):
            sandboxes.update(Sandbox("s"))
        sandboxes.create(Sandbox("s"))
        sandboxes.delete("s")
        for call in (sandboxes.get, sandboxes.delete):
            with pytest.raises(NotFound):
                call("s")
        with pytest.raises(InvalidArgument):
            sandboxes.create(Sandbox(""))
