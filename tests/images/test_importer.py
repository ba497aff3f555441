"""Importing from a stream and from a directory, and what the images are called then."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from client.conftest import ArchiveFiles, FakeDaemon, Json, digest_of, pack
from images.archives import Sender, saved, several

from images import tools
from windlass.contracts.transfer import ExtraReference, Unpack
from windlass.contracts.values import Platform
from windlass.errors import AlreadyExists, Cancelled, Error, FailedPrecondition, InvalidArgument, NotFound
from windlass_client.store import ClientStore
from windlass_images import dockersave
from windlass_images.imagetree import resolve
from windlass_images.importer import Options, load
from windlass_images.manifests import chain_id
from windlass_images.upkeep import check

PACKED = Options(unpack=False)
KEEP = "containerd.io/gc.ref.content."
CONFIG = "application/vnd.oci.image.config.v1+json"


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
async def test_a_stream_becomes_an_image(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path, wrap: Callable[[bytes], bytes]
) -> None:
    """However it is compressed and however it is cut; nothing has to be told."""
    files = ArchiveFiles(b"one", b"two")

    [image] = await load(store, Sender(wrap(saved(files, tmp_path)), part=1000), Options())

    assert image.target.digest == files.target["digest"]
    assert image.chain_ids == (chain_id([digest_of(b"one"), digest_of(b"two")]),)
    assert not daemon.leased and not daemon.ingests


def nothing_is_left(daemon: FakeDaemon) -> bool:
    return not any((daemon.images, daemon.blobs, daemon.ingests, daemon.leased))


async def test_a_sender_that_breaks_off(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Its error is the import's, and nothing is left."""
    data = saved(ArchiveFiles(b"one"), tmp_path)

    with pytest.raises(Cancelled, match="the sender has gone"):
        await load(store, Sender(data[:3000], end="breaks"), PACKED)

    assert nothing_is_left(daemon)


@pytest.mark.parametrize("length", [3000, 15_000, 700_000])
async def test_an_import_that_is_cancelled(store: ClientStore, daemon: FakeDaemon, tmp_path: Path, length: int) -> None:
    """While it waits for its sender it can be cancelled, wherever; the thread that reads is not left waiting."""
    data = saved(ArchiveFiles(os.urandom(100), os.urandom(1_000_000)), tmp_path)
    sender = Sender(data[:length], end="hangs")
    importing = asyncio.create_task(load(store, sender, PACKED))
    await sender.waiting.wait()

    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing

    assert nothing_is_left(daemon)
    assert len(asyncio.all_tasks()) < 8


async def test_a_stream_that_is_no_archive(store: ClientStore, daemon: FakeDaemon) -> None:
    """The error says what was read."""
    with pytest.raises(InvalidArgument, match="archive stream is damaged or no tar file"):
        await load(store, Sender(b"<html>" * 1000), PACKED)

    assert nothing_is_left(daemon)


def unpacked(files: ArchiveFiles, path: Path) -> str:
    """Write the files of a layout below a directory."""
    path.mkdir(exist_ok=True)
    files.save(path / "unused.tar")
    for name, data in files.files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return str(path)


async def test_a_directory_becomes_an_image(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """An OCI layout is read as an archive of it is; what else lies there is not looked at."""
    files = ArchiveFiles(b"one")
    (tmp_path / "README").write_text("unrelated")

    [image] = await load(store, unpacked(files, tmp_path), PACKED)

    assert image.target.digest == files.target["digest"]
    assert len(daemon.blobs) == 3


@pytest.mark.parametrize("kind", ["link", "fifo", "nothing"])
async def test_a_bad_directory(store: ClientStore, daemon: FakeDaemon, tmp_path: Path, kind: str) -> None:
    """No link is followed to a document, nobody waits for a pipe, and an empty directory is not an image."""
    path = unpacked(ArchiveFiles(b"one"), tmp_path / "layout") if kind != "nothing" else str(tmp_path)
    index = tmp_path / "layout" / "index.json"
    if kind == "link":
        index.rename(tmp_path / "elsewhere")
        index.symlink_to(tmp_path / "elsewhere")
    if kind == "fifo":
        index.unlink()
        os.mkfifo(index)

    with pytest.raises(InvalidArgument, match=str(tmp_path)):
        await load(store, path, PACKED)

    assert nothing_is_left(daemon)


async def test_a_directory_as_bazel_makes_it(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Its blobs are links to wherever they were built; what else lies beside them does not matter."""
    path = unpacked(ArchiveFiles(b"one"), tmp_path / "layout")
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    for blob in list(blobs.iterdir()):
        blob.rename(tmp_path / blob.name)
        blob.symlink_to(tmp_path / blob.name)
    (blobs / "._nodigest").write_text("")
    (tmp_path / "layout" / "blobs" / ".DS_Store").write_text("")

    await load(store, path, PACKED)

    assert len(daemon.blobs) == 3


ANNOTATED = {"io.containerd.image.name": "docker.io/library/x:1"}
TAGGED = {"org.opencontainers.image.ref.name": "1"}
FULL = {"org.opencontainers.image.ref.name": "quay.io/y:2"}
NONE: dict[str, str] = {}
DIGEST = "@sha256:"


def prefix(name: str, **flags: bool) -> ExtraReference:
    return ExtraReference(name, is_prefix=True, **flags)


@pytest.mark.parametrize(
    ("annotations", "reference", "names"),
    [
        (ANNOTATED, prefix("docker.io/library/x"), ["docker.io/library/x:1"]),
        (ANNOTATED, prefix("docker.io/library"), ["docker.io/library/x:1"]),
        (ANNOTATED, prefix("docker.io/lib"), []),
        (ANNOTATED, prefix("x"), ["docker.io/library/x:1"]),
        (ANNOTATED, prefix("other"), []),
        (ANNOTATED, prefix("other", allow_overwrite=True), ["docker.io/library/x:1"]),
        (TAGGED, prefix("other"), ["other:1"]),
        (FULL, prefix("other"), []),
        (FULL, prefix("other", allow_overwrite=True), ["quay.io/y:2"]),
        (NONE, prefix("other"), []),
        (NONE, prefix("other", add_digest=True), ["whole other@", "other@"]),
        (TAGGED, prefix("other", add_digest=True), ["whole other@", "other:1", "other@"]),
        (TAGGED, prefix("other", add_digest=True, skip_named_digest=True), ["whole other@", "other:1"]),
        (NONE, prefix("other", add_digest=True, skip_named_digest=True), ["whole other@", "other@"]),
        ({"io.containerd.image.name": "1"}, prefix("other"), []),
        (TAGGED, prefix(""), []),
        (TAGGED, ExtraReference("other"), ["whole other"]),
        (TAGGED, ExtraReference("other", add_digest=True), ["whole other@"]),
    ],
)
async def test_names_by_a_transfers_rules(
    store: ClientStore, tmp_path: Path, annotations: dict[str, str], reference: ExtraReference, names: list[str]
) -> None:
    """Prefixes complete tags and pick names; what is no prefix, and what has a digest, names the whole index too."""
    files = ArchiveFiles()
    files.target["annotations"] = annotations
    source = Sender(saved(files, tmp_path))

    images = await load(store, source, Options(unpack=False, references=(reference,)))

    of = {files.target["digest"]: "", digest_of(files.files["index.json"]): "whole "}
    assert [of[image.target.digest] + image.name.split("sha256:")[0] for image in images] == names
    assert all(image.name.endswith(image.target.digest) for image in images if DIGEST in image.name)


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
async def test_the_whole_index_gets_a_name(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path, docker: bool
) -> None:
    """It keeps what it names, and labels of the image are the transfer's."""
    data = docker_archive() if docker else saved(several("amd64", "arm64"), tmp_path)
    options = Options(platform=None, unpack=False, references=(), index_name="all", labels={"a": "b"})

    [image] = await load(store, Sender(data), options)

    manifests = json.loads(daemon.blobs[image.target.digest])["manifests"]
    assert image.name == "all" and dict(daemon.images["all"].labels) == {"a": "b"}
    kept = set(daemon.labels[image.target.digest].values())
    assert kept == {manifest["digest"] for manifest in manifests}


def docker_archive(
    layer: bytes = b"the layer", tags: Iterable[str] = ("busybox:1", "me/x:2"), more: Mapping[str, bytes] | None = None
) -> bytes:
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
    }
    manifest = [{"Config": "c.json", "RepoTags": list(tags), "Layers": ["a/layer.tar"]}]
    files = {"a/layer.tar": layer, "c.json": json.dumps(config).encode()}
    return pack({**files, "manifest.json": json.dumps(manifest).encode(), **(more or {})})


async def test_docker_layers_are_compressed_when_that_is_asked_for(store: ClientStore, daemon: FakeDaemon) -> None:
    """What docker saves plain takes less then, and says what it unpacks to."""
    layer = b"the layer" * 10_000

    first, second = await load(store, Sender(docker_archive(layer)), Options(compress=True))

    assert [first.name, second.name] == ["docker.io/library/busybox:1", "docker.io/me/x:2"]
    [stored] = json.loads(daemon.blobs[first.target.digest])["layers"]
    assert stored["mediaType"].endswith("tar.gzip") and stored["size"] < len(layer)
    assert daemon.labels[stored["digest"]] == {"containerd.io/uncompressed": digest_of(layer)}
    assert digest_of(layer) in daemon.snapshots


async def test_only_the_best_of_what_is_wanted(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """An amd64 machine takes no 386 image where there is one for amd64; it does where there is none."""
    both = several("386", "amd64", name="example.org/both:1")
    [image] = await load(store, Sender(saved(both, tmp_path)), Options())
    assert image.chain_ids == (digest_of(b"layer of amd64"),)

    old = several("386", "arm64", name="example.org/old:1")
    [image] = await load(store, Sender(saved(old, tmp_path)), Options())
    assert image.chain_ids == (digest_of(b"layer of 386"),)


async def test_some_platforms_and_what_of_them_is_unpacked(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Platforms are imported in the order of wishes, unpacked what a transfer says, and everything once."""
    wanted = (Platform("linux", "arm64"), Platform("linux", "amd64"))
    unpacks = (Unpack(Platform("linux", "arm64"), "native"),)
    files = several("amd64", "arm64", "s390x", missing=["s390x"])

    [image] = await load(store, Sender(saved(files, tmp_path)), Options(platform=wanted, unpacks=unpacks))
    [first] = await load(store, Sender(saved(files, tmp_path)), Options(platform=wanted, unpack=False, limit=1))

    assert image.chain_ids == (digest_of(b"layer of arm64"),)
    assert set(daemon.snapshots) == {digest_of(b"layer of arm64")}
    assert first.chain_ids == ()


async def test_what_describes_other_platforms_is_kept_when_asked_for(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Their manifests and configs, where the archive has them; labels name all that is below, in its order."""
    files = several("amd64", "arm64", "s390x", missing=["s390x"])
    index = json.loads(files.files["blobs/sha256/" + files.target["digest"].removeprefix("sha256:")])
    digests = [each["digest"] for each in index["manifests"]]
    only = Options(platform=Platform("linux", "amd64"), unpack=False)

    kept = {f"{KEEP}m.{number}": digest for number, digest in enumerate(digests)}

    [image] = await load(store, Sender(saved(files, tmp_path)), only)
    assert daemon.labels[image.target.digest] == kept
    assert not daemon.labels.get(digests[1])

    [image] = await load(store, Sender(saved(files, tmp_path)), replace(only, all_metadata=True))
    manifest = json.loads(daemon.blobs[digests[1]])
    assert daemon.labels[image.target.digest] == kept
    assert daemon.labels[digests[1]] == {
        f"{KEEP}config": manifest["config"]["digest"],
        f"{KEEP}l.0": manifest["layers"][0]["digest"],
    }


async def test_a_platform_that_is_missing(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """What was asked for has to be there."""
    files = several("amd64", "arm64", missing=["arm64"])

    with pytest.raises(NotFound, match="is missing"):
        await load(store, Sender(saved(files, tmp_path)), Options(platform=None, unpack=False))

    assert nothing_is_left(daemon)


def twice(first: Iterable[tuple[str, bytes]], second: Iterable[tuple[str, bytes]]) -> bytes:
    """Return an archive whose last entries have the same name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (*first, *second):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


async def test_entries_that_are_there_twice(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """The same twice is what some tools write; another under the same name could mean anything."""
    files = ArchiveFiles(b"one")
    saved(files, tmp_path)
    entries = list(files.files.items())

    await load(store, Sender(twice(entries, entries)), PACKED)
    daemon.images.clear()
    daemon.blobs.clear()
    with pytest.raises(AlreadyExists, match=r"archive stream: entry 'index.json' is there twice"):
        await load(store, Sender(twice(entries, [("index.json", b"{}")])), PACKED)
    with pytest.raises(AlreadyExists, match=r"archive stream: entry 'x' is there twice"):
        await load(store, Sender(twice([*entries, ("x", b"1")], [("x", b"2")])), PACKED)

    assert nothing_is_left(daemon)


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../index.json", "blobs/sha256/..", "..", "bl\udcffob", "blobs/sha256/._" + "a" * 64, "._oci-layout"],
)
async def test_names_that_belong_to_nothing(store: ClientStore, daemon: FakeDaemon, tmp_path: Path, name: str) -> None:
    """A name is never a path here: one that leads out, or is not UTF-8, is that of a file which does not matter."""
    files = ArchiveFiles(b"one")
    saved(files, tmp_path)
    entries = list(files.files.items())

    [image] = await load(store, Sender(twice(entries, [(name, b"x")])), PACKED)

    assert image.target.digest == files.target["digest"]
    assert all("/" not in ref.removeprefix("/") or "tar-" in ref for ref in daemon.ingests)


async def test_harmless_names(store: ClientStore, tmp_path: Path) -> None:
    """`tar -C dir .` writes a dot before each; some write a slash."""
    files = ArchiveFiles(b"one")
    saved(files, tmp_path)
    for before in ("./", "/"):
        entries = [(before + name, data) for name, data in files.files.items()]
        [image] = await load(store, Sender(twice(entries, [])), PACKED)
        assert image.target.digest == files.target["digest"]


async def test_a_name_that_cannot_be_shown(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """An image is never called what a terminal would obey."""
    files = ArchiveFiles(b"one", name="example.org/x\x1b[2J:1")

    with pytest.raises(InvalidArgument, match="unusable name"):
        await load(store, Sender(saved(files, tmp_path)), PACKED)

    assert nothing_is_left(daemon)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Config": 7}, "names a file by '7'"),
        ({"Layers": "x"}, "not lists of strings"),
        ({"RepoTags": [7]}, "not lists of strings"),
        ({"Layers": ["nope"]}, "names 'nope', which the archive does not have"),
    ],
)
async def test_a_bad_manifest_of_docker(store: ClientStore, daemon: FakeDaemon, change: Json, message: str) -> None:
    """What is not as docker writes it is refused."""
    entry = {"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["a/layer.tar"], **change}

    with pytest.raises(InvalidArgument, match=f"archive stream: manifest.json .*{message}"):
        await load(store, Sender(docker_archive(more={"manifest.json": json.dumps([entry]).encode()})), PACKED)
    with pytest.raises(InvalidArgument, match="an image that is not an object"):
        await load(store, Sender(docker_archive(more={"manifest.json": b"[7]"})), PACKED)

    assert nothing_is_left(daemon)


@pytest.mark.parametrize(
    ("wrap", "media_type"),
    [
        (gzip.compress, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        (zstandard.compress, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        (
            lambda data: b"\x50\x2a\x4d\x18\0\0\0\0" + zstandard.compress(data),
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
        (bytes, "application/vnd.docker.image.rootfs.diff.tar"),
    ],
)
async def test_layers_of_docker_archives_in_all_forms(
    store: ClientStore, daemon: FakeDaemon, wrap: Callable[[bytes], bytes], media_type: str
) -> None:
    """Some tools compress them; how they begin says whether, and containerd calls every compression gzip."""
    data = docker_archive(b"the layer", tags=["reg.example:5000/x:1"], more={"a/layer.tar": wrap(b"the layer")})

    [image] = await load(store, Sender(data), PACKED)

    assert image.name == "reg.example:5000/x:1"
    assert json.loads(daemon.blobs[image.target.digest])["layers"][0]["mediaType"] == media_type


async def test_one_name_for_several_images(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Nobody could tell which is meant."""
    first, second = ArchiveFiles(b"one"), ArchiveFiles(b"two")
    first.files |= {name: data for name, data in second.files.items() if name.startswith("blobs/")}
    first.index["manifests"].append(second.target)

    with pytest.raises(InvalidArgument, match="archive stream: it has 2 images, so that one --name does not do"):
        await load(store, Sender(saved(first, tmp_path)), Options(name="x", unpack=False))


async def test_a_layout_without_index(store: ClientStore, daemon: FakeDaemon) -> None:
    """Half a layout is none."""
    with pytest.raises(InvalidArgument, match=r"has oci-layout, but no index\.json"):
        await load(store, Sender(pack({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'})), PACKED)
    empty = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": b'{"schemaVersion":2,"manifests":[]}'}
    with pytest.raises(InvalidArgument, match="names no manifest"):
        await load(store, Sender(pack(empty)), PACKED)


@pytest.mark.parametrize("name", ["nope", "", "/proc/self/mem/x"])
async def test_an_archive_that_cannot_be_opened(store: ClientStore, tmp_path: Path, name: str) -> None:
    """The error names it, and says why."""
    with pytest.raises(Error, match=r"archive .* (does not exist|cannot be opened)"):
        await load(store, name if name.startswith("/") else str(tmp_path / "missing" / name), PACKED)


BASE = prefix("example.org/base", allow_overwrite=True)


@pytest.mark.parametrize("make", tools.CASES, ids=[make.__name__ for make in tools.CASES])
async def test_what_other_tools_write(store: ClientStore, daemon: FakeDaemon, make: Callable[[], tools.Case]) -> None:
    """Each as its documentation describes it: named, and what is an image for this machine unpacked."""
    case = make()

    images = await load(store, Sender(case.data), Options(references=(BASE,)))

    assert {image.name for image in images} == set(case.names)
    chains = {chain_id([digest_of(layer) for layer in case.layers])} if case.layers else set()
    assert {chain for image in images for chain in image.chain_ids} == chains
    assert not daemon.leased and not daemon.ingests


async def test_an_artifact_is_stored_and_not_run(store: ClientStore, daemon: FakeDaemon) -> None:
    """Its config and its layers are kept under numbers, as they are no config and no layers of a file system."""
    [image] = await load(store, Sender(tools.wasm().data), Options(references=(BASE,)))

    manifest = json.loads(daemon.blobs[image.target.digest])
    parts = [manifest["config"]["digest"], manifest["layers"][0]["digest"]]
    assert daemon.labels[image.target.digest] == {f"{KEEP}{number}": digest for number, digest in enumerate(parts)}
    assert not daemon.snapshots
    with pytest.raises(FailedPrecondition, match="is an artifact, not an image"):
        await resolve(store, image.name, Platform("linux", "amd64"))


def of_two_kinds(**changes: object) -> ArchiveFiles:
    """Return an image with a document between its two layers."""
    files = ArchiveFiles(b"one", b"two")
    document = files.blob(b"# Licence", "text/markdown")
    first, second = files.manifest["layers"]
    files.point_to({**files.manifest, "layers": [first, document, second], **changes})
    return files


async def test_layers_that_are_no_file_system_lie_beside_those_that_are(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """They have no diff IDs, are not unpacked, and are kept all the same."""
    files = of_two_kinds()

    [image] = await load(store, Sender(saved(files, tmp_path)), Options())

    first, second = (layer["digest"] for layer in files.manifest["layers"])
    assert image.chain_ids == (chain_id([digest_of(b"one"), digest_of(b"two")]),)
    assert daemon.labels[image.target.digest] == {
        f"{KEEP}config": files.manifest["config"]["digest"],
        f"{KEEP}l.0": first,
        f"{KEEP}0": digest_of(b"# Licence"),
        f"{KEEP}l.1": second,
    }


@pytest.mark.parametrize("platform", [{"architecture": "", "os": ""}, {"architecture": "arm64", "os": "linux"}])
async def test_what_an_index_says_of_a_platform_counts(
    store: ClientStore, tmp_path: Path, platform: dict[str, str]
) -> None:
    """The config may say nothing, or something else: who chose by the index gets that, unpacked."""
    files = ArchiveFiles(b"one", platform=platform)
    index = {"schemaVersion": 2, "manifests": [{**files.target, "platform": {"os": "linux", "architecture": "amd64"}}]}
    files.point_to(index, "application/vnd.oci.image.index.v1+json")
    files.target.pop("platform")

    for wanted in (Platform("linux", "amd64"), None):
        [image] = await load(store, Sender(saved(files, tmp_path)), Options(platform=wanted))
        assert image.chain_ids == (digest_of(b"one"),)


@pytest.mark.parametrize("level", [1, 3])
async def test_an_image_for_a_better_processor(
    store: ClientStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    """It is taken where this machine's can run it, and refused elsewhere."""
    monkeypatch.setattr("windlass_images.platforms._level", lambda: level)
    files = several("amd64", platform={"variant": "v3"})

    if level == 1:
        with pytest.raises(NotFound, match="has nothing for linux/amd64"):
            await load(store, Sender(saved(files, tmp_path)), Options())
    else:
        [image] = await load(store, Sender(saved(files, tmp_path)), Options())
        condition = await check(store, await store.images.get(image.name), "overlayfs", Platform("linux", "amd64"))
        assert len(image.chain_ids) == 1
        assert (condition.status, condition.unpacked) == ("complete", True)


async def test_the_one_image_of_an_archive_for_another_machine(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """An archive that says of no platform has no choice: its image is unpacked for whoever emulates that machine."""
    files = ArchiveFiles(b"one", platform={"os": "linux", "architecture": "arm64"})
    files.target.pop("platform")

    [image] = await load(store, Sender(saved(files, tmp_path)), Options())

    assert image.chain_ids == (digest_of(b"one"),)


async def test_some_images_of_an_archive_are_for_another_machine(
    store: ClientStore, caplog: pytest.LogCaptureFixture
) -> None:
    """They are left out with a warning, instead of a name for something that is not there."""
    case = tools.apko()

    images = await load(store, Sender(case.data), Options(references=(BASE,)))

    assert [image.name for image in images] == list(case.names)
    [warning] = caplog.messages
    assert f"1 images are for other platforms and left out, {case.wrong[0]} the first" in warning


async def test_of_one_name_for_two_platforms_the_wanted_is_taken(store: ClientStore, tmp_path: Path) -> None:
    """A flat index.json gives both the same name."""
    first, second = ArchiveFiles(b"one", platform={"os": "linux", "architecture": "arm64"}), ArchiveFiles(b"two")
    second.files |= {name: data for name, data in first.files.items() if name.startswith("blobs/")}
    second.index["manifests"] = [second.target, first.target]

    [image] = await load(store, Sender(saved(second, tmp_path)), PACKED)

    assert image.target.digest == second.target["digest"]


@pytest.mark.parametrize(
    "changes",
    [
        {"mediaType": "application/vnd.docker.distribution.manifest.v2+json"},
        {"mediaType": "application/x-of-somebody"},
        {"mediaType": None, "schemaVersion": None},
        {"annotations": {"a": None}},
    ],
)
async def test_what_a_manifest_may_say_of_itself(store: ClientStore, tmp_path: Path, changes: Json) -> None:
    """Only what makes it an index to somebody else is refused (CVE-2021-41190)."""
    files = ArchiveFiles(b"one")
    files.point_to({**files.manifest, **changes})

    [image] = await load(store, Sender(saved(files, tmp_path)), Options())

    assert len(image.chain_ids) == 1


async def test_a_config_that_cannot_be_executed_can_be_stored(store: ClientStore, tmp_path: Path) -> None:
    """Whoever would run it learns what is wrong with it."""
    files = ArchiveFiles(b"one")
    config = {**files.platform, "config": {"Env": "A=b"}, "rootfs": {"diff_ids": [digest_of(b"one")]}}
    files.point_to({**files.manifest, "config": files.blob(json.dumps(config).encode(), CONFIG)})

    [image] = await load(store, Sender(saved(files, tmp_path)), Options())

    with pytest.raises(InvalidArgument, match="Env is not a list of strings"):
        await resolve(store, image.name, Platform("linux", "amd64"))


async def test_an_index_may_name_anything(store: ClientStore, tmp_path: Path) -> None:
    """What is neither a manifest nor an index is kept if it is there, and not missed if it is not."""
    files = ArchiveFiles(b"one")
    target = {key: files.target[key] for key in ("mediaType", "digest", "size", "platform")}
    gone = {"mediaType": "text/plain", "digest": digest_of(b"gone"), "size": 4}
    index = {"schemaVersion": 2, "manifests": [target, files.blob(b"hello", "text/plain"), gone]}
    files.point_to(index, "application/vnd.oci.image.index.v1+json")
    files.target.pop("platform")

    [image] = await load(store, Sender(saved(files, tmp_path)), Options())

    assert len(image.chain_ids) == 1


async def test_an_archive_that_is_cut_in_its_last_padding(store: ClientStore, tmp_path: Path) -> None:
    """All of its data is there; of one that lacks a byte of it nothing is taken."""
    files = ArchiveFiles(b"one")
    data = saved(files, tmp_path)
    end = len(data.rstrip(b"\0"))  # where the last file ends, which is a document

    for cut in (end, end + 1, -(-end // 512) * 512 - 1):
        await load(store, Sender(data[:cut]), PACKED)
    with pytest.raises(InvalidArgument, match="damaged"):
        await load(store, Sender(data[: end - 1]), PACKED)


async def test_an_archive_that_begins_with_a_skippable_frame(store: ClientStore, tmp_path: Path) -> None:
    """As pzstd writes it (RFC 8878, 3.1.2)."""
    data = b"\x50\x2a\x4d\x18\4\0\0\0size" + zstandard.compress(saved(ArchiveFiles(b"one"), tmp_path))

    assert len(await load(store, Sender(data), PACKED)) == 1


DOCKER_INDEX = (
    b'{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
    b'"digest":"%s","size":%d,"annotations":{"io.containerd.image.name":"docker.io/library/busybox:latest",'
    b'"org.opencontainers.image.ref.name":"latest"},"platform":{"architecture":"amd64","os":"linux",'
    b'"variant":"\\u003cv2\\u0026"}}]}'
)


async def test_a_docker_archive_has_the_digests_that_containerd_gives_it(
    store: ClientStore, daemon: FakeDaemon
) -> None:
    """Manifest and index to the byte: what Go's encoder writes, names in full, the platform in its words."""
    config = {"architecture": "X86_64", "variant": "<v2&", "rootfs": {"diff_ids": [digest_of(b"the layer")]}}
    data = docker_archive(tags=["busybox"], more={"c.json": json.dumps(config).encode()})

    whole, image = await load(store, Sender(data), Options(platform=None, references=(BASE,), index_name="all"))

    manifest = daemon.blobs[image.target.digest]
    assert manifest == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":'
        b'"application/vnd.docker.container.image.v1+json","digest":"%s","size":%d},"layers":[{"mediaType":'
        b'"application/vnd.docker.image.rootfs.diff.tar","digest":"%s","size":9}]}'
        % (
            digest_of(json.dumps(config).encode()).encode(),
            len(json.dumps(config)),
            digest_of(b"the layer").encode(),
        )
    )
    assert daemon.blobs[whole.target.digest] == DOCKER_INDEX % (digest_of(manifest).encode(), len(manifest))


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("a", "docker.io/library/a:latest"),
        ("b/c", "docker.io/b/c:latest"),
        ("index.docker.io/x:2", "docker.io/library/x:2"),
        ("docker.io/y", "docker.io/library/y:latest"),
        ("localhost/z", "localhost/z:latest"),
        ("r.io:5000/q/w", "r.io:5000/q/w:latest"),
        ("a@sha256:0", "docker.io/library/a@sha256:0"),
        ("n:1@sha256:1", "docker.io/library/n@sha256:1"),
    ],
)
def test_names_of_docker_in_full(tag: str, name: str) -> None:
    """As distribution's reference grammar completes them."""
    assert dockersave.full_name(tag) == name
