"""Archives of `docker save`: a manifest.json that names a config and layers by file."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from windlass.errors import InvalidArgument, OutOfRange
from windlass.values import Descriptor
from windlass_images.archive import GZIP, ZSTD
from windlass_images.manifests import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    LAYER,
    MANIFEST_LIMIT,
    parse_config,
    parse_json,
)
from windlass_images.store import Store

LINKS = 20


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


async def synthesize(store: Store, image: Saved, sizes: Mapping[str, int], where: str) -> Descriptor:
    """Write the manifest that the archive lacks, and return its descriptor."""
    if sizes[image.config] > MANIFEST_LIMIT:
        raise OutOfRange(f"{where}: config has {sizes[image.config]} bytes, the limit is {MANIFEST_LIMIT}")
    data = await store.content.read(image.config, MANIFEST_LIMIT)
    config = parse_config(data, f"{where}: config {image.config}")
    layers = [
        {"mediaType": await _media_type(store, digest), "digest": digest, "size": sizes[digest]}
        for digest in image.layers
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG, "digest": image.config, "size": sizes[image.config]},
        "layers": layers,
    }
    document = json.dumps(manifest, indent=3).encode()
    digest = f"sha256:{sha256(document).hexdigest()}"

    async def whole() -> AsyncIterator[bytes]:
        yield document

    await store.content.write(f"{store.lease_id}-manifest-{digest}", whole(), len(document), digest)
    return Descriptor(DOCKER_MANIFEST, digest, len(document), {}, config.platform)


async def _media_type(store: Store, digest: str) -> str:
    magic = await store.content.head(digest, 4)
    if magic.startswith(GZIP):
        return f"{DOCKER_LAYER}.gzip"
    return f"{LAYER}+zstd" if magic.startswith(ZSTD) else DOCKER_LAYER
