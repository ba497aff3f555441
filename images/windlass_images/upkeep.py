"""Which images are complete and unpacked, how much space they take, and which are unused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from windlass.contracts.images import Image
from windlass.contracts.values import Descriptor
from windlass.errors import Error, NotFound
from windlass_images import platforms
from windlass_images.manifests import ImageConfig, chain_id
from windlass_images.platforms import Wanted
from windlass_images.store import Store
from windlass_images.survey import Node, Survey, missing
from windlass_images.unpack import exists


@dataclass(frozen=True)
class Usage:
    """Bytes that an image takes; what it shares with others counts for each."""

    content: int
    snapshots: int


@dataclass(frozen=True)
class Condition:
    """The condition of an image; one that cannot be read has only an ``error``."""

    name: str
    digest: str
    required: int = 0
    missing: tuple[Descriptor, ...] = ()
    size: int = 0
    """Bytes of all that is required."""
    usage: Usage = Usage(0, 0)
    unpacked: bool = False
    """Whether all that this machine can run of it is there as snapshots."""
    available: bool = True
    """Whether there is anything for the wanted platforms."""
    error: str = ""

    @property
    def status(self) -> str:
        """``complete``, ``incomplete``, ``unavailable`` (nothing for the wanted platforms) or ``damaged``."""
        if self.error:
            return "damaged"
        if self.missing:
            return "incomplete"
        return "complete" if self.available else "unavailable"


async def check(store: Store, image: Image, snapshotter: str, wanted: Wanted = None) -> Condition:
    """Return the condition of an image for the wanted platforms."""
    try:
        node = await Survey(store, f"image {image.name}", wanted).look(image.target)
        chains = [image.chain_id for image in _runnable(node)]
        unpacked = bool(chains) and all([not chain or await exists(store, snapshotter, chain) for chain in chains])
        nodes = list(node.below())
        return Condition(
            image.name,
            image.target.digest,
            len(nodes),
            tuple(each.target for each in missing([node])),
            sum(each.target.size for each in nodes),
            await _usage(store, node, snapshotter),
            unpacked,
            available=node.role != "index" or bool(node.children),
        )
    except Error as error:
        return Condition(image.name, image.target.digest, error=str(error))


def _runnable(root: Node) -> Sequence[ImageConfig]:
    images = [node for node in root.images() if node.image]
    chosen = platforms.best(platforms.host(), images, lambda node: node.platform)
    return [node.image for node in chosen if node.image]


async def _usage(store: Store, root: Node, snapshotter: str) -> Usage:
    content = sum(node.target.size for node in root.below() if node.present)
    images = [node.image for node in root.images() if node.image]
    chains = {chain_id(image.diff_ids[:number]) for image in images for number in range(1, len(image.diff_ids) + 1)}
    snapshots = 0
    for chain in sorted(chains):
        try:
            snapshots += (await store.snapshots.usage(snapshotter, chain)).size
        except NotFound:
            pass  # not unpacked
    return Usage(content, snapshots)


async def prune(store: Store, used: Collection[str], *filters: str) -> list[str]:
    """Delete the images that are not among the used names, and the content that only they needed."""
    names = [image.name for image in await store.images.list(*filters) if image.name not in used]
    gone = []
    for number, name in enumerate(names):
        try:
            await store.images.delete(name, sync=number == len(names) - 1)
            gone.append(name)
        except NotFound:
            pass  # another client was quicker
    return gone
