"""Exporting: the same images make the same archive, and nothing is left out unless that is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from client.conftest import ArchiveFiles, FakeDaemon, digest_of
from images.archives import Receiver, Sender, saved, several

from windlass.contracts.values import Platform
from windlass.errors import Cancelled, DataLoss, InvalidArgument, NotFound
from windlass_client.store import ClientStore
from windlass_images import importer
from windlass_images.exporter import Options, save

EVERYTHING = importer.Options(platform=None, unpack=False)


async def put(
    store: ClientStore, files: ArchiveFiles, tmp_path: Path, options: importer.Options = EVERYTHING
) -> Sequence[importer.Imported]:
    """Import an archive without unpacking it."""
    return await importer.load(store, Sender(saved(files, tmp_path)), options)


async def test_what_is_exported_is_imported_again(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """An archive has what an image is made of, and its name."""
    files = ArchiveFiles(b"one", b"two")
    await put(store, files, tmp_path)
    out = Receiver()

    exported = await save(store, ["example.org/x:1"], out, Options())
    before = dict(daemon.blobs)
    daemon.blobs.clear()
    daemon.images.clear()
    [image] = await importer.load(store, Sender(bytes(out.data)), EVERYTHING)

    assert (image.name, image.target.digest) == ("example.org/x:1", files.target["digest"])
    assert daemon.blobs == before
    assert (exported.blobs, exported.size) == (4, len(out.data))


async def test_the_same_images_make_the_same_bytes(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Time, order of storing and whoever exports make no difference; the order of names does."""
    await put(store, ArchiveFiles(b"a", name="example.org/a:1"), tmp_path)
    await put(store, ArchiveFiles(b"b", name="example.org/b:1"), tmp_path)
    first, second = Receiver(), Receiver()

    await save(store, ["example.org/a:1", "example.org/b:1"], first, Options())
    daemon.blobs = dict(reversed(daemon.blobs.items()))
    await save(store, ["example.org/a:1", "example.org/b:1", "example.org/a:1"], second, Options())

    assert first.data == second.data
    assert list(first.files())[:3] == ["oci-layout", "index.json", "manifest.json"]
    assert list(first.files())[3:] == sorted(first.files())[:-3]


async def test_the_index_says_its_type(store: ClientStore, tmp_path: Path) -> None:
    """As containerd writes it since 2.0: a digest of the same images is the same, wherever they were exported."""
    await put(store, ArchiveFiles(b"one", name="example.org/a:1"), tmp_path)
    out = Receiver()

    await save(store, ["example.org/a:1"], out, Options())

    head = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['
    assert out.files()["index.json"].startswith(head)


async def test_what_docker_reads(store: ClientStore, tmp_path: Path) -> None:
    """manifest.json names config and layers by file, and each image as docker would; layers are not there twice."""
    names = ["docker.io/library/busybox:1", "docker.io/me/x:2", "example.org/y", "plain", "No/Good:1"]
    for name in names:
        await put(store, ArchiveFiles(b"one", b"two", name=name), tmp_path, importer.Options(name=name, unpack=False))
    out, without = Receiver(), Receiver()

    await save(store, names, out, Options())
    await save(store, names, without, Options(skip_docker_manifest=True))

    [entry] = out.document("manifest.json")
    assert entry["RepoTags"] == ["busybox:1", "me/x:2", "example.org/y:latest", "plain:latest"]
    assert entry["Layers"] and {entry["Config"], *entry["Layers"]} <= set(out.files())
    assert "manifest.json" not in without.files()
    annotations = [each["annotations"] for each in out.document("index.json")["manifests"]]
    assert [each["io.containerd.image.name"] for each in annotations] == names
    assert [each["org.opencontainers.image.ref.name"] for each in annotations][:3] == ["1", "2", "example.org/y"]


async def test_one_platform_of_several(store: ClientStore, tmp_path: Path) -> None:
    """Of an index go the wanted platforms; its own bytes stay, so that its digest does."""
    files = several("amd64", "386", "arm64", artifact=True)
    await put(store, files, tmp_path)
    one, two, everything = Receiver(), Receiver(), Receiver()

    await save(store, ["example.org/x:1"], one, Options())
    wanted = (Platform("linux", "arm64"), Platform("linux", "386"))
    await save(store, ["example.org/x:1"], two, Options(platforms=wanted))
    await save(store, ["example.org/x:1"], everything, Options(platforms=None))

    def blobs(out: Receiver) -> int:
        return sum(name.startswith("blobs/") for name in out.files())

    assert (blobs(one), blobs(two), blobs(everything)) == (4, 7, 13)
    assert one.document("index.json") == everything.document("index.json")
    assert one.document("manifest.json") == everything.document("manifest.json")
    assert two.document("manifest.json") != one.document("manifest.json")


async def test_nothing_for_a_platform(store: ClientStore, tmp_path: Path) -> None:
    """That is an error before the first byte."""
    await put(store, several("amd64"), tmp_path)
    out = Receiver()

    with pytest.raises(NotFound, match=r"image example.org/x:1 has nothing for linux/s390x; try --all-platforms"):
        await save(store, ["example.org/x:1"], out, Options(platforms=Platform("linux", "s390x")))

    assert not out.data


async def test_what_is_missing(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """It is refused; or left out: then of an image that is not whole only its manifest goes, as containerd does it."""
    files = several("amd64", "arm64")
    await put(store, files, tmp_path)
    arm64 = digest_of(next(data for data in files.files.values() if b'"arm64"' in data and b"rootfs" in data))
    del daemon.blobs[arm64]
    out = Receiver()

    with pytest.raises(NotFound, match=rf"image example.org/x:1: blob {arm64} \(.*config.*\) is missing"):
        await save(store, ["example.org/x:1"], out, Options(platforms=None))
    assert not out.data
    await save(store, ["example.org/x:1"], out, Options(platforms=None, allow_missing=True))

    assert sum(name.startswith("blobs/") for name in out.files()) == 1 + 3 + 1


async def test_what_may_not_be_handed_on_is_skipped(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """A foreign layer stays in the manifest and out of the archive; who imports that gets along without."""
    files = ArchiveFiles(b"base", b"own")
    files.manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    files.point_to(files.manifest)
    await put(store, files, tmp_path)
    out = Receiver()

    await save(store, ["example.org/x:1"], out, Options(skip_non_distributable=True))
    daemon.blobs.clear()
    daemon.images.clear()
    await importer.load(store, Sender(bytes(out.data)), EVERYTHING)

    assert files.manifest["layers"][0]["digest"] not in daemon.blobs
    assert files.manifest["layers"][1]["digest"] in daemon.blobs


async def test_a_large_layer_is_never_whole_in_memory(store: ClientStore, tmp_path: Path) -> None:
    """What is written at a time is no larger than what the store reads at a time."""
    import random

    await put(store, ArchiveFiles(random.Random(1).randbytes(5 << 20)), tmp_path)
    out = Receiver()

    await save(store, ["example.org/x:1"], out, Options())

    assert out.largest <= 1 << 20


async def test_a_blob_that_was_damaged_ends_the_archive(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Bits that have flipped never make an archive that looks well."""
    files = ArchiveFiles(b"one")
    await put(store, files, tmp_path)
    layer = files.manifest["layers"][0]["digest"]
    daemon.blobs[layer] = bytes(reversed(daemon.blobs[layer]))

    with pytest.raises(DataLoss, match=f"blob {layer} is damaged"):
        await save(store, ["example.org/x:1"], Receiver(), Options())


async def test_where_an_image_came_from_is_kept(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """The labels that say so become annotations, as with containerd."""
    files = ArchiveFiles()
    await put(store, files, tmp_path)
    daemon.labels[files.target["digest"]]["containerd.io/distribution.source.example.org"] = "x"
    out = Receiver()

    await save(store, ["example.org/x:1"], out, Options())

    [target] = out.document("index.json")["manifests"]
    assert target["annotations"]["containerd.io/distribution.source.example.org"] == "x"


async def test_a_receiver_that_goes_away(store: ClientStore, tmp_path: Path) -> None:
    """Its error is the export's."""
    await put(store, ArchiveFiles(), tmp_path)

    class Gone:
        async def write(self, data: bytes) -> None:
            raise Cancelled("the receiver has gone")

    with pytest.raises(Cancelled, match="the receiver has gone"):
        await save(store, ["example.org/x:1"], Gone(), Options())


@pytest.mark.parametrize(("names", "error"), [([], InvalidArgument), (["nope"], NotFound)])
async def test_wrong_names(store: ClientStore, names: list[str], error: type[Exception]) -> None:
    """No name, and a name that is not there."""
    with pytest.raises(error):
        await save(store, names, Receiver(), Options())


async def test_json_is_what_others_write(store: ClientStore, tmp_path: Path) -> None:
    """A platform has all its words in the index, and none that are empty."""
    platform = {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1", "os.features": ["win32k"]}
    await put(store, ArchiveFiles(platform=platform), tmp_path)
    out = Receiver()

    await save(store, ["example.org/x:1"], out, Options(platforms=None))

    [target] = json.loads(out.files()["index.json"])["manifests"]
    assert target["platform"] == platform
