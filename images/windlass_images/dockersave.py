"""Archives of `docker save`: a manifest.json that names a config and layers by file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from windlass.contracts.values import Descriptor
from windlass.errors import InvalidArgument, OutOfRange
from windlass_images import platforms
from windlass_images.compression import GZIP, is_zstd
from windlass_images.layers import Form, repack
from windlass_images.layouts import compact, write_document
from windlass_images.manifests import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    MANIFEST_LIMIT,
    parse_json,
    parse_rootfs,
    to_json,
)
from windlass_images.naming import NAME, REF_NAME, object_of
from windlass_images.store import Store

LINKS = 20


class Held(Protocol):
    """The contents of an archive, see `windlass_images.importer.Blobs`."""

    sizes: dict[str, int]
    files: dict[str, str]
    links: dict[str, str]
    documents: dict[str, bytes]


@dataclass(frozen=True)
class Saved:
    """One image of an archive, by digests."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def parse(data: bytes, files: Mapping[str, str], links: Mapping[str, str], where: str) -> list[Saved]:
    """Read manifest.json; ``files`` are the blobs that the archive's files became."""
    name = f"{where}: manifest.json"
    document = parse_json(data, name)
    if not isinstance(document, list) or not document:
        raise InvalidArgument(f"{name} is not a list of images")

    def blob(file: object) -> str:
        if not isinstance(file, str):
            raise InvalidArgument(f"{name} names a file by {str(file)[:100]!r}")
        return _follow(file, files, links, name)

    images = []
    for entry in document:
        if not isinstance(entry, dict):
            raise InvalidArgument(f"{name} has an image that is not an object")
        layers, tags = entry.get("Layers") or [], entry.get("RepoTags") or []
        if not isinstance(layers, list) or not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise InvalidArgument(f"{name} has an image whose Layers or RepoTags are not lists of strings")
        images.append(Saved(blob(entry.get("Config")), tuple(map(blob, layers)), tuple(map(full_name, tags))))
    return images


def _follow(file: str, files: Mapping[str, str], links: Mapping[str, str], name: str) -> str:
    at = file
    for _ in range(LINKS):
        if at in files:
            return files[at]
        if at not in links:
            raise InvalidArgument(f"{name} names {file[:200]!r}, which the archive does not have as a blob")
        at = links[at]
    raise InvalidArgument(f"{name} names {file[:200]!r}, which is a link that leads nowhere")


def full_name(tag: str) -> str:
    """Return a name of docker's in full: ``busybox`` is ``docker.io/library/busybox:latest``."""
    host, slash, path = tag.partition("/")
    if not slash or ("." not in host and ":" not in host and host != "localhost" and host == host.lower()):
        host, path = "docker.io", tag
    if host in ("docker.io", "index.docker.io"):
        host, path = "docker.io", path if "/" in path else f"library/{path}"
    name, at, digest = path.partition("@")
    repository, colon, version = name.rpartition(":")
    if at:
        return f"{host}/{repository if colon else name}@{digest}"
    return f"{host}/{name}" if colon and "/" not in version else f"{host}/{name}:latest"


async def synthesize_all(store: Store, blobs: Held, compress: bool, where: str) -> list[Descriptor]:
    """Write the manifests that an archive lacks; return a descriptor for each tag, one for an image without any.

    Each is written as containerd writes it, to the byte: an archive has the same digest wherever it is imported.
    """
    targets = []
    for image in parse(blobs.documents["manifest.json"], blobs.files, blobs.links, where):
        target = await _synthesize(store, image, blobs.sizes, compress, where)
        named = [{NAME: tag, REF_NAME: object_of(tag)} for tag in image.tags]
        targets += [replace(target, annotations=annotations) for annotations in named] or [target]
    return targets


async def _synthesize(store: Store, image: Saved, sizes: dict[str, int], compress: bool, where: str) -> Descriptor:
    if sizes[image.config] > MANIFEST_LIMIT:
        raise OutOfRange(f"{where}: config has {sizes[image.config]} bytes, the limit is {MANIFEST_LIMIT}")
    data = await store.content.read(image.config, MANIFEST_LIMIT)
    config = parse_rootfs(data, f"{where}: config {image.config}")
    layers = [await _layer(store, digest, sizes, compress, where) for digest in image.layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG, "digest": image.config, "size": sizes[image.config]},
        "layers": [to_json(layer, {}) for layer in layers],
    }
    target = await write_document(store, compact(manifest), DOCKER_MANIFEST)
    sizes[target.digest] = target.size
    said = platforms.normal(config.platform)
    return replace(target, platform=said if said.os else replace(said, os="linux"))


async def _layer(store: Store, digest: str, sizes: dict[str, int], compress: bool, where: str) -> Descriptor:
    magic = await store.content.head(digest, 4)
    if magic.startswith(GZIP) or is_zstd(magic):
        # containerd uses this type for zstd too; the differ looks at the first bytes.
        return Descriptor(f"{DOCKER_LAYER}.gzip", digest, sizes[digest])
    if not compress:
        return Descriptor(DOCKER_LAYER, digest, sizes[digest])
    packed, _ = await repack(store, Descriptor(DOCKER_LAYER, digest, sizes[digest]), Form.GZIP, where)
    sizes[packed.digest] = packed.size
    return replace(packed, media_type=f"{DOCKER_LAYER}.gzip")
