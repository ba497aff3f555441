"""Importing an image archive: its files become blobs, what its index names become images (reference 6.6).

Everything happens under one lease. When a step fails the lease goes, and with it all that had come that far.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from windlass.content import CHUNK
from windlass.errors import Error, FailedPrecondition, InvalidArgument, OutOfRange
from windlass.values import Descriptor, Platform
from windlass_images import dockersave, platforms
from windlass_images.archive import Archive, Entry
from windlass_images.imagetree import Present, Tree, Walk
from windlass_images.manifests import parse_index, parse_object
from windlass_images.store import Store
from windlass_images.unpack import unpack

DOCUMENT_LIMIT = 20 << 20
"""Bytes of oci-layout, index.json and manifest.json (CVE-2023-25153)."""
DOCUMENTS = frozenset({"oci-layout", "index.json", "manifest.json"})
# `docker save` puts them beside each layer for tools older than manifest.json.
LEGACY = frozenset({"VERSION", "json", "repositories"})
NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"

Progress = Callable[[str, str, int, int], None]
"""Called with a verb, what it is done to, bytes done and bytes in all."""


@dataclass(frozen=True)
class Options:
    """What an import is to do; ``name`` names the one image of an archive, ``base_name`` all that have only a tag."""

    name: str = ""
    base_name: str = ""
    platform: Platform | None = field(default_factory=platforms.host)
    """None imports every platform; unpacked is only what this machine can run."""
    snapshotter: str = "overlayfs"
    unpack: bool = True


@dataclass(frozen=True)
class Imported:
    """An image that an archive held."""

    name: str
    target: Descriptor
    chain_ids: tuple[str, ...]
    """Snapshots that its platforms were unpacked to."""


@dataclass
class Blobs:
    """What an archive held: sizes by digest, digests by file name, links, and documents that tell what they mean."""

    sizes: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)


def ignore(verb: str, what: str, done: int, total: int) -> None:
    """Show no progress."""


async def load(store: Store, path: str, options: Options, progress: Progress = ignore) -> Sequence[Imported]:
    """Import an archive (``-`` reads standard input) and return its images. All of them, or nothing is kept."""
    async with store.lease(label="import") as leased:
        archive = await asyncio.to_thread(Archive, path)
        try:
            blobs = await ingest(leased, archive, progress)
        finally:
            archive.close()
        where = f"archive {path}"
        walk = Walk(leased, Present(leased, where, blobs.sizes), where, options.platform)
        named = await _named(leased, blobs, options, where)
        trees = [(name, await walk.tree(target)) for name, target in named]
        chains = [await _unpacked(leased, tree, options, progress) for _, tree in trees]
        for name, tree in trees:
            await leased.images.put(name, tree.root)
        return [Imported(name, tree.root, chain) for (name, tree), chain in zip(trees, chains, strict=True)]


async def ingest(store: Store, archive: Archive, progress: Progress) -> Blobs:
    """Turn the files of an archive into blobs."""
    blobs = Blobs()
    while (entry := await asyncio.to_thread(archive.next)) is not None:
        if entry.link:
            blobs.links[entry.name] = entry.link
        elif entry.name in DOCUMENTS:
            blobs.documents[entry.name] = await asyncio.to_thread(_document, archive, entry)
        elif posixpath.basename(entry.name) not in LEGACY:
            digest = await _ingest_file(store, archive, entry, progress)
            blobs.sizes[digest] = entry.size
            blobs.files[entry.name] = digest
    return blobs


def _document(archive: Archive, entry: Entry) -> bytes:
    if entry.size > DOCUMENT_LIMIT:
        raise OutOfRange(f"archive {archive.path}: {entry.name} has {entry.size} bytes, the limit is {DOCUMENT_LIMIT}")
    parts = []
    while part := archive.read(CHUNK):
        parts.append(part)
    return b"".join(parts)


async def _ingest_file(store: Store, archive: Archive, entry: Entry, progress: Progress) -> str:
    expected = expected_digest(entry.name, f"archive {archive.path}")
    ref = f"{store.lease_id}-tar-{entry.name[:200]}"

    async def chunks() -> AsyncIterator[bytes]:
        done = 0
        while chunk := await asyncio.to_thread(archive.read, CHUNK):
            done += len(chunk)
            progress("reading", entry.name, done, entry.size)
            yield chunk

    try:
        return await store.content.write(ref, chunks(), entry.size, expected)
    except FailedPrecondition as error:
        raise FailedPrecondition(f"archive {archive.path}: {entry.name} is refused: {error}") from None


def expected_digest(name: str, where: str) -> str:
    """Return the digest that a file's name promises, empty for a name that promises none."""
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "blobs":
        return ""
    lengths = {"sha256": 64, "sha384": 96, "sha512": 128}
    algorithm, digits = parts[1:]
    if len(digits) != lengths.get(algorithm) or not set(digits) <= set("0123456789abcdef"):
        raise InvalidArgument(f"{where}: {name[:200]!r} is no blob, its name is no digest")
    return f"{algorithm}:{digits}"


async def _named(store: Store, blobs: Blobs, options: Options, where: str) -> list[tuple[str, Descriptor]]:
    """Return the names of the images and what they point to; an OCI index wins over docker's manifest.json."""
    if "oci-layout" in blobs.documents:
        return _name_oci(blobs.documents, options, where)
    if "manifest.json" not in blobs.documents:
        raise InvalidArgument(f"{where} is no image: it has neither oci-layout nor manifest.json")
    images = dockersave.parse(blobs.documents["manifest.json"], blobs.files, blobs.links, where)
    named = []
    for image in images:
        target = await dockersave.synthesize(store, image, blobs.sizes, where)
        named += [(name, target) for name in names_of(image.tags, options, target, len(images), where)]
    return named


def _name_oci(documents: dict[str, bytes], options: Options, where: str) -> list[tuple[str, Descriptor]]:
    layout = parse_object(documents["oci-layout"], f"{where}: oci-layout")
    if layout.get("imageLayoutVersion") != "1.0.0":
        version = str(layout.get("imageLayoutVersion"))[:40]
        raise InvalidArgument(f"{where} has OCI layout version {version}, only 1.0.0 is understood")
    if "index.json" not in documents:
        raise InvalidArgument(f"{where} has oci-layout, but no index.json")
    index = parse_index(documents["index.json"], f"{where}: index.json")
    if not index.manifests:
        raise InvalidArgument(f"{where}: index.json names no manifest")
    named = []
    for target in index.manifests:
        tags = [target.annotations[key] for key in (NAME, REF_NAME) if target.annotations.get(key)][:1]
        named += [(name, target) for name in names_of(tags, options, target, len(index.manifests), where)]
    return named


def names_of(tags: Sequence[str], options: Options, target: Descriptor, images: int, where: str) -> list[str]:
    """Return what an image is to be called here."""
    if options.name:
        if images > 1:
            raise InvalidArgument(f"{where} has {images} images, so that one --name does not do; use --base-name")
        return [options.name]
    base = options.base_name or f"import-{datetime.now(UTC):%Y-%m-%d}"
    if not tags:
        return [f"{base}@{target.digest}"]
    # A ref with any of these is a name already; a bare tag needs a base (reference 6.6).
    full = [tag if set(tag) & set("/:@") else f"{base}:{tag}" for tag in tags]
    for name in full:
        if len(name) > 4096 or not name.isprintable():
            raise InvalidArgument(f"{where} has an image with an unusable name: {name[:100]!r}")
    return full


async def _unpacked(store: Store, tree: Tree, options: Options, progress: Progress) -> tuple[str, ...]:
    if not options.unpack:
        return ()
    host = platforms.host()
    chains = []
    for leaf in tree.leaves:
        if platforms.matches(host, leaf.image.platform):
            try:
                chains.append(await unpack(store, options.snapshotter, leaf, progress))
            except Error as error:
                raise type(error)(f"image {tree.root.digest}: {error}") from None
    return tuple(chains)
