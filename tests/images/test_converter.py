"""Converting: layers change their form and nothing else, and what is above them fits."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from client.conftest import KIND, ArchiveFiles, FakeDaemon, Json, digest_of
from images.archives import Sender, contents, saved, several

from windlass.contracts.values import Platform
from windlass.errors import Error, FailedPrecondition, InvalidArgument, NotFound
from windlass_client.store import ClientStore
from windlass_images import importer
from windlass_images.converter import Converted, Options, convert
from windlass_images.estargz import footer
from windlass_images.imagetree import resolve
from windlass_images.layers import Form
from windlass_images.unpack import ignore, unpack

EVERYTHING = importer.Options(platform=None, unpack=False)
NAME = "example.org/x:1"


def layer_of(**more: bytes) -> bytes:
    """Return a tar with an entry of each kind."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.mtime = kind, len(data), 1_600_000_000
            for key, value in fields.items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(data))

        add("bin", tarfile.DIRTYPE, mode=0o755, uid=1, gid=2)
        add("bin/sh", data=b"#!" * 1000, mode=0o755, uname="root", gname="wheel")
        add("bin/bash", tarfile.SYMTYPE, linkname="sh")
        add("bin/dash", tarfile.LNKTYPE, linkname="bin/sh")
        add("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3)
        add("dev/disk", tarfile.BLKTYPE, devmajor=8, devminor=1)
        add("run/pipe", tarfile.FIFOTYPE)
        add("empty")
        add("large", data=bytes(range(256)) * (40 << 10))
        add("lang/" + "x" * 200, data=b"long", pax_headers={"SCHILY.xattr.user.a": "b\udcff"})
        for name, data in more.items():
            add(name, data=data)
    return out.getvalue()


async def put(store: ClientStore, files: ArchiveFiles, tmp_path: Path) -> None:
    await importer.load(store, Sender(saved(files, tmp_path)), EVERYTHING)


def document(daemon: FakeDaemon, digest: str) -> Json:
    found: Json = json.loads(daemon.blobs[digest])
    return found


def plain_of(data: bytes) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if data.startswith(b"\x28\xb5") else data


FORMS = {Form.PLAIN: ("", b"one"), Form.ZSTD: ("+zstd", b"\x28\xb5\x2f\xfd"), Form.GZIP: ("+gzip", b"\x1f\x8b")}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", FORMS)
async def test_from_each_form_to_each(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path, source: Form, form: Form
) -> None:
    """Layers stay what they unpack to, and so the config is the same blob; there and back are the same bytes."""
    files = ArchiveFiles(b"one", b"one more")
    await put(store, files, tmp_path)
    await convert(store, NAME, "source", Options(source))

    made = await convert(store, "source", "new", Options(form))

    manifest = document(daemon, made.target.digest)
    suffix, magic = FORMS[form]
    assert [layer["mediaType"] for layer in manifest["layers"]] == [f"{KIND}.layer.v1.tar{suffix}"] * 2
    blobs = [daemon.blobs[layer["digest"]] for layer in manifest["layers"]]
    assert [plain_of(blob) for blob in blobs] == [b"one", b"one more"]
    assert all(blob.startswith(magic) for blob in blobs)
    assert [layer["size"] for layer in manifest["layers"]] == list(map(len, blobs))
    assert manifest["config"] == files.manifest["config"]
    assert daemon.labels[made.target.digest] == {
        "containerd.io/gc.ref.content.config": manifest["config"]["digest"],
        "containerd.io/gc.ref.content.l.0": manifest["layers"][0]["digest"],
        "containerd.io/gc.ref.content.l.1": manifest["layers"][1]["digest"],
    }
    if form is not Form.GZIP:
        assert daemon.labels[manifest["layers"][0]["digest"]]["containerd.io/uncompressed"] == digest_of(b"one")
    assert bool(made.layers) is (source is not form)
    again = await convert(store, "new", "again", Options(form))
    assert again.target == made.target and not again.layers
    assert not daemon.leased and not daemon.ingests


SKIPPABLE = b"\x50\x2a\x4d\x18\4\0\0\0size"


@pytest.mark.parametrize("data", [zstandard.compress(b"one"), SKIPPABLE + zstandard.compress(b"one"), b"one"])
async def test_a_layer_that_is_not_what_it_is_called(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path, data: bytes
) -> None:
    """Its first bytes say how it is packed, a frame that pzstd puts in front too; what comes of it is what it says."""
    files = replace_layer(ArchiveFiles(b"one"), data)
    await put(store, files, tmp_path)

    made = await convert(store, NAME, "new", Options(Form.GZIP))

    [layer] = document(daemon, made.target.digest)["layers"]
    assert layer["mediaType"] == f"{KIND}.layer.v1.tar+gzip"
    assert gzip.decompress(daemon.blobs[layer["digest"]]) == b"one"


async def test_what_lies_beside_the_layers_stays(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """A document has no diff ID, and is named by the new manifest as it was by the old."""
    files = ArchiveFiles(b"one", b"two")
    licence = files.blob(b"# Licence", "text/markdown")
    first, second = files.manifest["layers"]
    files.point_to({**files.manifest, "layers": [first, licence, second]})
    await put(store, files, tmp_path)

    made = await convert(store, NAME, "new", Options(Form.ZSTD))

    layers = document(daemon, made.target.digest)["layers"]
    assert layers[1] == licence
    assert [plain_of(daemon.blobs[layers[number]["digest"]]) for number in (0, 2)] == [b"one", b"two"]
    assert daemon.labels[made.target.digest]["containerd.io/gc.ref.content.0"] == licence["digest"]


async def test_an_artifact_cannot_be_converted(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """It has no layers of a file system, and the message says so."""
    files = replace_layer(ArchiveFiles(), b"\0asm", "application/wasm")
    await put(store, files, tmp_path)

    with pytest.raises(FailedPrecondition, match="is an artifact, not an image"):
        await convert(store, NAME, "new", Options(Form.ZSTD))


async def test_docker_becomes_oci(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Media types are OCI's, and what nobody asked about stays in the documents."""
    files = ArchiveFiles(b"one")
    docker = "application/vnd.docker"
    files.manifest["config"]["mediaType"] = f"{docker}.container.image.v1+json"
    files.manifest["layers"][0]["mediaType"] = f"{docker}.image.rootfs.diff.tar.gzip"
    files.manifest |= {"mediaType": f"{docker}.distribution.manifest.v2+json", "annotations": {"a": "b"}}
    files.point_to(files.manifest, files.manifest["mediaType"])
    await put(store, files, tmp_path)

    made = await convert(store, NAME, "new", Options(Form.ZSTD))

    manifest = document(daemon, made.target.digest)
    assert made.target.media_type == manifest["mediaType"] == f"{KIND}.manifest.v1+json"
    assert manifest["config"]["mediaType"] == f"{KIND}.config.v1+json"
    assert manifest["layers"][0]["mediaType"] == f"{KIND}.layer.v1.tar+zstd"
    assert manifest["annotations"] == {"a": "b"}


async def test_all_platforms_or_some(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """The new index has what was asked for; attestations of the old image do not come along."""
    await put(store, several("amd64", "arm64", "386", artifact=True), tmp_path)

    everything = await convert(store, NAME, "all", Options(Form.ZSTD))
    some = await convert(store, NAME, "some", Options(Form.ZSTD, (Platform("linux", "arm64"),)))

    def architectures(made: Converted) -> list[str]:
        return [entry["platform"]["architecture"] for entry in document(daemon, made.target.digest)["manifests"]]

    assert architectures(everything) == ["amd64", "arm64", "386"]
    assert architectures(some) == ["arm64"]
    assert list(daemon.labels[some.target.digest]) == ["containerd.io/gc.ref.content.m.0"]
    with pytest.raises(NotFound, match=f"image {NAME} has nothing for linux/s390x"):
        await convert(store, NAME, "none", Options(Form.ZSTD, Platform("linux", "s390x")))


async def test_a_layer_that_is_named_often_is_converted_once(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """However many manifests share it."""
    files = ArchiveFiles(b"one", b"one")
    await put(store, files, tmp_path)
    seen = []

    await convert(store, NAME, "new", Options(Form.PLAIN), lambda verb, what, done, total: seen.append(what))

    assert seen == [files.manifest["layers"][0]["digest"]]


def offset_in(blob: bytes) -> int:
    """Return where a footer says that the table begins, reading it as the format is documented."""
    end = blob[-51:]
    assert end[:4] == b"\x1f\x8b\x08\x04" and end[10:12] == (26).to_bytes(2, "little")
    assert end[12:16] == b"SG\x16\x00" and end[32:38] == b"STARGZ"
    assert gzip.decompress(end) == b""
    return int(end[16:32], 16)


def member_at(blob: bytes, offset: int) -> bytes:
    return zlib.decompressobj(31).decompress(blob[offset:])


def table_of(blob: bytes) -> tuple[Json, bytes]:
    """Return the table of an eStargz blob and its bytes."""
    with tarfile.open(fileobj=io.BytesIO(member_at(blob, offset_in(blob)))) as tar:
        [entry] = tar.getmembers()
        assert entry.name == "stargz.index.json"
        data = contents(tar, entry)
    return json.loads(data), data


async def test_estargz_is_what_its_format_says(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Every file is found where the table says, with the digest that it says; and gzip and tar read it as before."""
    files = ArchiveFiles(layer_of())
    await put(store, files, tmp_path)

    made = await convert(store, NAME, "new", Options(Form.ESTARGZ))

    manifest = document(daemon, made.target.digest)
    [layer] = manifest["layers"]
    blob = daemon.blobs[layer["digest"]]
    table, raw = table_of(blob)
    entries = {entry["name"]: entry for entry in table["entries"] if entry["type"] != "chunk"}
    plain = gzip.decompress(blob)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar, tarfile.open(fileobj=io.BytesIO(layer_of())) as old:
        now = {entry.name: entry for entry in tar}
        assert list(now) == [".no.prefetch.landmark", *old.getnames(), "stargz.index.json"]
        for entry in old:
            assert now[entry.name].get_info() == entry.get_info()
            if entry.isreg():
                kept = contents(old, entry)
                assert contents(tar, now[entry.name]) == kept
                assert found(blob, table, entry.name) == kept
                if kept:
                    assert entries[entry.name]["digest"] == digest_of(kept)
    assert layer["annotations"] == {
        "containerd.io/snapshot/stargz/toc.digest": digest_of(raw),
        "io.containers.estargz.uncompressed-size": str(len(plain)),
    }
    assert [entry["type"] for entry in table["entries"]].count("chunk") == 2
    assert entries["bin/"] | {"uid": 1, "gid": 2, "mode": 0o755, "modtime": "2020-09-13T12:26:40Z"} == entries["bin/"]
    assert entries["bin/sh"]["userName"] == "root" and entries["bin/sh"]["size"] == 2000
    assert (entries["bin/bash"]["type"], entries["bin/bash"]["linkName"]) == ("symlink", "sh")
    assert (entries["bin/dash"]["type"], entries["bin/dash"]["linkName"]) == ("hardlink", "bin/sh")
    assert (entries["dev/null"]["type"], entries["dev/null"]["devMinor"]) == ("char", 3)
    assert (entries["dev/disk"]["type"], entries["run/pipe"]["type"]) == ("block", "fifo")
    xattrs = entries["lang/" + "x" * 200]["xattrs"]
    assert base64.b64decode(xattrs["user.a"]) == b"b\xff"


def found(blob: bytes, table: Json, name: str) -> bytes:
    """Return a file's contents by the table, member by member."""
    chunks = [entry for entry in table["entries"] if entry["name"] == name and "offset" in entry]
    parts = []
    size = chunks[0].get("size", 0) if chunks else 0
    for chunk in chunks:
        start = chunk.get("chunkOffset", 0)
        part = member_at(blob, chunk["offset"])[: chunk.get("chunkSize") or size - start]
        assert digest_of(part) == chunk["chunkDigest"]
        parts.append(part)
    return b"".join(parts)


async def test_estargz_changes_the_config(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Layers unpack to something else, so that diff IDs, config and snapshots are new; the rest of the config stays."""
    files = ArchiveFiles(layer_of())
    config = json.loads(files.files["blobs/" + files.manifest["config"]["digest"].replace(":", "/")])
    config |= {"history": [{"created_by": "me"}], "container_config": {"Image": "x"}}
    config["config"]["Image"] = "x"
    files.manifest["config"] = files.blob(json.dumps(config).encode(), f"{KIND}.config.v1+json")
    files.point_to(files.manifest)
    await put(store, files, tmp_path)

    made = await convert(store, NAME, "new", Options(Form.ESTARGZ))
    again = await convert(store, "new", "again", Options(Form.ESTARGZ))
    back = await convert(store, "new", "back", Options(Form.PLAIN))

    manifest = document(daemon, made.target.digest)
    new = document(daemon, manifest["config"]["digest"])
    plain = gzip.decompress(daemon.blobs[manifest["layers"][0]["digest"]])
    assert new["rootfs"]["diff_ids"] == [digest_of(plain)]
    assert new["history"] == config["history"] and new["config"] == {"Cmd": ["sh"]}
    assert "container_config" not in new
    assert again.target == made.target
    assert "annotations" not in document(daemon, back.target.digest)["layers"][0]
    leaf = await resolve(store, "new", Platform("linux", "amd64"))
    assert await unpack(store, "overlayfs", leaf, ignore) == digest_of(plain)


async def test_what_was_estargz_is_made_anew(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Without the annotation a layer is converted, and its old table and mark are left out."""
    old = {"stargz.index.json": b"{}", ".prefetch.landmark": b"\x0f", "file": b"kept"}
    await put(store, ArchiveFiles(layer_of(**old)), tmp_path)

    made = await convert(store, NAME, "new", Options(Form.ESTARGZ))

    [layer] = document(daemon, made.target.digest)["layers"]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(daemon.blobs[layer["digest"]]))) as tar:
        assert [tar.getnames().count(name) for name in (*old, ".no.prefetch.landmark")] == [1, 0, 1, 1]


def test_the_footer_is_what_others_write() -> None:
    """Byte for byte, as the document has it."""
    assert len(footer(0)) == 51
    assert offset_in(footer(0xABCDEF)) == 0xABCDEF


def bomb(size: int) -> ArchiveFiles:
    data = gzip.compress(bytes(size))
    files = ArchiveFiles()
    return replace_layer(files, data)


def replace_layer(files: ArchiveFiles, data: bytes, media_type: str = f"{KIND}.layer.v1.tar+gzip") -> ArchiveFiles:
    files.manifest["layers"][0] = files.blob(data, media_type)
    files.point_to(files.manifest)
    return files


BAD: dict[str, tuple[Callable[[], ArchiveFiles], str]] = {
    "another layer": (lambda: replace_layer(ArchiveFiles(b"x"), gzip.compress(b"y")), "unpacks to"),
    "truncated gzip": (lambda: replace_layer(ArchiveFiles(), gzip.compress(b"layer one" * 99)[:-9]), "is damaged"),
    "broken gzip": (lambda: replace_layer(ArchiveFiles(), b"\x1f\x8b" + b"\xff" * 99), "is damaged"),
    "broken zstd": (lambda: replace_layer(ArchiveFiles(), b"\x28\xb5\x2f\xfd" + b"\xff" * 99), "is damaged"),
    "a frame that needs a gigabyte": (
        lambda: replace_layer(ArchiveFiles(), b"\x28\xb5\x2f\xfd\x00" + bytes([20 << 3]) + bytes(99)),
        "needs more memory than the 512 MiB",
    ),
    "xz": (lambda: replace_layer(ArchiveFiles(), b"\xfd7zXZ\x00" + bytes(99)), "xz or bzip2"),
    "encrypted": (
        lambda: replace_layer(ArchiveFiles(), b"x", f"{KIND}.layer.v1.tar+gzip+encrypted"),
        "cannot be converted",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("form", [Form.ZSTD, Form.ESTARGZ])
async def test_a_bad_layer_is_refused(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path, case: str, form: Form
) -> None:
    """One line names image and layer; no new image, blob, ingest or lease stays."""
    make, message = BAD[case]
    await put(store, make(), tmp_path)
    before = (dict(daemon.blobs), set(daemon.images))

    with pytest.raises(Error, match=rf"image {NAME}: layer sha256:.*{message}") as caught:
        await convert(store, NAME, "new", Options(form))

    assert "\n" not in str(caught.value)
    assert (daemon.blobs, set(daemon.images)) == before
    assert not daemon.leased and not daemon.ingests


def sparse() -> bytes:
    entry = tarfile.TarInfo("x")
    entry.type = tarfile.GNUTYPE_SPARSE
    return entry.tobuf() + bytes(1024)


def not_utf8() -> bytes:
    return tarfile.TarInfo("x\udcff").tobuf(tarfile.GNU_FORMAT) + bytes(1024)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (b"no tar" * 999, "no tar file"),
        (layer_of()[:5000], "damaged"),
        (sparse(), "is sparse"),
        (not_utf8(), "is not UTF-8"),
    ],
    ids=["no tar", "truncated", "sparse", "a name that is not UTF-8"],
)
async def test_what_cannot_become_estargz(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path, layer: bytes, message: str
) -> None:
    """What has no place in a table is refused, too."""
    await put(store, ArchiveFiles(layer), tmp_path)

    with pytest.raises(InvalidArgument, match=message):
        await convert(store, NAME, "new", Options(Form.ESTARGZ))

    assert list(daemon.images) == [NAME]


async def test_a_gzip_bomb_ends_at_the_limit(
    store: ClientStore, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that unpacks to more than anybody has is not unpacked to the end."""
    monkeypatch.setattr("windlass_images.layers.PLAIN_LIMIT", 1 << 20)
    await put(store, bomb(3 << 20), tmp_path)

    with pytest.raises(Error, match="unpacks to more than 1048576 bytes"):
        await convert(store, NAME, "new", Options(Form.ZSTD))


async def test_what_is_missing(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> None:
    """The error says what to do; what may not be handed on need not be there."""
    files = ArchiveFiles(b"base", b"own")
    files.manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    files.point_to(files.manifest)
    await put(store, files, tmp_path)
    base, own = (layer["digest"] for layer in files.manifest["layers"])
    del daemon.blobs[base]

    made = await convert(store, NAME, "new", Options(Form.ZSTD))
    del daemon.blobs[own]

    assert document(daemon, made.target.digest)["layers"][0] == files.manifest["layers"][0]
    with pytest.raises(NotFound, match=f"layer {own} is missing; pull it"):
        await convert(store, NAME, "newer", Options(Form.ZSTD))
