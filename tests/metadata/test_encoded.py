"""Records as bytes: they say what the columns say, whoever wrote these, and are what clients get."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from metadata.conftest import World

from windlass.contracts.containers import Container
from windlass.contracts.content import Info
from windlass.contracts.images import Image
from windlass.contracts.leases import Lease, Resource
from windlass.contracts.namespaces import Namespace
from windlass.contracts.sandboxes import Sandbox
from windlass.contracts.values import Descriptor, Payload
from windlass.errors import InvalidArgument, NotFound
from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_api.containerd.services.content.v1 import content_pb2
from windlass_api.containerd.services.images.v1 import images_pb2
from windlass_api.containerd.services.leases.v1 import leases_pb2
from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2
from windlass_metadata.containers import Containers
from windlass_metadata.content import Content
from windlass_metadata.images import Images
from windlass_metadata.leases import Leases
from windlass_metadata.namespaces import Namespaces
from windlass_metadata.remembered import Remembered
from windlass_metadata.request_lease import LEASES
from windlass_metadata.sandboxes import Sandboxes
from windlass_metadata.schema import FIRST
from windlass_metadata.store import MetadataStore
from windlass_remote.records import to_blob, to_container, to_image, to_lease, to_record

DIGEST = "sha256:" + 64 * "a"
SPEC = Payload("types.example/spec", b"x" * 300)


@pytest.fixture
def store(world: World) -> Iterator[MetadataStore]:
    yield world.open()


def containers(store: MetadataStore) -> Containers:
    view = store.containers("ns")
    assert isinstance(view, Containers)
    return view


def images(store: MetadataStore) -> Images:
    view = store.images("ns")
    assert isinstance(view, Images)
    return view


def box(id: str, **changes: object) -> Container:
    return Container(id, "rt", Payload("o", b"1"), SPEC, **changes)  # type: ignore[arg-type] # fields of a Container


def test_a_record_is_the_response_of_get(store: MetadataStore) -> None:
    view = containers(store)
    made = view.create(box("one", labels={"a": "b", "gone": ""}, extensions={"x": Payload("t", b"v")}))
    response = containers_pb2.GetContainerResponse.FromString(view.get_encoded("one"))
    assert response.container == to_container(view.get("one"))
    assert response.container.created_at.ToNanoseconds() == made.created_at
    with pytest.raises(NotFound, match="container two does not exist"):
        view.get_encoded("two")


def test_joined_they_are_the_response_of_list(store: MetadataStore) -> None:
    view = images(store)
    for name in ("b", "a", "c"):
        view.create(Image(name, Descriptor("m", DIGEST, 1, {"k": name})))
    response = images_pb2.ListImagesResponse.FromString(b"".join(view.list_encoded()))
    assert list(response.images) == [to_image(image) for image in view.list()]
    sandboxes = store.sandboxes("ns")
    assert isinstance(sandboxes, Sandboxes)
    sandboxes.create(Sandbox("pod", "rt", labels={"a": "b"}))
    found = sandbox_pb2.StoreListResponse.FromString(b"".join(sandboxes.list_encoded()))
    assert list(found.list) == [to_record(sandboxes.get("pod"))]


@pytest.mark.parametrize(
    "filters",
    [
        ["id==one"],
        ["labels.a==b"],
        ["runtime.name==rt,image==i"],
        ["id==two", "labels.a"],
        ["", "id==one"],
        ["id!=one"],
        ["colour==1"],
        ["colour!=1"],
        ["runtime"],
    ],
)
def test_filters_choose_the_same_records(store: MetadataStore, filters: list[str]) -> None:
    view = containers(store)
    for one in (box("one", labels={"a": "b"}), box("two", image="i"), box("three", labels={"a": "c"}, image="i")):
        view.create(one)
    response = containers_pb2.ListContainersResponse.FromString(b"".join(view.list_encoded(filters)))
    assert [each.id for each in response.containers] == [each.id for each in view.list(filters)]


def test_image_filters_see_the_target(store: MetadataStore) -> None:
    view = images(store)
    view.create(Image("a", Descriptor("m", DIGEST, 1, {"k": "1"})))
    view.create(Image("b", Descriptor("n", DIGEST, 1, {"k": "2"})))
    for filters in (["target.mediatype==n"], ["annotations.k==2"], [f"target.digest=={DIGEST},name==b"]):
        (one,) = view.list_encoded(filters)
        assert images_pb2.GetImageResponse.FromString(one).image.name == "b"
    with pytest.raises(InvalidArgument):
        view.list_encoded(["=="])


def test_an_update_changes_the_bytes(store: MetadataStore) -> None:
    view = containers(store)
    view.create(box("one"))
    view.update(box("one", labels={"new": "1"}), ["labels"])
    response = containers_pb2.GetContainerResponse.FromString(view.get_encoded("one"))
    assert dict(response.container.labels) == {"new": "1"}
    view.delete("one")
    assert not view.list_encoded()


def old_database(path: Path) -> None:
    """Make a database as Windlass 0.1.0 did, with a container and an image."""
    with sqlite3.connect(path) as db:
        db.executescript(f"{FIRST} PRAGMA user_version = 1;")
        db.execute("INSERT INTO namespaces (name) VALUES ('ns')")
        db.execute(
            "INSERT INTO containers VALUES ('ns', 'old', 'rt', NULL, NULL, 's', x'01', '{\"a\":\"b\"}', 'i', '', '',"
            " '{}', '', 5, 6)"
        )
        db.execute("INSERT INTO images VALUES ('ns', 'old', 'm', ?, 1, '{}', '{}', 5, 6)", (DIGEST,))
    db.close()


def test_records_of_an_older_windlass_are_encoded_when_it_is_opened(world: World) -> None:
    old_database(world.root / "meta.db")
    store = world.open()
    with world.opened[0].read() as db:
        assert db.execute("SELECT count(*) FROM containers WHERE encoded IS NULL").fetchone() == (0,)
    response = containers_pb2.GetContainerResponse.FromString(containers(store).get_encoded("old"))
    assert response.container == to_container(store.containers("ns").get("old"))
    assert len(images(store).list_encoded()) == 1
    assert store.check() == [] or all("encoded" not in problem.remedy for problem in store.check())


def test_a_row_that_is_not_encoded_is_listed_all_the_same(world: World, store: MetadataStore) -> None:
    view = containers(store)
    view.create(box("one"))
    before = [*view.list_encoded()]
    world.opened[0].write(lambda db: db.execute("UPDATE containers SET encoded = NULL").rowcount)
    assert [*view.list_encoded()] == before
    assert [*view.list_encoded(["id==one"])] == before
    assert before == [view.get_encoded("one")]


@pytest.mark.parametrize("bytes", ["NULL", "x'0a00'"])
def test_a_check_finds_bytes_that_are_not_the_record_s(world: World, store: MetadataStore, bytes: str) -> None:
    view = containers(store)
    view.create(box("one"))
    before = view.get_encoded("one")
    world.opened[0].write(lambda db: db.execute(f"UPDATE containers SET encoded = {bytes}").rowcount)
    (problem,) = store.check()
    assert problem.object == "record one of containers of namespace ns"
    assert "run with --repair" in problem.remedy
    (problem,) = store.check(repair=True)
    assert problem.repaired
    assert store.check() == []
    assert view.get_encoded("one") == before


def test_leases_namespaces_and_blobs_change_their_bytes_with_their_rows(world: World, store: MetadataStore) -> None:
    leases, namespaces = store.leases("ns"), store.namespaces()
    assert isinstance(leases, Leases)
    assert isinstance(namespaces, Namespaces)
    leases.create("l", {"a": "1"})
    leases.create("m")
    first = leases.list_encoded()
    assert [each.id for each in leases_pb2.ListResponse.FromString(b"".join(first)).leases] == ["l", "m"]
    leases.add_resource("l", Resource("a", "snapshots/native"))
    leases.add_resource("l", Resource("r", "ingests"))
    held = leases_pb2.ListResourcesResponse.FromString(leases.resources_encoded("l")).resources
    assert [Resource(each.id, each.type) for each in held] == leases.resources("l") != []
    leases.delete("l")
    with pytest.raises(NotFound):
        leases.resources_encoded("l")
    leases.create("l", {"a": "2"})
    (changed, same) = leases_pb2.ListResponse.FromString(b"".join(leases.list_encoded())).leases
    assert (changed.labels["a"], same.SerializeToString(deterministic=True)) == ("2", first[1][2:])
    assert leases.list_encoded(['labels."a"==1']) == []
    assert leases.list_encoded(['labels."a"==2', "id==m"]) == leases.list_encoded()

    def known() -> dict[str, str]:
        alone = namespaces_pb2.GetNamespaceResponse.FromString(namespaces.get_encoded("ns")).namespace
        joined = b"".join(namespaces.list_encoded())
        (listed,) = namespaces_pb2.ListNamespacesResponse.FromString(joined).namespaces
        assert alone == listed
        return dict(listed.labels)

    assert known() == {}
    namespaces.update(Namespace("ns", {"a": "1"}))
    assert known() == {"a": "1"}
    namespaces.update(Namespace("ns", {"a": "2"}))
    assert known() == {"a": "2"}
    absent = namespaces_pb2.GetNamespaceResponse.FromString(namespaces.get_encoded("absent")).namespace
    assert (absent.name, dict(absent.labels)) == ("absent", {})


def test_a_blob_s_bytes_change_with_its_labels(store: MetadataStore) -> None:
    content = store.content("ns")
    assert isinstance(content, Content)
    with closing(content.writer("r")) as writer:
        writer.write(b"x")
        writer.commit(labels={"a": "1"})
        digest = writer.digest()

    def known() -> dict[str, str]:
        alone = content_pb2.InfoResponse.FromString(content.info_encoded(digest)).info
        (listed,) = content_pb2.ListContentResponse.FromString(b"".join(content.walk_encoded())).info
        assert alone == listed == to_blob(content.info(digest))
        return dict(listed.labels)

    assert known() == {"a": "1"}
    content.update(Info(digest, labels={"a": "2"}))
    assert known() == {"a": "2"}
    assert list(content.walk_encoded(['labels."a"==1'])) == []
    assert list(content.walk_encoded(['labels."a"==2'])) == [content.info_encoded(digest)]
    content.delete(digest)
    assert list(content.walk_encoded()) == []
    with pytest.raises(NotFound):
        content.info_encoded(digest)


def test_no_more_rows_than_a_bound_are_remembered() -> None:
    made: list[str] = []

    def translate(lease: Lease) -> leases_pb2.Lease:
        made.append(lease.id)
        return to_lease(lease)

    known = Remembered(LEASES, translate, most=2)
    rows = [(name, "{}", 1) for name in "aab"]
    assert len({*known.all(rows)}) == 2
    assert made == ["a", "b"]
    known.of(("c", "{}", 1))
    known.of(("a", "{}", 1))
    assert made == ["a", "b", "c", "a"]
