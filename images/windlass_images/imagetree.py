"""From an index or manifest down to configs and layers: every blob there, of the right size, and labelled.

A parent's labels keep its children from garbage collection (reference 6.5.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from windlass.errors import InvalidArgument, NotFound, OutOfRange
from windlass.values import Descriptor, Platform
from windlass_images import platforms
from windlass_images.manifests import (
    CONFIGS,
    INDEXES,
    MANIFEST_LIMIT,
    MANIFESTS,
    ImageConfig,
    Manifest,
    is_distributable,
    parse_config,
    parse_index,
    parse_manifest,
)
from windlass_images.platforms import Wanted
from windlass_images.store import Store

DEPTH = 4
"""How deep indexes may nest; real ones do not."""
KEEP = "containerd.io/gc.ref.content."


@dataclass(frozen=True)
class Leaf:
    """One image for one platform."""

    target: Descriptor
    manifest: Manifest
    image: ImageConfig


@dataclass(frozen=True)
class Tree:
    """What a name points to, and the images below it."""

    root: Descriptor
    leaves: tuple[Leaf, ...]


class Source(Protocol):
    """Where the blobs of a tree come from: the store has them, or they are on their way to it."""

    async def document(self, target: Descriptor) -> None:
        """Return when an index, a manifest or a config is in the store, as its descriptor says. Raises NotFound."""
        ...

    async def layers(self, targets: Sequence[Descriptor]) -> None:
        """Return when the layers of a manifest are in the store, or somebody is seeing to it."""
        ...


class Present:
    """The source of what has to be in the store already; ``sizes`` are the blobs that are known to be."""

    def __init__(self, store: Store, where: str, sizes: dict[str, int] | None = None) -> None:
        self._store = store
        self._where = where
        self._sizes = {} if sizes is None else sizes

    async def document(self, target: Descriptor) -> None:
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

    async def layers(self, targets: Sequence[Descriptor]) -> None:
        """Check that all are there; errors as of `document`."""
        for target in targets:
            try:
                await self.document(target)
            except NotFound:
                # What may not be handed on is not in archives; who unpacks it will miss it.
                if is_distributable(target.media_type):
                    raise


class Walk:
    """Visits trees; ``where`` names in errors what they belong to, ``label`` has parents keep their children."""

    def __init__(
        self,
        store: Store,
        source: Source,
        where: str,
        platform: Wanted,
        label: bool = True,
        limit: int = 0,
        all_metadata: bool = False,
    ) -> None:
        """Visit what is best for a platform, or several; ``limit`` is how much of one index is visited, 0 for all.

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
        # An index may name another ten thousand times, and that the next: what has been visited is not visited again.
        self._visited: dict[tuple[str, str], list[Leaf]] = {}

    async def tree(self, root: Descriptor) -> Tree:
        """Return the tree below a descriptor. Raises when there is nothing in it for the platform."""
        leaves = await self._visit(root, 0)
        if not leaves:
            wanted = platforms.write_all(self._platform)
            raise NotFound(f"{self._where} has nothing for {wanted} below {root.digest}; try --all-platforms")
        return Tree(root, tuple(platforms.best(self._platform, leaves, lambda leaf: leaf.image.platform)))

    async def _visit(self, target: Descriptor, depth: int) -> list[Leaf]:
        """Return the images below a descriptor, each once."""
        key = (target.digest, target.media_type)
        if key not in self._visited:
            self._visited[key] = await self._visit_first(target, depth)
        return self._visited[key]

    async def _visit_first(self, target: Descriptor, depth: int) -> list[Leaf]:
        name = f"{self._where}: {target.digest}"
        if depth > DEPTH:
            raise InvalidArgument(f"{name} lies below more than {DEPTH} nested indexes")
        if target.media_type in MANIFESTS:
            return await self._visit_manifest(target, name, depth)
        if target.media_type not in INDEXES:
            raise InvalidArgument(
                f"{name} has media type {target.media_type[:100]!r}, which is no manifest and no index"
            )
        index = parse_index(await self._document(target), name, target.media_type)
        known = list({child.digest: child for child in index.manifests}.values())
        wanted = platforms.best(self._platform, known, lambda child: child.platform)[: self._limit or None]
        leaves: dict[str, Leaf] = {}
        for child in wanted:
            leaves |= {leaf.target.digest: leaf for leaf in await self._visit(child, depth + 1)}
        if self._all_metadata:
            others = [child for child in known if child not in wanted and child.media_type in MANIFESTS]
            wanted = [*wanted, *[child for child in others if await self._described(child)]]
        images = [child for child in wanted if child.media_type in MANIFESTS]
        await self._keep(target, images=images, others=[child for child in wanted if child not in images])
        return list(leaves.values())

    async def _visit_manifest(self, target: Descriptor, name: str, depth: int) -> list[Leaf]:
        manifest = parse_manifest(await self._document(target), name, target.media_type)
        if manifest.config.media_type not in CONFIGS:
            # Beside images an index may have attestations and the like; a name has to stand for an image.
            if depth == 0:
                raise InvalidArgument(
                    f"{name} is an artifact of type {manifest.config.media_type[:100]!r}, not an image"
                )
            return []
        image = parse_config(await self._document(manifest.config), f"{self._where}: config {manifest.config.digest}")
        if not platforms.matches(self._platform, image.platform):
            return []
        if len(image.diff_ids) != len(manifest.layers):
            raise InvalidArgument(
                f"{name} has {len(manifest.layers)} layers, but its config {len(image.diff_ids)} diff IDs"
            )
        await self._source.layers(manifest.layers)
        await self._keep(target, config=manifest.config, layers=manifest.layers)
        return [Leaf(target, manifest, image)]

    async def _described(self, target: Descriptor) -> bool:
        """Bring a manifest and its config; tell whether both are to be had, as archives may lack some platforms."""
        name = f"{self._where}: {target.digest}"
        try:
            manifest = parse_manifest(await self._document(target), name, target.media_type)
            if manifest.config.media_type in CONFIGS:
                await self._document(manifest.config)
                await self._keep(target, config=manifest.config)
        except NotFound:
            return False
        return True

    async def _document(self, target: Descriptor) -> bytes:
        if target.size > MANIFEST_LIMIT:
            raise OutOfRange(f"{self._where}: {target.digest} has {target.size} bytes, the limit is {MANIFEST_LIMIT}")
        await self._source.document(target)
        return await self._store.content.read(target.digest, MANIFEST_LIMIT)

    async def _keep(
        self,
        parent: Descriptor,
        config: Descriptor | None = None,
        layers: Sequence[Descriptor] = (),
        images: Sequence[Descriptor] = (),
        others: Sequence[Descriptor] = (),
    ) -> None:
        """Label a parent with all its children at once: each change of a blob waits for the disk."""
        labels = {f"{KEEP}config": config.digest} if config is not None else {}
        for kind, children in (("l.", layers), ("m.", images), ("", others)):
            labels |= {f"{KEEP}{kind}{number}": child.digest for number, child in enumerate(children)}
        if self._label and labels:
            await self._store.content.label(parent.digest, labels)


async def resolve(store: Store, name: str, platform: Platform) -> Leaf:
    """Return what an image is on a platform, from what the store has of it. Raises NotFound."""
    where = f"image {name}"
    walk = Walk(store, Present(store, where), where, platform, label=False)
    return (await walk.tree((await store.images.get(name)).target)).leaves[0]
