"""Small archives as other tools document theirs, each made here: what is in them, and what they should become."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from client.conftest import KIND, digest_of

DOCKER = "application/vnd.docker"
Files = Mapping[str, bytes | str]
"""Contents by name; a string is where a symbolic link points to."""


@dataclass(frozen=True)
class Case:
    """An archive, the names that it gives, and the layers of what a linux/amd64 machine unpacks of it."""

    data: bytes
    names: Sequence[str]
    layers: Sequence[bytes] = ()
    wrong: Sequence[str] = field(default_factory=list)
    """Names of what is for another platform."""


def plain_tar(name: str, data: bytes = b"") -> bytes:
    """Return a layer with one file."""
    return packed({name: data})


def packed(files: Files, before: str = "", directories: bool = False) -> bytes:
    """Return a tar; ``directories`` have entries of their own."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        made: set[str] = set()
        for name, data in files.items():
            parent = name.rpartition("/")[0]
            if directories and parent and parent not in made:
                made.add(parent)
                entry = tarfile.TarInfo(before + parent)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            entry = tarfile.TarInfo(before + name)
            if isinstance(data, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, data
                tar.addfile(entry)
            else:
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def config(layers: Sequence[bytes], **more: object) -> bytes:
    """Return an image config."""
    rootfs = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
    return json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs, **more}).encode()


def saved(*images: tuple[str, Sequence[str], Sequence[str]]) -> bytes:
    """Return docker's manifest.json."""
    return json.dumps([{"Config": name, "RepoTags": tags, "Layers": layers} for name, tags, layers in images]).encode()


class Layout:
    """An OCI layout as it grows."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: list[dict[str, object]] = []

    def blob(self, data: bytes, media_type: str, **more: object) -> dict[str, object]:
        self.blobs["blobs/" + digest_of(data).replace(":", "/")] = data
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}

    def image(self, layer: bytes, own: Mapping[str, object] | None = None, **more: object) -> dict[str, object]:
        """Add an image of one gzip layer and return its descriptor; ``own`` is for its manifest."""
        document = {
            "schemaVersion": 2,
            "config": self.blob(config([layer], **more), f"{KIND}.config.v1+json"),
            "layers": [self.blob(gzip.compress(layer, mtime=0), f"{KIND}.layer.v1.tar+gzip")],
            **(own or {}),
        }
        return self.blob(json.dumps(document).encode(), f"{KIND}.manifest.v1+json")

    def files(self) -> dict[str, bytes]:
        index = {"schemaVersion": 2, "manifests": self.manifests}
        documents = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
        return {**documents, **self.blobs}


def named(name: str) -> dict[str, str]:
    return {"org.opencontainers.image.ref.name": name}


ONE, TWO = plain_tar("one", b"1"), plain_tar("two", b"2")


def ggcr(tags: Sequence[str], **more: bytes) -> bytes:
    """The tarball of go-containerregistry, which ko, kaniko, crane and rules_docker write: digests as names."""
    first, second, document = gzip.compress(ONE, mtime=0), gzip.compress(TWO, mtime=0), config([ONE, TWO])
    names = [f"{digest_of(layer)[7:]}.tar.gz" for layer in (first, second)]
    files = {digest_of(document): document, names[0]: first, names[1]: second}
    return packed({**files, "manifest.json": saved((digest_of(document), tags, names)), **more})


def ko() -> Case:
    """`ko build --tarball`."""
    return Case(ggcr(["ko.local/app-0123:latest"]), ["ko.local/app-0123:latest"], [ONE, TWO])


def kaniko() -> Case:
    """`--tar-path`: one image, as many tags as destinations."""
    tags = ["reg.example/a/app:1", "reg.example:5000/app:2"]
    return Case(ggcr(tags), tags, [ONE, TWO])


def rules_docker() -> Case:
    """`bazel run //:image`, with a name for each layer and a config that says nothing of a platform's variant."""
    document = config([ONE, TWO], variant="")
    files = {
        "config.json": document,
        "000.tar": ONE,
        "001.tar": TWO,
        "manifest.json": saved(("config.json", ["bazel/app:image"], ["000.tar", "001.tar"])),
        "repositories": json.dumps({"bazel/app": {"image": "0"}}).encode(),
    }
    return Case(packed(files), ["docker.io/bazel/app:image"], [ONE, TWO])


def rules_oci() -> Case:
    """`oci_load` of rules_oci: docker's format with the blobs of a layout, and without oci-layout."""
    layer, document = gzip.compress(ONE, mtime=0), config([ONE])
    names = [f"blobs/{digest_of(data).replace(':', '/')}" for data in (document, layer)]
    files = {names[0]: document, f"{names[1]}.tar.gz": layer}
    manifest = saved((names[0], ["my/app:latest"], [f"{names[1]}.tar.gz"]))
    return Case(packed({**files, "manifest.json": manifest}), ["docker.io/my/app:latest"], [ONE])


def jib_docker() -> Case:
    """`jib:buildTar`: config.json, layers by digest, gzip."""
    layer = gzip.compress(ONE, mtime=0)
    name = f"{digest_of(layer)[7:]}.tar.gz"
    document = config([ONE], created="1970-01-01T00:00:00Z", history=[{"created_by": "jib-maven-plugin:3.4"}])
    files = {name: layer, "config.json": document, "manifest.json": saved(("config.json", ["me/app"], [name]))}
    return Case(packed(files), ["docker.io/me/app:latest"], [ONE])


def jib_oci() -> Case:
    """The same with `container.format = OCI`: the whole name as the layout's reference."""
    layout = Layout()
    layout.manifests.append({**layout.image(ONE), "annotations": named("docker.io/me/app:1")})
    return Case(packed(layout.files()), ["docker.io/me/app:1"], [ONE])


def nix() -> Case:
    """`dockerTools.buildLayeredImage`: directories and dots in front, all of it gzip."""
    document = config([ONE, TWO], created="1970-01-01T00:00:01+00:00")
    first, second = (f"{digest_of(layer)[7:]}/layer.tar" for layer in (ONE, TWO))
    name = f"{digest_of(document)[7:]}.json"
    files = {first: ONE, second: TWO, name: document, "manifest.json": saved((name, ["hello:abc"], [first, second]))}
    packed_up = packed(files, before="./", directories=True)
    return Case(gzip.compress(packed_up), ["docker.io/library/hello:abc"], [ONE, TWO])


def buildah_docker() -> Case:
    """`buildah push docker-archive:`: layers once, and links to them from where docker once had them."""
    document = config([ONE])
    layer, old = f"{digest_of(ONE)[7:]}.tar", "0" * 64
    files: dict[str, bytes | str] = {
        layer: ONE,
        f"{old}/VERSION": b"1.0",
        f"{old}/json": b'{"id":"0"}',
        f"{old}/layer.tar": f"../{layer}",
        f"{digest_of(document)[7:]}.json": document,
        "manifest.json": saved((f"{digest_of(document)[7:]}.json", ["localhost/app:1"], [layer])),
        "repositories": b"{}",
    }
    return Case(packed(files), ["localhost/app:1"], [ONE])


def buildah_list() -> Case:
    """`buildah manifest push --all oci-archive:`: an index without platforms' variants, its own media type left out."""
    layout = Layout()
    children = [
        {**layout.image(layer, architecture=name), "platform": {"architecture": name, "os": "linux"}}
        for name, layer in (("arm64", TWO), ("amd64", ONE))
    ]
    index = layout.blob(json.dumps({"schemaVersion": 2, "manifests": children}).encode(), f"{KIND}.index.v1+json")
    layout.manifests.append({**index, "annotations": named("docker.io/me/list:1")})
    return Case(packed(layout.files()), ["docker.io/me/list:1"], [ONE])


def apko() -> Case:
    """`apko build`: images of all architectures in docker's format, an index beside them, no oci-layout."""
    images: list[tuple[str, Sequence[str], Sequence[str]]] = []
    files: dict[str, bytes] = {}
    for name, layer in (("amd64", ONE), ("arm64", TWO)):
        document, blob = config([layer], architecture=name), gzip.compress(layer, mtime=0)
        part = f"{digest_of(blob)[7:]}.tar.gz"
        files |= {digest_of(document): document, part: blob}
        images.append((digest_of(document), [f"app:test-{name}"], [part]))
    index = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    data = packed({**files, "manifest.json": saved(*images), "index.json": index})
    return Case(gzip.compress(data), ["docker.io/library/app:test-amd64"], [ONE], ["docker.io/library/app:test-arm64"])


def umoci() -> Case:
    """`umoci repack` in a layout that skopeo began: bare tags, and annotations of its own."""
    layout = Layout()
    own = {"mediaType": f"{KIND}.manifest.v1+json", "annotations": {"org.opensuse.reference": "x"}}
    layout.manifests.append({**layout.image(ONE, own), "annotations": named("42.1")})
    return Case(packed(layout.files(), directories=True), ["example.org/base:42.1"], [ONE])


def skopeo() -> Case:
    """`skopeo copy docker://… oci-archive:`: docker's media types in an OCI layout, as they were pushed."""
    layout = Layout()
    document = {
        "schemaVersion": 2,
        "mediaType": f"{DOCKER}.distribution.manifest.v2+json",
        "config": layout.blob(config([ONE]), f"{DOCKER}.container.image.v1+json"),
        "layers": [layout.blob(gzip.compress(ONE, mtime=0), f"{DOCKER}.image.rootfs.diff.tar.gzip")],
    }
    manifest = layout.blob(json.dumps(document).encode(), f"{DOCKER}.distribution.manifest.v2+json")
    layout.manifests.append({**manifest, "annotations": named("1")})
    return Case(packed(layout.files()), ["example.org/base:1"], [ONE])


def buildkit() -> Case:
    """`buildx build --provenance`: an index with the image, and what was said about it for an unknown platform."""
    layout = Layout()
    image = {**layout.image(ONE), "platform": {"architecture": "amd64", "os": "linux"}}
    statement = layout.blob(b"{}", "application/vnd.in-toto+json", annotations={"in-toto.io/predicate-type": "x"})
    about = {
        "schemaVersion": 2,
        "config": layout.blob(config([]).replace(b"amd64", b"unknown"), f"{KIND}.config.v1+json"),
        "layers": [statement],
    }
    told = layout.blob(json.dumps(about).encode(), f"{KIND}.manifest.v1+json")
    unknown = {"platform": {"architecture": "unknown", "os": "unknown"}}
    index = {"schemaVersion": 2, "mediaType": f"{KIND}.index.v1+json", "manifests": [image, {**told, **unknown}]}
    target = layout.blob(json.dumps(index).encode(), f"{KIND}.index.v1+json")
    layout.manifests.append({**target, "annotations": {"io.containerd.image.name": "docker.io/me/app:2", **named("2")}})
    return Case(packed(layout.files()), ["docker.io/me/app:2"], [ONE])


def wasm() -> Case:
    """`wkg oci push` and wasm-to-oci: an artifact, a component as its one layer."""
    layout = Layout()
    document = {
        "schemaVersion": 2,
        "mediaType": f"{KIND}.manifest.v1+json",
        "config": layout.blob(b'{"os":"wasip2","architecture":"wasm"}', "application/vnd.wasm.config.v0+json"),
        "layers": [layout.blob(b"\0asm\x0d\0\1\0", "application/wasm")],
    }
    manifest = layout.blob(json.dumps(document).encode(), f"{KIND}.manifest.v1+json")
    layout.manifests.append({**manifest, "annotations": named("ghcr.io/me/component:1")})
    return Case(packed(layout.files()), ["ghcr.io/me/component:1"])


def cosign() -> Case:
    """A signature beside its image: an image's config, and a layer that is no file system."""
    layout = Layout()
    layer = layout.blob(b"{}", "application/vnd.dev.cosign.simplesigning.v1+json")
    document = {
        "schemaVersion": 2,
        "mediaType": f"{KIND}.manifest.v1+json",
        "config": layout.blob(config([b"{}"]).replace(b"amd64", b"").replace(b"linux", b""), f"{KIND}.config.v1+json"),
        "layers": [layer],
    }
    manifest = layout.blob(json.dumps(document).encode(), f"{KIND}.manifest.v1+json")
    layout.manifests.append({**layout.image(ONE), "annotations": named("reg.example/app:1")})
    layout.manifests.append({**manifest, "annotations": named("reg.example/app:sha256-0.sig")})
    return Case(packed(layout.files()), ["reg.example/app:1", "reg.example/app:sha256-0.sig"], [ONE])


CASES = (
    ko, kaniko, rules_docker, rules_oci, jib_docker, jib_oci, nix, buildah_docker, buildah_list, apko, umoci, skopeo,
    buildkit, wasm, cosign,
)  # fmt: skip
