"""`ctr images`: import, list, tag, label, export, remove; layers shared, and nothing left when all are gone."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.images import Archive, layer
from compat.machines import Machine, eventually

BUSY = "docker.io/library/busy:1"


def archive(directory: Path, name: str, *layers: bytes) -> Archive:
    """Return a new image in ``directory``."""
    return Archive(directory / f"{name}.tar", f"docker.io/library/{name}:1", layers)


@pytest.fixture
def unique(machine: Machine, tmp_path: Path) -> Iterator[Archive]:
    """An image with content that nobody has seen, which is imported and removed."""
    image = archive(tmp_path, "unique", layer({"a": os.urandom(100)}))
    machine.ctr("images", "import", str(image.path))
    yield image
    machine.try_ctr("images", "rm", "--sync", image.name)


def test_an_imported_image_is_listed_with_what_it_is(machine: Machine, busy: Archive) -> None:
    """Name, type, digest and platform."""
    words = machine.rows("images", "ls")[BUSY]
    assert words[1:3] == ["application/vnd.oci.image.manifest.v1+json", busy.digest]
    assert any(word.startswith("linux/") for word in words)
    assert BUSY in machine.ctr("images", "ls", "-q").split()
    assert machine.ctr("images", "ls", "-q", "name==no-such") == ""


def test_importing_again_changes_nothing(machine: Machine, unique: Archive) -> None:
    """The same archive twice is the same image, unpacked once."""
    before = machine.snapshot_directories()
    machine.ctr("images", "import", str(unique.path))
    assert machine.snapshot_directories() == before


def test_check_says_that_an_image_is_complete_and_unpacked(machine: Machine) -> None:
    """All its blobs are there, and its snapshot."""
    words = machine.rows("images", "check")[BUSY]
    assert words[3] == "complete"
    assert words[-1] == "true"


def test_a_tag_is_a_second_name_for_one_digest(machine: Machine, unique: Archive) -> None:
    """Either can be removed, the content stays while one is there."""
    other = "docker.io/library/other:2"
    machine.ctr("images", "tag", unique.name, other)
    assert machine.rows("images", "ls")[other][2] == unique.digest
    again = machine.try_ctr("images", "tag", unique.name, other)
    assert again.returncode == 1
    assert "already exists" in again.stderr
    machine.ctr("images", "tag", "--force", unique.name, other)

    machine.ctr("images", "rm", "--sync", unique.name)
    assert machine.blob(unique.layers[0]).exists()
    machine.ctr("images", "rm", "--sync", other)
    assert not machine.blob(unique.layers[0]).exists()


def test_labels_are_set_and_cleared(machine: Machine, unique: Archive) -> None:
    """And images can be found by them."""
    machine.ctr("images", "label", unique.name, "colour=red", "size=big")
    assert machine.ctr("images", "ls", "-q", "labels.colour==red").split() == [unique.name]
    assert "colour=red" in machine.rows("images", "ls")[unique.name][-1]
    machine.ctr("images", "label", unique.name, "colour=")
    assert machine.ctr("images", "ls", "-q", "labels.colour==red") == ""


def test_an_exported_image_has_every_blob_and_can_be_imported(
    machine: Machine, unique: Archive, tmp_path: Path
) -> None:
    """The archive is an OCI layout that names the image."""
    out = tmp_path / "out.tar"
    machine.ctr("images", "export", str(out), unique.name)
    with tarfile.open(out) as tar:
        for digest, data in unique.blobs.items():
            file = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert file is not None
            assert file.read() == data
        file = tar.extractfile("index.json")
        assert file is not None
        assert [each["digest"] for each in json.load(file)["manifests"]] == [unique.digest]

    machine.ctr("images", "rm", "--sync", unique.name)
    machine.ctr("images", "import", str(out))
    assert machine.rows("images", "ls")[unique.name][2] == unique.digest


def test_an_image_that_does_not_exist_is_said_so(machine: Machine, tmp_path: Path) -> None:
    """By tag, label, export and run; `rm` only warns, as `rm -f` does."""
    for command in (
        ["images", "tag", "no/such:1", "other:1"],
        ["images", "label", "no/such:1", "a=b"],
        ["images", "export", str(tmp_path / "x.tar"), "no/such:1"],
        ["run", "--rm", "no/such:1", "nobody", "/bin/true"],
    ):
        done = machine.try_ctr(*command)
        assert done.returncode == 1, command
        assert "not found" in done.stderr, command


def test_two_images_that_share_a_layer_unpack_it_once(machine: Machine, tmp_path: Path) -> None:
    """Removing one keeps the other, removing both leaves no blob and no snapshot directory."""
    before = machine.snapshot_directories()
    base = layer({"base": os.urandom(1000)})
    first = archive(tmp_path, "first", base, layer({"first": os.urandom(10)}))
    second = archive(tmp_path, "second", base, layer({"second": os.urandom(10)}))

    machine.ctr("images", "import", str(first.path))
    assert len(machine.snapshot_directories() - before) == 2
    machine.ctr("images", "import", str(second.path))
    assert len(machine.snapshot_directories() - before) == 3
    snapshots = machine.rows("snapshots", "ls")
    assert snapshots[first.chain_ids[1]][1] == snapshots[second.chain_ids[1]][1] == first.chain_ids[0]

    machine.ctr("images", "rm", "--sync", first.name)
    assert len(machine.snapshot_directories() - before) == 2
    assert [machine.blob(digest).exists() for digest in (*second.blobs, first.layers[1])] == [True] * 4 + [False]

    machine.ctr("images", "rm", "--sync", second.name)
    assert machine.snapshot_directories() == before
    assert not any(machine.blob(digest).exists() for digest in {**first.blobs, **second.blobs})
    assert not {*first.chain_ids, *second.chain_ids} & set(machine.rows("snapshots", "ls"))
    assert not {*first.blobs, *second.blobs} & set(machine.rows("content", "ls"))


def test_an_archive_with_a_wrong_blob_is_not_unpacked(machine: Machine, tmp_path: Path) -> None:
    """The message names the digest that is missing; no ingest and no snapshot is left."""
    before = machine.snapshot_directories()
    image = archive(tmp_path, "broken", layer({"a": os.urandom(100)}))
    image.path.write_bytes(image.path.read_bytes().replace(image.blobs[image.layers[0]][-20:], b"x" * 20))

    done = machine.try_ctr("images", "import", str(image.path))

    assert done.returncode == 1
    assert image.layers[0] in done.stderr
    machine.try_ctr("images", "rm", "--sync", image.name)  # ctr has made its record before it unpacks
    assert machine.snapshot_directories() == before
    # whoever had the writer of the layer may still be closing it
    eventually(lambda: not list((machine.root / "io.containerd.content.v1.content/ingest").iterdir()))
