"""From an index or manifest down to configs and layers: every blob there, of the right size, and labelled.

A parent's labels keep its children from garbage collection (reference 6.5.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windlass.errors import InvalidArgument, NotFound, OutOfRange
from windlass.values import Descriptor, Platform
from windlass_client import platforms
from windlass_client.client import Client
from windlass_client.manifests import (
    CONFIGS,
    INDEXES,
    MANIFEST_LIMIT,
    MANIFESTS,
    ImageConfig,
    Manifest,
    parse_config,
    parse_index,
    parse_manifest,
)

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


class Walk:
    """Visits trees whose blobs are in the content store; ``sizes`` are the blobs known to be there already."""

    def __init__(
        self, client: Client, sizes: dict[str, int], where: str, platform: Platform | None, label: bool = True
    ) -> None:
        self._client = client
        self._sizes = sizes
        self._where = where
        self._platform = platform
        self._label = label
        # An index may name another ten thousand times, and that the next: what has been visited is not visited again.
        self._visited: dict[tuple[str, str], list[Leaf]] = {}

    async def tree(self, root: Descriptor) -> Tree:
        """Return the tree below a descriptor. Raises when there is nothing in it for the platform."""
        leaves = await self._visit(root, 0)
        if not leaves:
            wanted = platforms.write(self._platform) if self._platform else "any platform"
            raise NotFound(f"{self._where} has nothing for {wanted} below {root.digest}; try --all-platforms")
        return Tree(root, tuple(leaves))

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
        wanted = list({child.digest: child for child in index.manifests if self._wants(child)}.values())
        leaves: dict[str, Leaf] = {}
        for child in wanted:
            leaves |= {leaf.target.digest: leaf for leaf in await self._visit(child, depth + 1)}
        await self._keep(target, "m.", [child for child in wanted if child.media_type in MANIFESTS])
        await self._keep(target, "", [child for child in wanted if child.media_type not in MANIFESTS])
        return list(leaves.values())

    def _wants(self, target: Descriptor) -> bool:
        return self._platform is None or platforms.matches(self._platform, target.platform)

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
        if self._platform is not None and not platforms.matches(self._platform, image.platform):
            return []
        if len(image.diff_ids) != len(manifest.layers):
            raise InvalidArgument(
                f"{name} has {len(manifest.layers)} layers, but its config {len(image.diff_ids)} diff IDs"
            )
        for layer in manifest.layers:
            await self._check(layer)
        await self._keep(target, "config", [manifest.config])
        await self._keep(target, "l.", manifest.layers)
        return [Leaf(target, manifest, image)]

    async def _document(self, target: Descriptor) -> bytes:
        if target.size > MANIFEST_LIMIT:
            raise OutOfRange(f"{self._where}: {target.digest} has {target.size} bytes, the limit is {MANIFEST_LIMIT}")
        await self._check(target)
        return await self._client.content.read(target.digest, MANIFEST_LIMIT)

    async def _check(self, target: Descriptor) -> None:
        if target.digest not in self._sizes:
            try:
                self._sizes[target.digest] = (await self._client.content.info(target.digest)).size
            except NotFound:
                raise NotFound(f"{self._where}: blob {target.digest} ({target.media_type}) is missing") from None
        size = self._sizes[target.digest]
        if size != target.size:
            raise InvalidArgument(
                f"{self._where}: blob {target.digest} has {size} bytes, its descriptor says {target.size}"
            )

    async def _keep(self, parent: Descriptor, kind: str, children: Sequence[Descriptor]) -> None:
        if not self._label or not children:
            return
        if kind == "config":
            labels = {KEEP + kind: children[0].digest}
        else:
            labels = {f"{KEEP}{kind}{number}": child.digest for number, child in enumerate(children)}
        await self._client.content.label(parent.digest, labels)


async def resolve(client: Client, name: str, platform: Platform) -> Leaf:
    """Return what an image is on a platform, from what the store has of it. Raises NotFound."""
    from windlass_client.images import from_message

    image = await client.images.get(name)
    tree = await Walk(client, {}, f"image {name}", platform, label=False).tree(from_message(image.target))
    return tree.leaves[0]
