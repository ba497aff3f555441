"""Volumes: what options mean, what is on disk, and who uses which."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from windlass.contracts.containers import Container
from windlass.errors import InvalidArgument, NotFound
from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_client import asking
from windlass_client.client import Client
from windlass_client.datadir import DataDirectory
from windlass_client.namespace import to_message
from windlass_client.volumes import filling, removal, usage
from windlass_client.volumes.options import Wanted, parse_all, parse_mount, parse_tmpfs, parse_volume
from windlass_client.volumes.volume import Volumes
from windlass_oci.defaults import default_spec
from windlass_oci.payloads import SPEC, to_payload


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(DataDirectory(tmp_path / "data"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name:/b", Wanted("volume", "name", "/b")),
        ("/b", Wanted("volume", "", "/b")),
        ("/a:/b", Wanted("bind", "/a", "/b", create=True)),
        ("/a:/b//c/", Wanted("bind", "/a", "/b/c", create=True)),
        ("./a:/b", Wanted("bind", f"{os.getcwd()}/a", "/b", create=True)),
        ("/a:/b:ro,rslave", Wanted("bind", "/a", "/b", True, ("rslave",), create=True)),
        ("/a:/b:z", Wanted("bind", "/a", "/b", create=True)),
        ("name:/b:nocopy,rw", Wanted("volume", "name", "/b", copy=False)),
    ],
)
def test_the_option_for_volumes(text: str, wanted: Wanted) -> None:
    """A source that is a path is the host's, another is a volume's name, and none is a new volume."""
    assert parse_volume(text) == wanted


@pytest.mark.parametrize(
    "text", ["", ":", "a:", ":/b", "/a:/", "/a:b", "x", "a/b:/c", "n:/b:x", "a:/b:ro:rw", "n:/b", "/a:/b:nocopy"]
)
def test_bad_volumes(text: str) -> None:
    """The message has what was typed."""
    with pytest.raises(InvalidArgument, match=r"volume|mount"):
        parse_volume(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("src=/a,dst=/b", Wanted("bind", "/a", "/b")),
        ("type=bind,source=/a,destination=/b,options=bind:ro", Wanted("bind", "/a", "/b", False, ("bind", "ro"))),
        ("src=/a,target=/b,readonly", Wanted("bind", "/a", "/b", True)),
        ("src=/a,target=/b,readonly=false,bind-propagation=shared", Wanted("bind", "/a", "/b", False, ("shared",))),
        ("type=tmpfs,dst=/t,options=size=1m:mode=755", Wanted("tmpfs", "", "/t", False, ("size=1m", "mode=755"))),
        ("type=tmpfs,dst=/t,tmpfs-size=1k,tmpfs-mode=700", Wanted("tmpfs", "", "/t", False, ("size=1024", "mode=700"))),
        ('"src=/a,b",dst=/c', Wanted("bind", "/a,b", "/c")),
        ("type=volume,src=name,dst=/b,volume-nocopy", Wanted("volume", "name", "/b", copy=False)),
        ("src=name,dst=/b,volume-label=a=b,volume-label=c", Wanted("volume", "name", "/b", labels={"a": "b", "c": ""})),
        ("dst=/b", Wanted("volume", "", "/b")),
    ],
)  # fmt: skip
def test_the_option_for_mounts(text: str, wanted: Wanted) -> None:
    """The three types, by docker's words; `options` is what mount(2) gets."""
    assert parse_mount(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        *("src=/a", "src=./a/../b", "src=/a,dst=b", "src=/a,dst=/b,colour=red", "", "type=image,src=/a,dst=/b"),
        *("type=bind,src=a,dst=/b", "type=volume,src=/a,dst=/b", "type=tmpfs,src=x,dst=/b", "src=/a,dst=/b,ro=maybe"),
        *("src=/a,dst=/b,bind-propagation=x", "type=tmpfs,dst=/b,tmpfs-mode=9", "src=n1,dst=/b,volume-driver=nfs"),
    ],
)
def test_bad_mounts(text: str) -> None:
    """What is missing or unknown is named."""
    with pytest.raises(InvalidArgument, match="mount"):
        parse_mount(text)


def test_tmpfs_and_places_that_are_taken() -> None:
    """One place, one mount, whichever options name it."""
    assert parse_tmpfs("/t:size=1m,ro") == Wanted("tmpfs", "", "/t", True, ("size=1m",))
    with pytest.raises(InvalidArgument, match="two mounts have destination '/t'"):
        parse_all(["name:/t"], [], ["/t/"])


def test_a_volume_is_made_listed_and_removed(volumes: Volumes) -> None:
    """With what its inspect prints; again is the same one."""
    made, new = volumes.create("data", {"a": "b"})
    again, second = volumes.create("data")

    assert (new, second) == (True, False)
    assert again == made
    assert made.document()["Labels"] == {"a": "b"}
    assert made.path.stat().st_mode & 0o777 == 0o755
    assert made.path.parent.stat().st_mode & 0o777 == 0o700
    (made.path / "file").write_text("x")
    assert [each.name for each in volumes.list()] == ["data"]
    volumes.remove("data")
    assert volumes.list() == [] and os.listdir(volumes.directory) == []
    with pytest.raises(NotFound, match='volume "data" does not exist'):
        volumes.remove("data")


async def test_a_removal_that_was_cut_off_leaves_no_volume(volumes: Volumes, client: Client) -> None:
    """Half of it was listed as `.data.…`, and `volume prune` failed because no volume can have that name."""
    volumes.create("data")
    (volumes.directory / "data").rename(volumes.directory / ".data.0a1b2c3d")
    assert volumes.list() == []
    assert (await removal.prune(client, volumes, lambda each: True)).names == []
    assert list(volumes.directory.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a", "x" * 129, "a b", "a\n"])
def test_names_that_cannot_be(volumes: Volumes, name: str) -> None:
    """None leads out of the directory."""
    with pytest.raises(InvalidArgument):
        volumes.create(name)
    with pytest.raises(NotFound):
        volumes.get(name)


def test_a_volume_without_its_record_has_its_data(volumes: Volumes) -> None:
    """The record may be lost, or of another version."""
    made, _ = volumes.create("data")
    (made.path.parent / "volume.json").write_text("{")
    assert volumes.get("data").path == made.path


def container(id: str, *mounts: tuple[str, str, str], places: list[str] | None = None) -> containers_pb2.Container:
    spec = default_spec("default", id)
    for kind, source, destination in mounts:
        spec["mounts"].append({"type": kind, "source": source, "destination": destination, "options": ["rbind", "ro"]})
    chosen = [each[2] for each in mounts] if places is None else places
    spec["annotations"] = {usage.PLACES: json.dumps(chosen)}
    return to_message(Container(id, spec=to_payload(SPEC, spec)))


def test_who_uses_a_volume(volumes: Volumes) -> None:
    """By the specs, so that containers of any client count; another container's foreign spec does not matter."""
    data, _ = volumes.create("data")
    one = container("one", ("bind", str(data.path), "/data"), ("bind", "/srv", "/srv"), ("tmpfs", "tmpfs", "/t"))
    strange = containers_pb2.Container(id="strange")

    assert usage.users([one, strange], volumes.directory) == {"data": ["one"]}
    spec = json.loads(one.spec.value)
    found = usage.mounts_of(spec, volumes.directory)
    assert [(each.kind, each.name, each.destination) for each in found] == [
        ("volume", "data", "/data"),
        ("bind", "", "/srv"),
        ("tmpfs", "", "/t"),
    ]
    assert found[0].document() == {
        "Type": "volume", "Name": "data", "Driver": "local", "Source": str(data.path), "Destination": "/data",
        "Mode": "ro", "RW": False, "Propagation": "",
    }  # fmt: skip


def test_a_reservation_keeps_a_volume_for_a_while(volumes: Volumes) -> None:
    """Until it is released; one of a client that died does not last."""
    volumes.create("data")
    usage.reserve(volumes, "data", "one")
    assert usage.holders(volumes, "data", {}) == ["one"]
    usage.release(volumes, "data", "one")
    assert usage.holders(volumes, "data", {}) == []

    usage.reserve(volumes, "data", "dead")
    old = time.time() - 1000
    os.utime(volumes.directory / "data" / "users" / "dead", (old, old))
    assert usage.holders(volumes, "data", {}) == []


def test_an_interrupted_filling_is_done_again(volumes: Volumes) -> None:
    """What a crash left in a volume is not taken for a user's data."""
    made, _ = volumes.create("data")
    assert filling.any_empty([made.path])
    (made.path / "half").write_text("x")
    assert not filling.any_empty([made.path])
    (made.path.parent / filling.MARK).touch()
    assert filling.any_empty([made.path])


def test_a_volume_gets_the_files_of_its_place(volumes: Volumes, tmp_path: Path) -> None:
    """With the mode of the image's directory; no link of an image leads to files of the host (CVE-2022-23648)."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "root/data").mkdir(parents=True, mode=0o750)
    (tmp_path / "root/data/seed").write_text("seed")
    (tmp_path / "root/evil").symlink_to("../../outside")
    (tmp_path / "root/file").write_text("x")
    places = {place: volumes.create(place.strip("/"))[0].path for place in ("/data", "/evil", "/file", "/none")}

    filling._copy_all(str(tmp_path / "root"), places)

    assert (places["/data"] / "seed").read_text() == "seed"
    assert places["/data"].stat().st_mode & 0o777 == (tmp_path / "root/data").stat().st_mode & 0o777
    assert [os.listdir(places[place]) for place in ("/evil", "/file", "/none")] == [[], [], []]
    assert not any((path.parent / filling.MARK).exists() for path in places.values())


def test_filters() -> None:
    """Keys that are not known are refused; labels by key or by both."""
    found = asking.filters(["label=a=b", "label=c", "dangling=true"], ("label", "dangling"))
    assert asking.labelled({"a": "b", "c": "d"}, found["label"])
    assert not asking.labelled({"a": "x", "c": "d"}, found["label"])
    assert not asking.labelled({"a": "b", "c": "d"}, found["label"], ["c"])
    for bad in (["size=1"], ["label"]):
        with pytest.raises(InvalidArgument, match="filter"):
            asking.filters(bad, ("label",))
    with pytest.raises(InvalidArgument):
        asking.moment("yesterday")
    assert 3590 < time.time() - asking.moment("1h").timestamp() < 3700
