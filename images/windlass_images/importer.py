"""Importing an image archive: its files become blobs, the entries of its index become images (docs/containerd 6.6).

Everything happens under one lease. If a step fails, the lease goes, and with it everything that was stored.
"""

from __future__ import annotations

import asyncio
import logging
import posixpath
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from windlass.contracts.content import CHUNK
from windlass.contracts.transfer import ByteReader, ExtraReference, Unpack
from windlass.contracts.values import DIGEST, Descriptor, Platform
from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument, NotFound, OutOfRange
from windlass_images import dockersave, layouts, naming, platforms
from windlass_images.archive import Archive, Entry, Files, open_files
from windlass_images.imagetree import Leaf, Present, Tree, Walk
from windlass_images.pipes import Incoming
from windlass_images.platforms import Wanted
from windlass_images.store import Store
from windlass_images.unpack import Progress, ignore, unpack

logger = logging.getLogger(__name__)

DOCUMENT_LIMIT = 20 << 20
"""Bytes of oci-layout, index.json and manifest.json (CVE-2023-25153)."""
DOCUMENTS = frozenset({"oci-layout", "index.json", "manifest.json"})
# `docker save` adds them to each layer for tools older than manifest.json.
LEGACY = frozenset({"VERSION", "json", "repositories"})

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """Settings of an import; ``name`` names the one image of an archive, ``base_name`` all that have only a tag."""

    name: str = ""
    base_name: str = ""
    platform: Wanted = field(default_factory=platforms.host)
    """None imports every platform, of which is unpacked what this machine runs."""
    snapshotter: str = "overlayfs"
    unpack: bool = True
    unpacks: tuple[Unpack, ...] = ()
    """What to unpack instead of the platforms."""
    labels: Mapping[str, str] = field(default_factory=dict)
    index_name: str = ""
    """Name of the archive's whole index."""
    references: tuple[ExtraReference, ...] | None = None
    """Rules of a transfer, which name the images instead of ``name`` and ``base_name``."""
    limit: int = 0
    """Manifests that are taken of one index, the best first; 0 for all."""
    all_metadata: bool = False
    """Keep the manifests and configs of other platforms too."""
    compress: bool = False
    """Compress layers of docker archives, which come as they are."""


@dataclass(frozen=True)
class Imported:
    """An image from an archive."""

    name: str
    target: Descriptor
    chain_ids: tuple[str, ...]
    """Snapshots that its platforms were unpacked to."""


@dataclass
class Blobs:
    """The contents of an archive: sizes by digest, digests by file name, links, and the documents that explain them."""

    sizes: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)

    def put(self, kind: dict[str, T], name: str, value: T) -> None:
        """Remember an entry. Raises AlreadyExists for a name that meant something else before."""
        others = (each for each in (self.files, self.links, self.documents) if each is not kind)
        if kind.setdefault(name, value) != value or any(name in other for other in others):
            raise AlreadyExists(f"entry {name[:200]!r} is there twice, with different contents")


async def load(
    store: Store, source: str | ByteReader, options: Options, progress: Progress = ignore
) -> Sequence[Imported]:
    """Import an archive and return its images: all of them, or nothing is kept.

    The source is a reader; or a path of an archive, of a directory with an OCI layout, or ``-`` for
    standard input.
    """
    async with store.lease(label="import") as leased:
        files = await open_source(source)
        try:
            trees = await collect(leased, files, options, progress)
        finally:
            files.close()
        chains = await _unpack_all(leased, [tree for _, tree in trees], options, progress)
        for name, tree in trees:
            await leased.images.put(name, tree.root, options.labels)
        return [Imported(name, tree.root, chains[tree.root.digest]) for name, tree in trees]


async def open_source(source: str | ByteReader) -> Files:
    """Open the argument of `load`; closing it also frees a thread that waits for more data."""
    if isinstance(source, str):
        return await asyncio.to_thread(open_files, source)
    incoming = Incoming(source)
    try:
        return await asyncio.to_thread(Archive, "stream", incoming)
    except BaseException:
        incoming.close()
        raise


async def collect(store: Store, files: Files, options: Options, progress: Progress = ignore) -> list[tuple[str, Tree]]:
    """Read an archive and return names and descriptors of its images, which are labelled and not unpacked.

    Nothing has a name yet; until it has one the lease of ``store`` keeps it.
    """
    where = f"archive {files.path}"
    try:
        blobs = await ingest(store, files, progress)
        named = await _named(store, blobs, options, where)
        naming.check([name for name, _ in named])
        named = _fitting(named, options.platform, where)
    except (InvalidArgument, AlreadyExists) as error:
        raise type(error)(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    present = Present(store, where, blobs.sizes)
    walk = Walk(store, present, where, options.platform, limit=options.limit, all_metadata=options.all_metadata)
    return [(name, await walk.tree(target)) for name, target in named]


def _fitting(named: Sequence[tuple[str, Descriptor]], wanted: Wanted, where: str) -> list[tuple[str, Descriptor]]:
    """Return the images for the wanted platform; of several with one name the best."""
    fitting: dict[str, list[tuple[str, Descriptor]]] = {}
    others = []
    for name, target in named:
        if target.platform is None or platforms.matches(wanted, target.platform):
            fitting.setdefault(name, []).append((name, target))
        else:
            others.append(name)
    if named and not fitting:
        raise NotFound(f"{where} has nothing for {platforms.write_all(wanted)}; try --all-platforms")
    if others:
        logger.warning(
            "%s: %d images are for other platforms and left out, %s the first", where, len(others), others[0]
        )
    return [pair for pairs in fitting.values() for pair in platforms.best(wanted, pairs, lambda pair: pair[1].platform)]


async def ingest(store: Store, archive: Files, progress: Progress) -> Blobs:
    """Turn the files of an archive into blobs."""
    blobs = Blobs()
    while (entry := await asyncio.to_thread(archive.next)) is not None:
        if entry.link:
            blobs.put(blobs.links, entry.name, entry.link)
        elif entry.name in DOCUMENTS:
            blobs.put(blobs.documents, entry.name, await asyncio.to_thread(_document, archive, entry))
        elif posixpath.basename(entry.name) not in LEGACY:
            digest = await _ingest_file(store, archive, entry, progress)
            blobs.put(blobs.files, entry.name, digest)
            blobs.sizes[digest] = entry.size
    return blobs


def _document(archive: Files, entry: Entry) -> bytes:
    if entry.size > DOCUMENT_LIMIT:
        raise OutOfRange(f"archive {archive.path}: {entry.name} has {entry.size} bytes, the limit is {DOCUMENT_LIMIT}")
    parts = []
    while part := archive.read(CHUNK):
        parts.append(part)
    return b"".join(parts)


async def _ingest_file(store: Store, archive: Files, entry: Entry, progress: Progress) -> str:
    expected = expected_digest(entry.name)
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


def expected_digest(name: str) -> str:
    """Return the digest that a file's name promises, empty for a name that promises none."""
    directory, _, digest = name.partition("/")
    found = digest.replace("/", ":", 1)
    return found if directory == "blobs" and DIGEST.fullmatch(found) else ""


async def _named(store: Store, blobs: Blobs, options: Options, where: str) -> list[tuple[str, Descriptor]]:
    """Return the names of the images and what they point to; an OCI index wins over docker's manifest.json."""
    if "oci-layout" in blobs.documents:
        targets = layouts.parse(blobs.documents, where)
    elif "manifest.json" in blobs.documents:
        targets = await dockersave.synthesize_all(store, blobs, options.compress, where)
    else:
        raise InvalidArgument(f"{where} is not an image: it has neither oci-layout nor manifest.json")
    if options.references is None:
        namer = naming.by_options(options.name, options.base_name)
    else:
        namer = naming.by_references(options.references)
    count = len({target.digest for target in targets})
    named = [(name, target) for target in targets for name in namer(target.annotations, target, count)]
    once = {(name, target.digest): (name, target) for name, target in named}
    return [*await _named_whole(store, blobs, targets, options), *once.values()]


async def _named_whole(
    store: Store, blobs: Blobs, targets: Sequence[Descriptor], options: Options
) -> list[tuple[str, Descriptor]]:
    references = options.references or ()
    if not options.index_name and all(each.is_prefix and not each.add_digest for each in references):
        return []
    index = await layouts.write_index(store, blobs.documents.get("index.json"), targets)
    blobs.sizes[index.digest] = index.size
    return [(name, index) for name in naming.whole(options.index_name, references, index)]


async def _unpack_all(
    store: Store, trees: Sequence[Tree], options: Options, progress: Progress
) -> dict[str, tuple[str, ...]]:
    """Unpack every image once, whatever names it has; return the snapshots by the digest of the tree."""
    done: dict[tuple[str, str], str] = {}
    chains: dict[str, tuple[str, ...]] = {}
    for tree in trees:
        for wanted in _wanted_unpacks(options):
            for leaf in tree.leaves_for(wanted.platform):
                key = (wanted.snapshotter, leaf.target.digest)
                if key not in done:
                    done[key] = await _unpack(store, wanted.snapshotter, tree, leaf, progress)
        keys = [key for key in done if key[1] in {leaf.target.digest for leaf in tree.leaves}]
        chains[tree.root.digest] = tuple(done[key] for key in keys)
    return chains


def _wanted_unpacks(options: Options) -> Sequence[Unpack]:
    if options.unpacks or not options.unpack:
        return options.unpacks
    chosen = (options.platform,) if isinstance(options.platform, Platform) else options.platform
    return tuple(Unpack(platform, options.snapshotter) for platform in chosen or (platforms.host(),))


async def _unpack(store: Store, snapshotter: str, tree: Tree, leaf: Leaf, progress: Progress) -> str:
    try:
        return await unpack(store, snapshotter, leaf, progress)
    except Error as error:
        raise type(error)(f"image {tree.root.digest}: {error}") from None
