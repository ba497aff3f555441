"""Importing image archives: what good ones become, and that bad ones leave nothing."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from client.conftest import KIND, ArchiveFiles, FakeDaemon, digest_of, pack

from windlass.contracts.values import Platform
from windlass.errors import Error, InvalidArgument
from windlass_client.client import Client
from windlass_client.store import ClientStore
from windlass_images.importer import Options, load
from windlass_images.manifests import chain_id

AMD64 = Platform("linux", "amd64")
OPTIONS = Options(platform=AMD64, unpack=False)
Spoil = Callable[[ArchiveFiles], object]
"""Makes an archive bad."""
UNPACK = Options(platform=AMD64)


@pytest.fixture(autouse=True)
def _amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are about an amd64 machine, wherever they run."""
    monkeypatch.setattr("windlass_images.platforms.host", lambda: AMD64)
    monkeypatch.setattr("windlass_images.platforms._level", lambda: 1)


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
async def test_an_oci_archive_becomes_an_image(
    client: Client, daemon: FakeDaemon, tmp_path: Path, wrap: Callable[[bytes], bytes]
) -> None:
    """However the archive is compressed, its image is named, kept by labels and unpacked layer upon layer."""
    files = ArchiveFiles(b"one", b"two")
    [image] = await load(ClientStore(client), files.save(tmp_path / "a.tar", wrap), UNPACK)

    assert image.name == "example.org/x:1"
    assert daemon.images["example.org/x:1"].target.digest == files.target["digest"]
    diff_ids = [digest_of(b"one"), digest_of(b"two")]
    assert daemon.snapshots[chain_id(diff_ids)].parent == diff_ids[0]
    assert daemon.labels[files.target["digest"]] == {
        "containerd.io/gc.ref.content.config": files.manifest["config"]["digest"],
        "containerd.io/gc.ref.content.l.0": files.manifest["layers"][0]["digest"],
        "containerd.io/gc.ref.content.l.1": files.manifest["layers"][1]["digest"],
    }
    assert daemon.labels[files.manifest["config"]["digest"]] == {
        "containerd.io/gc.ref.snapshot.overlayfs": chain_id(diff_ids)
    }
    assert daemon.labels[files.manifest["layers"][0]["digest"]] == {"containerd.io/uncompressed": diff_ids[0]}
    assert not daemon.leased and not daemon.ingests


async def test_importing_twice_sends_nothing_twice(client: Client, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Blobs and snapshots that are there already stay; the name is only written anew."""
    path = ArchiveFiles().save(tmp_path / "a.tar")
    await load(ClientStore(client), path, UNPACK)
    daemon.disk = 0

    await load(ClientStore(client), path, UNPACK)

    assert len(daemon.blobs) == 3


async def test_a_docker_archive_becomes_an_image(client: Client, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Of `docker save` the manifest is made up, links between layers are followed, and names get their registry."""
    layer = b"the layer"
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer), digest_of(layer)]},
    }
    link = tarfile.TarInfo("b/layer.tar")
    link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
    manifest = [{"Config": "c.json", "RepoTags": ["busybox:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    path = tmp_path / "a.tar"
    path.write_bytes(
        pack(
            {
                "a/layer.tar": layer,
                "a/VERSION": b"1.0",
                "b/layer.tar": link,
                "c.json": json.dumps(config).encode(),
                "manifest.json": json.dumps(manifest).encode(),
            }
        )
    )

    [image] = await load(ClientStore(client), str(path), UNPACK)

    assert image.name == "docker.io/library/busybox:1"
    assert [chain[:6] for chain in image.chain_ids] == ["sha256"]
    assert json.loads(daemon.blobs[image.target.digest])["layers"][0]["mediaType"].endswith("rootfs.diff.tar")


async def test_only_the_wanted_platform_is_imported(client: Client, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Of an index the manifests of other platforms may be missing; they are named all the same, as by containerd."""
    files = ArchiveFiles()
    other = {"mediaType": files.target["mediaType"], "digest": digest_of(b"absent"), "size": 6}
    other["platform"] = {"os": "linux", "architecture": "arm64"}
    mine = {key: value for key, value in files.target.items() if key != "annotations"}
    files.point_to({"schemaVersion": 2, "manifests": [other, mine]}, f"{KIND}.index.v1+json")
    files.target.pop("platform")

    [image] = await load(ClientStore(client), files.save(tmp_path / "a.tar"), OPTIONS)

    assert daemon.labels[image.target.digest] == {
        "containerd.io/gc.ref.content.m.0": other["digest"],
        "containerd.io/gc.ref.content.m.1": mine["digest"],
    }


@pytest.mark.parametrize(
    ("options", "annotation", "name"),
    [
        (Options(name="mine"), "latest", "mine"),
        (Options(base_name="reg/x"), "latest", "reg/x:latest"),
        (Options(), "quay.io/a/b:1", "quay.io/a/b:1"),
        (Options(base_name="reg/x"), "", "reg/x@sha256:"),
    ],
)
async def test_names(client: Client, tmp_path: Path, options: Options, annotation: str, name: str) -> None:
    """A name that is asked for wins; a bare tag gets a base, a full name does not, no name is the digest."""
    files = ArchiveFiles()
    files.target["annotations"] = {"org.opencontainers.image.ref.name": annotation} if annotation else {}

    [image] = await load(
        ClientStore(client), files.save(tmp_path / "a.tar"), replace(options, platform=AMD64, unpack=False)
    )

    assert image.name == name or (name.endswith(":") and image.name.startswith(name))


def spoil_layer(files: ArchiveFiles) -> None:
    files.files["blobs/" + files.manifest["layers"][0]["digest"].replace(":", "/")] = b"something else"


def spoil_size(files: ArchiveFiles) -> None:
    files.manifest["layers"][0]["size"] += 1
    files.point_to(files.manifest)


def lose_layer(files: ArchiveFiles) -> None:
    del files.files["blobs/" + files.manifest["layers"][0]["digest"].replace(":", "/")]


def add_layers(files: ArchiveFiles) -> None:
    files.manifest["layers"] *= 10_000
    files.point_to(files.manifest)


def change_target(**fields: object) -> Spoil:
    return lambda files: files.target.update(fields)


def change_manifest(**fields: object) -> Spoil:
    return lambda files: files.point_to({**files.manifest, **fields})


def document(name: str, data: bytes) -> Spoil:
    return lambda files: files.files.update({name: data})


def nest(files: ArchiveFiles) -> None:
    inner = dict(files.target)
    for _ in range(6):
        inner = files.blob(json.dumps({"schemaVersion": 2, "manifests": [inner]}).encode(), f"{KIND}.index.v1+json")
    files.index["manifests"] = [inner]


def lie_about_diff_id(files: ArchiveFiles) -> None:
    config = json.loads(files.files["blobs/" + files.manifest["config"]["digest"].replace(":", "/")])
    config["rootfs"]["diff_ids"] = [digest_of(b"not that")]
    files.manifest["config"] = files.blob(json.dumps(config).encode(), f"{KIND}.config.v1+json")
    files.point_to(files.manifest)


BAD: dict[str, tuple[Spoil, str]] = {
    "a layer with another digest": (spoil_layer, "blobs/sha256/.* is refused"),
    "a layer with another size": (spoil_size, "has .* bytes, its descriptor says"),
    "a layer that is missing": (lose_layer, "is missing"),
    "10,000 layers": (add_layers, "has 10000 layers, the limit is 1000"),
    "a manifest that is not JSON": (lambda files: files.point_to(b"\xff{"), "is not JSON"),
    "a manifest nested 100,000 deep": (lambda files: files.point_to(b"[" * 100_000), "nested too deeply|is not JSON"),
    "a manifest that is a list": (lambda files: files.point_to([]), "not an object"),
    "a manifest that is an index too": (change_manifest(manifests=[]), "both a manifest and an index"),
    "a manifest that calls itself an index": (change_manifest(mediaType=f"{KIND}.index.v1+json"), "does not fit"),
    "a manifest of version 1": (change_manifest(schemaVersion=1), "schemaVersion 1"),
    "a config for fewer layers": (change_manifest(layers=[]), "0 layers of a file system, but its config 1"),
    "a diff ID that is not the layer's": (lie_about_diff_id, "unpacks to"),
    "a descriptor of 100 MB": (change_target(size=100 << 20), "the limit is"),
    "a descriptor with a negative size": (change_target(size=-1), "no valid size"),
    "a descriptor with a huge size": (change_target(size=10**30), "no valid size"),
    "a descriptor without digest": (change_target(digest="sha256:../../etc"), "no valid digest"),
    "a descriptor of an unknown type": (change_target(mediaType="text/plain"), "neither a manifest nor an index"),
    "indexes in indexes": (nest, "nested indexes"),
    "an index that is not JSON": (document("index.json", b"{"), "index.json is not JSON"),
    "an index of 21 MB": (document("index.json", b" " * (21 << 20)), "index.json has .* the limit is"),
    "an index without manifests": (document("index.json", b'{"schemaVersion":2}'), "names no manifest"),
    "manifests that are not a list": (
        document("index.json", b'{"schemaVersion":2,"manifests":7}'),
        "manifests is not a list",
    ),
    "a document of a million values": (document("index.json", b"[" + b"7," * 1_000_000 + b"7]"), "500000 values"),
    "an unknown layout": (document("oci-layout", b'{"imageLayoutVersion":"9"}'), "layout version 9"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_archive_is_refused_and_leaves_nothing(
    client: Client, daemon: FakeDaemon, tmp_path: Path, case: str
) -> None:
    """Whatever is wrong, the error names the archive, and no image, blob, ingest, snapshot or lease stays."""
    spoil, message = BAD[case]
    files = ArchiveFiles()
    spoil(files)
    path = files.save(tmp_path / "bad.tar")

    with pytest.raises(Error, match=message) as caught:
        await load(ClientStore(client), path, UNPACK)

    assert "bad.tar" in str(caught.value) or "image sha256" in str(caught.value)
    assert "\n" not in str(caught.value)
    left = (daemon.images, daemon.blobs, daemon.ingests, daemon.snapshots, daemon.leased)
    assert not any(left)


def extended(size: int) -> bytes:
    """Return a header that claims a long name of that size."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, size
    return entry.tobuf() + b"\0" * 1024


def sparse() -> bytes:
    entry = tarfile.TarInfo("x")
    entry.type = tarfile.GNUTYPE_SPARSE
    return entry.tobuf() + b"\0" * 1024


DAMAGED = {
    "empty": (b"", "no tar file"),
    "no tar": (b"hello" * 1000, "no tar file"),
    "a truncated entry": (pack({"oci-layout": b"x" * 5000})[:2000], "damaged"),
    "a truncated gzip": (gzip.compress(pack({"a": bytes(range(256)) * 40}))[:200], "damaged"),
    "broken gzip": (b"\x1f\x8b" + b"\xff" * 100, "damaged"),
    "broken zstd": (b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "damaged"),
    "xz": (b"\xfd7zXZ\x00" + b"\0" * 100, "xz or bzip2"),
    "a name of 4 GB": (extended((1 << 32) + 1), "an extended header has"),
    "a sparse file": (sparse(), "is sparse"),
    "a tar without image": (pack({"hello": b"world"}), "neither oci-layout nor manifest.json"),
    "docker: not JSON": (pack({"manifest.json": b"["}), "manifest.json is not JSON"),
    "docker: an object": (pack({"manifest.json": b"{}"}), "not a list of images"),
    "docker: itself": (pack({"manifest.json": b'[{"Config":"manifest.json"}]'}), "does not have as a blob"),
    "docker: no such layer": (
        pack({"c": b"{}", "manifest.json": b'[{"Config":"c","Layers":["../../etc/passwd"]}]'}),
        "does not have as a blob",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
async def test_a_damaged_archive_is_refused_and_leaves_nothing(
    client: Client, daemon: FakeDaemon, tmp_path: Path, case: str
) -> None:
    """The same for archives that are none, or stop in the middle."""
    data, message = DAMAGED[case]
    path = tmp_path / "bad.tar"
    path.write_bytes(data)

    with pytest.raises(Error, match=message) as caught:
        await load(ClientStore(client), str(path), OPTIONS)

    assert "bad.tar" in str(caught.value)
    assert not any((daemon.images, daemon.blobs, daemon.ingests, daemon.leased))


async def test_an_image_for_another_machine_is_refused(client: Client, daemon: FakeDaemon, tmp_path: Path) -> None:
    """The error says which platform was looked for, and how to get it all the same."""
    files = ArchiveFiles(platform={"os": "linux", "architecture": "arm64"})

    with pytest.raises(Error, match=r"nothing for linux/amd64.*try --all-platforms"):
        await load(ClientStore(client), files.save(tmp_path / "a.tar"), OPTIONS)

    assert not any((daemon.images, daemon.blobs, daemon.leased))


async def test_links_in_a_circle_are_refused(client: Client, daemon: FakeDaemon, tmp_path: Path) -> None:
    """A layer that is a link to a link to itself is not followed for ever."""
    first, second = tarfile.TarInfo("a"), tarfile.TarInfo("b")
    for entry, to in ((first, "b"), (second, "a")):
        entry.type, entry.linkname = tarfile.SYMTYPE, to
    path = tmp_path / "bad.tar"
    path.write_bytes(pack({"a": first, "b": second, "manifest.json": b'[{"Config":"a"}]'}))

    with pytest.raises(InvalidArgument, match="leads nowhere"):
        await load(ClientStore(client), str(path), OPTIONS)


async def test_a_full_disk_leaves_nothing(client: Client, daemon: FakeDaemon, tmp_path: Path) -> None:
    """An import that the daemon cannot finish is undone, and says why."""
    daemon.disk = 100

    with pytest.raises(Error, match="disk is full"):
        await load(ClientStore(client), ArchiveFiles().save(tmp_path / "a.tar"), OPTIONS)

    assert not any((daemon.images, daemon.blobs, daemon.ingests, daemon.leased))


async def test_a_big_blob_travels_in_chunks(client: Client, daemon: FakeDaemon, tmp_path: Path) -> None:
    """A layer larger than a message arrives whole, and is not sent again when it is there."""
    import random

    layer = random.Random(1).randbytes(5 << 20)
    path = ArchiveFiles(layer).save(tmp_path / "a.tar")

    await load(ClientStore(client), path, UNPACK)

    assert digest_of(layer) in daemon.snapshots


async def test_what_is_named_ten_thousand_times_is_visited_once(
    client: Client, daemon: FakeDaemon, tmp_path: Path, archive_files: type[ArchiveFiles]
) -> None:
    """Indexes that name the next one over and over would otherwise be visited 10,000 to the power of three times."""
    files = archive_files()
    target = {key: files.target[key] for key in ("mediaType", "digest", "size")}
    for _ in range(3):
        index = {"schemaVersion": 2, "mediaType": f"{KIND}.index.v1+json", "manifests": [target] * 10_000}
        target = files.blob(json.dumps(index).encode(), f"{KIND}.index.v1+json")
    files.target.update(target)

    [image] = await load(ClientStore(client), files.save(tmp_path / "a.tar"), UNPACK)

    assert image.target.digest == target["digest"]
    assert len(image.chain_ids) == 1
    assert list(daemon.labels[target["digest"]]) == ["containerd.io/gc.ref.content.0"]
