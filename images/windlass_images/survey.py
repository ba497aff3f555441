"""The parts of an image, down to its layers, and which of them the store has; for commands that show, not for pulls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from windlass.contracts.content import Info
from windlass.contracts.values import DIGEST, Descriptor, Platform
from windlass.errors import InvalidArgument, NotFound, OutOfRange
from windlass_images import platforms
from windlass_images.imagetree import DEPTH, KEEP
from windlass_images.manifests import (
    INDEXES,
    MANIFEST_LIMIT,
    MANIFESTS,
    ImageConfig,
    parse_index,
    parse_manifest,
    parse_object,
    parse_rootfs,
)
from windlass_images.platforms import Wanted
from windlass_images.store import Store

NODES_LIMIT = 100_000
REFERRER = f"{KEEP}referrer."


@dataclass(frozen=True)
class Node:
    """A blob of an image; if it is not ``present``, its children are unknown."""

    target: Descriptor
    role: str
    """``index``, ``manifest`` of an image, ``artifact`` (any other manifest), ``config``, ``layer``, or ``blob``."""
    present: bool
    children: tuple[Node, ...] = ()
    image: ImageConfig | None = None
    """Of a manifest whose config is there."""
    labels: Mapping[str, str] = field(default_factory=dict)
    referrers: tuple[Descriptor, ...] = ()
    """What was said about it: signatures and the like."""

    @property
    def platform(self) -> Platform | None:
        """The platform it is for, None if neither index nor config names one."""
        return platforms.of(self.target.platform, self.image.platform) if self.image else self.target.platform

    def below(self) -> Iterator[Node]:
        """Yield this and every blob below it, each once, parents first."""
        seen = set()
        left = [self]
        while left:
            node = left.pop()
            if node.target.digest not in seen:
                seen.add(node.target.digest)
                yield node
                left += reversed(node.children)

    def images(self) -> list[Node]:
        """Return the manifests of images below, each once."""
        return [node for node in self.below() if node.role == "manifest"]


class Survey:
    """Looks at images; ``where`` names in errors what they belong to."""

    def __init__(self, store: Store, where: str, wanted: Wanted = None) -> None:
        """Look only at the best images for the wanted platforms, if there are any."""
        self._store = store
        self._where = where
        self._wanted = wanted
        self._seen: dict[tuple[str, str], Node] = {}

    async def look(self, root: Descriptor) -> Node:
        """Return the survey of an image. Raises InvalidArgument if the descriptor is not an image's."""
        if root.media_type not in INDEXES | MANIFESTS:
            raise InvalidArgument(
                f"{self._where} points to media type {root.media_type[:100]!r}, neither a manifest nor an index"
            )
        return await self._look(root, "", 0)

    async def _look(self, target: Descriptor, role: str, depth: int) -> Node:
        key = (target.digest, target.media_type)
        if key not in self._seen:
            if depth > DEPTH:
                raise InvalidArgument(f"{self._where}: {target.digest} lies below more than {DEPTH} nested indexes")
            if len(self._seen) >= NODES_LIMIT:
                raise OutOfRange(f"{self._where} has more than {NODES_LIMIT} blobs")
            self._seen[key] = await self._look_first(target, role, depth)
        return self._seen[key]

    async def _look_first(self, target: Descriptor, role: str, depth: int) -> Node:
        info = await self._info(target)
        if target.media_type in INDEXES:
            return await self._index(target, info, depth)
        if target.media_type in MANIFESTS:
            return await self._manifest(target, info, depth)
        return Node(target, role or "blob", info is not None, labels=info.labels if info else {})

    async def _info(self, target: Descriptor) -> Info | None:
        try:
            info = await self._store.content.info(target.digest)
        except NotFound:
            return None
        if info.size != target.size:
            raise InvalidArgument(
                f"{self._where}: blob {target.digest} has {info.size} bytes, its descriptor says {target.size}"
            )
        return info

    async def _index(self, target: Descriptor, info: Info | None, depth: int) -> Node:
        if info is None:
            return Node(target, "index", False)
        index = parse_index(await self._read(target), f"{self._where}: {target.digest}", target.media_type)
        known = {child.digest: child for child in index.manifests}
        wanted = platforms.best(self._wanted, list(known.values()), lambda child: child.platform)
        children = [await self._look(child, "", depth + 1) for child in wanted]
        chosen = tuple(child for child in children if self._suits(child))
        return Node(target, "index", True, chosen, None, info.labels, await self._referrers(info))

    def _suits(self, node: Node) -> bool:
        """Return whether an image is wanted of which its index names no platform."""
        if self._wanted is None or node.target.platform is not None or not node.present:
            return True
        if node.role == "index":
            return bool(node.children)
        return node.role == "manifest" and (node.image is None or platforms.matches(self._wanted, node.platform))

    async def _manifest(self, target: Descriptor, info: Info | None, depth: int) -> Node:
        if info is None:
            return Node(target, "manifest", False)
        name = f"{self._where}: {target.digest}"
        manifest = parse_manifest(await self._read(target), name, target.media_type)
        config = await self._look(manifest.config, "config", depth)
        layers = [await self._look(layer, "layer", depth) for layer in manifest.layers]
        role, image = "artifact", None
        if manifest.is_image:
            role = "manifest"
            if config.present:
                name = f"{self._where}: config {config.target.digest}"
                image = parse_rootfs(await self._read(config.target), name)
        return Node(target, role, True, (config, *layers), image, info.labels, await self._referrers(info))

    async def _read(self, target: Descriptor) -> bytes:
        if target.size > MANIFEST_LIMIT:
            raise OutOfRange(f"{self._where}: {target.digest} has {target.size} bytes, the limit is {MANIFEST_LIMIT}")
        return await self._store.content.read(target.digest, MANIFEST_LIMIT)

    async def _referrers(self, info: Info) -> tuple[Descriptor, ...]:
        digests = [value for key, value in sorted(info.labels.items()) if key.startswith(REFERRER)]
        return tuple([await self._referrer(digest) for digest in digests if DIGEST.fullmatch(digest)])

    async def _referrer(self, digest: str) -> Descriptor:
        try:
            data = await self._store.content.read(digest, MANIFEST_LIMIT)
        except NotFound:
            return Descriptor("", digest, 0)
        document = parse_object(data, f"{self._where}: referrer {digest}")
        kind = document.get("artifactType") or document.get("mediaType")
        return Descriptor(kind if isinstance(kind, str) else "", digest, len(data))


async def survey(store: Store, name: str, wanted: Wanted = None) -> Node:
    """Return the parts of an image. Raises NotFound if there is no image of the name."""
    image = await store.images.get(name)
    return await Survey(store, f"image {name}", wanted).look(image.target)


def missing(nodes: Sequence[Node]) -> list[Node]:
    """Return the missing blobs among nodes and everything below them, each once."""
    found = {node.target.digest: node for root in nodes for node in root.below() if not node.present}
    return list(found.values())
