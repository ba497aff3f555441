"""From an index or manifest down to configs and layers: every blob there, of the right size, and labelled.

A parent's labels keep its children from garbage collection (docs/containerd 6.5.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from windlass.contracts.values import Descriptor, Platform
from windlass.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfRange
from windlass_images import platforms
from windlass_images.manifests import (
    CONFIGS,
    INDEXES,
    KNOWN_CONFIGS,
    LAYERS_LIMIT,
    MANIFEST_LIMIT,
    MANIFESTS,
    ImageConfig,
    Manifest,
    is_distributable,
    is_layer,
    parse_config,
    parse_index,
    parse_manifest,
    parse_rootfs,
)
from windlass_images.platforms import Wanted
from windlass_images.store import Store

DEPTH = 4
"""How deep indexes may nest; real ones do not."""
KEEP = "containerd.io/gc.ref.content."
SUBJECT = "io.containerd.manifest.subject"


@dataclass(frozen=True)
class Leaf:
    """One image for one platform."""

    target: Descriptor
    manifest: Manifest
    image: ImageConfig

    @property
    def platform(self) -> Platform | None:
        """The platform it is for, None if neither index nor config names one."""
        return platforms.of(self.target.platform, self.image.platform)


@dataclass(frozen=True)
class Tree:
    """A name's target and the images below it; an artifact has none."""

    root: Descriptor
    leaves: tuple[Leaf, ...]

    def leaves_for(self, platform: Platform, strict: bool = False) -> list[Leaf]:
        """Return the images that are to be unpacked where ``platform`` is.

        An image for another processor is unpacked if there is none for this, as containerd does it; not if ``strict``.
        """
        images = [leaf for leaf in self.leaves if leaf.manifest.filesystem or leaf.image.diff_ids]
        found = platforms.best(platform, images, lambda leaf: leaf.platform)
        if found or strict:
            return found
        system = platforms.normal(platform).os
        return [leaf for leaf in images if leaf.platform and platforms.normal(leaf.platform).os == system]


@dataclass
class Found:
    """Everything below a descriptor: images by digest, artifacts, and nodes that are not for the wanted platform."""

    leaves: dict[str, Leaf] = field(default_factory=dict)
    artifacts: int = 0
    others: int = 0

    def add(self, more: Found) -> None:
        """Add everything below a child."""
        self.leaves |= more.leaves
        self.artifacts += more.artifacts
        self.others += more.others


class Source(Protocol):
    """Where the blobs of a tree come from: the store has them, or they are being fetched."""

    async def document(self, target: Descriptor, parent: Descriptor | None = None) -> None:
        """Return when an index, a manifest or a config is in the store, as its descriptor says. Raises NotFound."""
        ...

    async def layers(self, targets: Sequence[Descriptor], parent: Descriptor) -> None:
        """Return when the layers of a manifest, or all of an artifact, are in the store, or on their way there."""
        ...


class Present:
    """The source of blobs that must be in the store already; ``sizes`` are the blobs that are known to be."""

    def __init__(self, store: Store, where: str, sizes: dict[str, int] | None = None) -> None:
        self._store = store
        self._where = where
        self._sizes = {} if sizes is None else sizes

    async def document(self, target: Descriptor, parent: Descriptor | None = None) -> None:
        """Check that a blob is there. Raises NotFound, InvalidArgument for another size."""
        if target.digest not in self._sizes:
            try:
                self._sizes[target.digest] = (await self._store.content.info(target.digest)).size
            except NotFound:
                raise NotFound(f"{self._where}: blob {target.digest} ({target.media_type}) is missing") from None
        size = self._sizes[target.digest]
        if size != target.size:
            raise InvalidArgument(
                f"{self._where}: blob {target.digest} has {size} bytes, its descriptor says {target.size}"
            )

    async def layers(self, targets: Sequence[Descriptor], parent: Descriptor) -> None:
        """Check that all are there; errors as of `document`. What else an index names may be missing."""
        for target in targets:
            try:
                await self.document(target)
            except NotFound:
                # What may not be handed on is not in archives; who unpacks it will miss it.
                if is_distributable(target.media_type) and parent.media_type not in INDEXES:
                    raise


class Walk:
    """Visits trees; ``where`` names their image in errors; with ``label`` parents keep their children."""

    def __init__(
        self,
        store: Store,
        source: Source,
        where: str,
        platform: Wanted,
        label: bool = True,
        limit: int = 0,
        all_metadata: bool = False,
        to_run: bool = False,
    ) -> None:
        """Visit the best images for one or more platforms; ``limit`` bounds the images of one index, 0 is all.

        Configs are read whole only if the images are ``to_run``: a wrong one can be stored, and pushed, all the same.
        With ``all_metadata`` the manifests and configs of the others are brought too, where the source has them; their
        layers are not.
        """
        self._store = store
        self._source = source
        self._where = where
        self._platform = platform
        self._label = label
        self._limit = limit
        self._all_metadata = all_metadata
        self._parse = parse_config if to_run else parse_rootfs
        # An index may name another ten thousand times, and that the next: what has been visited is not visited again.
        self._visited: dict[tuple[str, str], Found] = {}

    async def tree(self, root: Descriptor) -> Tree:
        """Return the tree below a descriptor. Raises when there is nothing in it for the platform.

        What a name points to is taken whatever platform its config is for: only an index has a choice.
        """
        found = await self._visit(root, None, 0)
        if not found.leaves and (found.others or not found.artifacts):
            wanted = platforms.write_all(self._platform)
            raise NotFound(f"{self._where} has nothing for {wanted} below {root.digest}; try --all-platforms")
        leaves = list(found.leaves.values())
        if root.media_type in INDEXES:
            leaves = platforms.best(self._platform, leaves, lambda leaf: leaf.platform)
        return Tree(root, tuple(leaves))

    async def _visit(self, target: Descriptor, parent: Descriptor | None, depth: int) -> Found:
        """Return everything below a descriptor; each node is visited once."""
        key = (target.digest, target.media_type)
        if key not in self._visited:
            self._visited[key] = await self._visit_first(target, parent, depth)
        return self._visited[key]

    async def _visit_first(self, target: Descriptor, parent: Descriptor | None, depth: int) -> Found:
        name = f"{self._where}: {target.digest}"
        if depth > DEPTH:
            raise InvalidArgument(f"{name} lies below more than {DEPTH} nested indexes")
        if target.media_type in MANIFESTS:
            return await self._visit_manifest(target, parent, name)
        if target.media_type in INDEXES:
            return await self._visit_index(target, parent, name, depth)
        if parent is None:
            raise InvalidArgument(
                f"{name} has media type {target.media_type[:100]!r}, which is neither a manifest nor an index"
            )
        # An index may name anything (OCI image-spec, image-index.md); an unknown type has nothing below it.
        await self._source.layers([target], parent)
        return Found(artifacts=1)

    async def _visit_index(self, target: Descriptor, parent: Descriptor | None, name: str, depth: int) -> Found:
        index = parse_index(await self._document(target, parent), name, target.media_type)
        known = list({child.digest: child for child in index.manifests}.values())
        wanted = platforms.best(self._platform, known, lambda child: child.platform)[: self._limit or None]
        chosen = {child.digest for child in wanted}
        others = [child for child in known if child.digest not in chosen]
        found = Found(others=sum(child.platform is not None and child.platform.os != "unknown" for child in others))
        for child in wanted:
            found.add(await self._visit(child, target, depth + 1))
        if self._all_metadata:
            for child in others:
                if child.media_type in MANIFESTS:
                    await self._describe(child, target)
        # A tag each for one image: containerd labels each; but one manifest named ten thousand times is one.
        await self._keep(target, index.manifests if len(index.manifests) <= LAYERS_LIMIT else known)
        return found

    async def _visit_manifest(self, target: Descriptor, parent: Descriptor | None, name: str) -> Found:
        manifest = parse_manifest(await self._document(target, parent), name, target.media_type)
        if not manifest.is_image:
            await self._source.layers([manifest.config, *manifest.layers], target)
            await self._keep(target, [manifest.config, *manifest.layers])
            return Found(artifacts=1)
        config = await self._document(manifest.config, target)
        image = self._parse(config, f"{self._where}: config {manifest.config.digest}")
        leaf = Leaf(target, manifest, image)
        if parent is not None and not platforms.matches(self._platform, leaf.platform):
            return Found(others=1)
        await self._source.layers(manifest.layers, target)
        await self._keep(target, [manifest.config, *manifest.layers])
        return Found({target.digest: leaf})

    async def _describe(self, target: Descriptor, parent: Descriptor) -> None:
        """Bring a manifest and its config, if both are to be had: archives may lack some platforms."""
        name = f"{self._where}: {target.digest}"
        try:
            manifest = parse_manifest(await self._document(target, parent), name, target.media_type)
            if manifest.config.media_type in CONFIGS:
                await self._document(manifest.config, target)
        except NotFound:
            return
        await self._keep(target, [manifest.config, *manifest.layers])

    async def _document(self, target: Descriptor, parent: Descriptor | None) -> bytes:
        if target.size > MANIFEST_LIMIT:
            raise OutOfRange(f"{self._where}: {target.digest} has {target.size} bytes, the limit is {MANIFEST_LIMIT}")
        await self._source.document(target, parent)
        return await self._store.content.read(target.digest, MANIFEST_LIMIT)

    async def _keep(self, parent: Descriptor, children: Sequence[Descriptor]) -> None:
        """Label a parent with all its children at once: each change of a blob waits for the disk."""
        if self._label and children:
            await self._store.content.label(parent.digest, keep_labels(children))


def keep_labels(children: Sequence[Descriptor]) -> dict[str, str]:
    """Return the labels with which a parent keeps its children, those too that are not there.

    Source: docs/containerd 6.5.3.
    """
    labels: dict[str, str] = {}
    counts: dict[str, int] = {}
    for child in children:
        kind = _kind(child)
        number = counts[kind] = counts.get(kind, -1) + 1
        if kind == "referrer.sha256.":
            key = kind + child.digest.partition(":")[2][:12]
        else:
            key = kind if kind == "config" and not number else f"{kind}{number}"
        labels[KEEP + key] = child.digest
    return labels


def _kind(child: Descriptor) -> str:
    if SUBJECT in child.annotations:
        return "referrer.sha256."
    if child.media_type in KNOWN_CONFIGS:
        return "config"
    if child.media_type in MANIFESTS:
        return "m."
    return "l." if is_layer(child.media_type) else ""


async def resolve(store: Store, name: str, platform: Platform) -> Leaf:
    """Return what an image is on a platform, from what the store has of it. Raises NotFound."""
    where = f"image {name}"
    walk = Walk(store, Present(store, where), where, platform, label=False, to_run=True)
    tree = await walk.tree((await store.images.get(name)).target)
    if not tree.leaves:
        raise FailedPrecondition(f"{where} is an artifact, not an image: there is nothing in it to run")
    return tree.leaves[0]
