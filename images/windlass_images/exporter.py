"""Export: writes an archive of images for docker, skopeo and containerd, part by part.

The archive is an OCI layout with docker's manifest.json. What is at the front tells what will
come; the blobs follow by digest. The same images make the same bytes, whenever and wherever.

Source: docs/containerd 6.6.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from windlass.contracts.transfer import ByteWriter
from windlass.contracts.values import Descriptor
from windlass.errors import DataLoss, InvalidArgument, NotFound
from windlass_images import platforms
from windlass_images.manifests import INDEX, is_distributable, is_layer, to_json
from windlass_images.naming import NAME, REF_NAME, object_of
from windlass_images.platforms import Wanted
from windlass_images.store import Store
from windlass_images.survey import Node, Survey
from windlass_images.unpack import Progress, ignore

BLOCK = tarfile.BLOCKSIZE
SOURCE = "containerd.io/distribution.source."
FAMILIAR = re.compile(r"[a-z0-9]+(?:[._/:-]+[a-z0-9]+)*:[\w][\w.-]{0,127}", re.ASCII)
"""What docker takes as the name and tag of an image."""


@dataclass(frozen=True)
class Options:
    """Which parts of images to export."""

    platforms: Wanted = field(default_factory=platforms.host)
    allow_missing: bool = False
    """Leave out content that the store does not have: manifests, or parts of one; without this it is an error."""
    skip_docker_manifest: bool = False
    skip_non_distributable: bool = False


@dataclass(frozen=True)
class Exported:
    """The resulting archive."""

    images: tuple[str, ...]
    blobs: int
    size: int


async def save(
    store: Store, names: Sequence[str], sink: ByteWriter, options: Options, progress: Progress = ignore
) -> Exported:
    """Write images to an archive. Raises NotFound before the first byte if content is missing."""
    if not names:
        raise InvalidArgument("no image is named that could be exported")
    roots = [await _root(store, name, options) for name in dict.fromkeys(names)]
    blobs: dict[str, Descriptor] = {}
    for name, node in roots:
        blobs |= {target.digest: target for target in _exported(node, f"image {name}", options)}
    tar = _Tar(sink)
    await tar.document("oci-layout", {"imageLayoutVersion": "1.0.0"})
    manifests = [_named(name, node) for name, node in roots]
    await tar.document("index.json", {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    if not options.skip_docker_manifest and (entries := _docker_entries(roots, options.platforms)):
        await tar.document("manifest.json", entries)
    for directory in ("blobs", *sorted({f"blobs/{digest.partition(':')[0]}" for digest in blobs})):
        await tar.directory(directory)
    for digest, target in sorted(blobs.items()):
        await tar.blob(target, _checked(store.content.chunks(digest), target, progress))
    await tar.end()
    return Exported(tuple(name for name, _ in roots), len(blobs), tar.size)


async def _root(store: Store, name: str, options: Options) -> tuple[str, Node]:
    image = await store.images.get(name)
    node = await Survey(store, f"image {name}", options.platforms).look(image.target)
    if node.role == "index" and node.present and not node.children:
        wanted = platforms.write_all(options.platforms)
        raise NotFound(f"image {name} has nothing for {wanted}; try --all-platforms")
    return name, node


def _exported(root: Node, where: str, options: Options) -> list[Descriptor]:
    """Return the blobs of an image that go into the archive."""
    found, left = {}, [root]
    while left:
        node = left.pop()
        if node.target.digest in found or _is_skipped(node, options):
            continue
        if node.present:
            found[node.target.digest] = node.target
        elif node is root or not options.allow_missing:
            raise NotFound(
                f"{where}: blob {node.target.digest} ({node.target.media_type}) is missing; pull it, or leave out "
                "what is missing with --allow-missing"
            )
        # Of an image that is not all there only the manifest is kept, as containerd does it.
        whole = all(child.present or _is_skipped(child, options) for child in node.children)
        if whole or node.role == "index" or not options.allow_missing:
            left += node.children
    return list(found.values())


def _is_skipped(node: Node, options: Options) -> bool:
    return options.skip_non_distributable and not is_distributable(node.target.media_type)


def _named(name: str, node: Node) -> dict[str, object]:
    sources = {key: value for key, value in node.labels.items() if key.startswith(SOURCE)}
    names = {NAME: name, REF_NAME: object_of(name)}
    # The store does not keep the platform of what an image points to.
    return to_json(replace(node.target, platform=node.platform), {**node.target.annotations, **sources, **names})


def _docker_entries(roots: Sequence[tuple[str, Node]], wanted: Wanted) -> list[dict[str, object]]:
    """Return manifest.json: for each image the one that docker would run, with the names that docker accepts."""
    tags: dict[str, list[str]] = {}
    leaves: dict[str, Node] = {}
    for name, root in roots:
        images = [(node, node.platform) for node in root.images() if node.image]
        for leaf, _ in platforms.best(wanted or platforms.host(), images, lambda pair: pair[1])[:1]:
            leaves[leaf.target.digest] = leaf
            tags.setdefault(leaf.target.digest, []).extend(_familiar(name))
    return [
        {
            "Config": _path(leaf.children[0].target.digest),
            "RepoTags": tags[digest],
            "Layers": [_path(layer.target.digest) for layer in leaf.children[1:] if is_layer(layer.target.media_type)],
        }
        for digest, leaf in leaves.items()
    ]


def _familiar(name: str) -> list[str]:
    """Return a name as docker writes it, nothing if docker would refuse it."""
    short = name.removeprefix("docker.io/").removeprefix("library/") if name.startswith("docker.io/") else name
    tagged = short if ":" in short.rpartition("/")[2] else f"{short}:latest"
    return [tagged] if "@" not in short and FAMILIAR.fullmatch(tagged) else []


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


async def _checked(chunks: AsyncIterator[bytes], target: Descriptor, progress: Progress) -> AsyncIterator[bytes]:
    """Yield a blob; if it differs from its descriptor, raise, so that no archive with it looks complete."""
    algorithm, _, expected = target.digest.partition(":")
    found, done = hashlib.new(algorithm), 0
    async for chunk in chunks:
        found.update(chunk)
        done += len(chunk)
        if done > target.size:
            break
        progress("exporting", target.digest, done, target.size)
        yield chunk
    if done != target.size or found.hexdigest() != expected:
        raise DataLoss(f"blob {target.digest} is damaged in the store; run `windlass fsck`")


class _Tar:
    """A tar file being written, every header the same each time."""

    def __init__(self, sink: ByteWriter) -> None:
        self._sink = sink
        self.size = 0

    async def document(self, name: str, content: object) -> None:
        data = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        await self._header(name, len(data), 0o644)
        await self._write(data + bytes(-len(data) % BLOCK))

    async def directory(self, name: str) -> None:
        await self._header(name, 0, 0o755, tarfile.DIRTYPE)

    async def blob(self, target: Descriptor, chunks: AsyncIterator[bytes]) -> None:
        await self._header(_path(target.digest), target.size, 0o444)
        async for chunk in chunks:
            await self._write(chunk)
        await self._write(bytes(-target.size % BLOCK))

    async def end(self) -> None:
        await self._write(bytes(2 * BLOCK))

    async def _header(self, name: str, size: int, mode: int, kind: bytes = tarfile.REGTYPE) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.type = size, mode, kind
        await self._write(entry.tobuf(tarfile.PAX_FORMAT))

    async def _write(self, data: bytes) -> None:
        self.size += len(data)
        if data:
            await self._sink.write(data)
