"""Archives of `docker save`: a manifest.json that names a config and layers by file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from windlass.errors import InvalidArgument, OutOfRange
from windlass.values import Descriptor
from windlass_images.compression import GZIP, ZSTD
from windlass_images.layers import Form, repack
from windlass_images.layouts import write_document
from windlass_images.manifests import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    LAYER,
    MANIFEST_LIMIT,
    parse_config,
    parse_json,
    to_json,
)
from windlass_images.naming import NAME
from windlass_images.store import Store

LINKS = 20


class Held(Protocol):
    """What an archive held, see `windlass_images.importer.Blobs`."""

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
        images.append(Saved(blob(entry.get("Config")), tuple(map(blob, layers)), tuple(map(familiar, tags))))
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


def familiar(tag: str) -> str:
    """Return a tag of docker's with its registry: ``busybox:1`` is ``docker.io/library/busybox:1``."""
    first, slash, _ = tag.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return tag
    return f"docker.io/{tag}" if slash else f"docker.io/library/{tag}"


async def synthesize_all(store: Store, blobs: Held, compress: bool, where: str) -> list[Descriptor]:
    """Write the manifests that an archive lacks; return a descriptor for each tag, one for an image without any."""
    targets = []
    for image in parse(blobs.documents["manifest.json"], blobs.files, blobs.links, where):
        target = await _synthesize(store, image, blobs.sizes, compress, where)
        targets += [replace(target, annotations={NAME: tag}) for tag in image.tags] or [target]
    return targets


async def _synthesize(store: Store, image: Saved, sizes: dict[str, int], compress: bool, where: str) -> Descriptor:
    if sizes[image.config] > MANIFEST_LIMIT:
        raise OutOfRange(f"{where}: config has {sizes[image.config]} bytes, the limit is {MANIFEST_LIMIT}")
    data = await store.content.read(image.config, MANIFEST_LIMIT)
    config = parse_config(data, f"{where}: config {image.config}")
    layers = [await _layer(store, digest, sizes, compress, where) for digest in image.layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG, "digest": image.config, "size": sizes[image.config]},
        "layers": [to_json(layer, {}) for layer in layers],
    }
    target = await write_document(store, json.dumps(manifest, indent=3).encode(), DOCKER_MANIFEST)
    sizes[target.digest] = target.size
    return replace(target, platform=config.platform)


async def _layer(store: Store, digest: str, sizes: dict[str, int], compress: bool, where: str) -> Descriptor:
    magic = await store.content.head(digest, 4)
    if magic.startswith(GZIP):
        return Descriptor(f"{DOCKER_LAYER}.gzip", digest, sizes[digest])
    if magic.startswith(ZSTD):
        return Descriptor(f"{LAYER}+zstd", digest, sizes[digest])
    if not compress:
        return Descriptor(DOCKER_LAYER, digest, sizes[digest])
    packed, _ = await repack(store, Descriptor(DOCKER_LAYER, digest, sizes[digest]), Form.GZIP, where)
    sizes[packed.digest] = packed.size
    return replace(packed, media_type=f"{DOCKER_LAYER}.gzip")
