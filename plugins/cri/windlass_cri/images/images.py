"""Images as CRI has them: known by the digest of their config (docs/containerd 5.10).

The daemon's image store is read once, and then what its events name. Lists and statuses read memory alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, suppress
from dataclasses import field

from windlass.contracts.events import Envelope, Exchange
from windlass.contracts.images import Image as Row
from windlass.errors import Error, NotFound, Unknown
from windlass.gate import offload
from windlass.records import dataclass
from windlass_api.containerd.services.images.v1.events_pb2 import ImageCreate, ImageDelete, ImageUpdate
from windlass_cri.record import NAMESPACE
from windlass_images import platforms
from windlass_images.dockersave import full_name
from windlass_images.imagetree import Leaf, resolve
from windlass_images.manifests import MANIFEST_LIMIT
from windlass_local.inside import LocalNamespace
from windlass_registry.references import parse

logger = logging.getLogger(__name__)

MANAGED, PINNED = "io.cri-containerd.image", "io.cri-containerd.pinned"
EVENTS = [f"namespace=={NAMESPACE},topic~=^/images/"]
KINDS: dict[str, type[ImageCreate | ImageUpdate | ImageDelete]] = {
    "/images/create": ImageCreate,
    "/images/update": ImageUpdate,
    "/images/delete": ImageDelete,
}


@dataclass
class Image:
    """An image: its ID is the digest of its config."""

    id: str
    names: list[str] = field(default_factory=list)
    """As the daemon's image store has them, but the ID."""
    size: int = 0
    user: str = ""
    stop_signal: str = ""
    digest: str = ""
    """Of what the names point to."""
    chain_id: str = ""
    """The name that its snapshot has."""
    pinned: bool = False
    """Whether the kubelet must not collect it."""
    listed: bytes = field(default=b"", compare=False, repr=False)
    """Its bytes in a list, empty before one is asked for (`windlass_cri.views.image_entry`)."""

    @property
    def tags(self) -> list[str]:
        """Names with a tag."""
        return sorted(name for name in self.names if "@" not in name)

    @property
    def digests(self) -> list[str]:
        """Names with a digest."""
        return sorted(name for name in self.names if "@" in name)


@dataclass(frozen=True)
class _Named:
    """What one name of the daemon's image store stands for."""

    id: str
    leaf: Leaf
    digest: str
    pinned: bool


class Images:
    """The images of CRI's namespace."""

    def __init__(
        self, namespace: LocalNamespace, exchange: Exchange, snapshotter: str, pinned: Collection[str] = ()
    ) -> None:
        """Know no image before `start`; ``pinned`` are names of images that the kubelet must keep."""
        self.snapshotter = snapshotter
        self.namespace = namespace
        self._exchange = exchange
        self._pinned = frozenset(pinned)
        self._names: dict[str, _Named] = {}
        self._images: dict[str, Image] = {}
        self._turn = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Read the daemon's image store, and follow it from now on."""
        events = await self._stack.enter_async_context(self._exchange.subscribe(EVENTS))
        for row in await self.namespace.images.list():
            with suppress(NotFound):
                await self.update(row.name)
        following = asyncio.create_task(self._follow(events))
        self._stack.callback(following.cancel)

    async def stop(self) -> None:
        """Follow the daemon's image store no longer."""
        await self._stack.aclose()

    async def _follow(self, events: AsyncIterator[Envelope]) -> None:
        async for envelope in events:
            try:
                name = KINDS[envelope.topic].FromString(envelope.event.value).name
                await self.update(name)
            except NotFound:
                continue  # removed meanwhile: the next event says so
            except Error as error:
                logger.warning("image event %s: %s", envelope.topic, error)

    async def update(self, name: str) -> None:
        """Read what the daemon's image store has under a name; label an image that another client has brought."""
        # In turns, so that an older state is never written over a newer one.
        async with self._turn:
            try:
                row: Row | None = await self.namespace.images.get(name)
            except NotFound:
                row = None
            found = await self._read(row) if row else None
            self._remember(name, found)
        if row is None or found is None:
            return
        labels = self.labels(name)
        if any(row.labels.get(key) != value for key, value in labels.items()):
            # Never made anew: another client may just have removed it.
            await self._label(name, row, labels)
            if name != found.id:
                await self.put(found.id, row, labels)

    async def put(self, name: str, row: Row, labels: dict[str, str]) -> None:
        """Let a name stand for an image, with labels added to those that it has."""
        images = self.namespace.images
        try:
            known = await images.get(name)
            if known.target.digest == row.target.digest:
                await self._label(name, row, labels)
                return
            labels = {**known.labels, **labels}
        except NotFound:
            pass
        await images.put(name, row.target, labels)

    async def _label(self, name: str, row: Row, labels: dict[str, str]) -> None:
        """Add labels to those that a name has. Raises NotFound."""
        view = self.namespace.parts.metadata.images(NAMESPACE)
        await offload(view.update, Row(name, row.target, labels), [f"labels.{label}" for label in labels])

    def labels(self, name: str) -> dict[str, str]:
        """Return the labels that an image of ours has."""
        return {MANAGED: "managed", **({PINNED: "pinned"} if name in self._pinned else {})}

    async def _read(self, row: Row) -> _Named | None:
        pinned = PINNED in row.labels
        known = self._names.get(row.name)
        if known is not None and known.digest == row.target.digest:
            return _Named(known.id, known.leaf, known.digest, pinned)
        try:
            leaf = await resolve(self.namespace, row.name, platforms.host())
        except Error as error:
            logger.debug("image %s is left out: %s", row.name, error)  # not for this machine, or not all there yet
            return None
        return _Named(leaf.manifest.config.digest, leaf, row.target.digest, pinned)

    def _remember(self, name: str, found: _Named | None) -> None:
        touched = {each.id for each in (self._names.pop(name, None), found) if each is not None}
        if found is not None:
            self._names[name] = found
        for id in touched:
            self._compose(id)

    def _compose(self, id: str) -> None:
        """Put an image together of its names."""
        names = {name: each for name, each in self._names.items() if each.id == id}
        if not names:
            self._images.pop(id, None)
            return
        each = names.get(id) or next(iter(names.values()))
        self._images[id] = Image(
            id,
            [name for name in names if name != id],
            _size(each.leaf),
            each.leaf.image.user,
            each.leaf.image.stop_signal,
            each.digest,
            each.leaf.image.chain_id,
            any(each.pinned for each in names.values()),
        )

    def all(self) -> list[Image]:
        """Return every image."""
        return list(self._images.values())

    def get(self, id: str) -> Image | None:
        """Return an image by its ID."""
        return self._images.get(id)

    def name_of(self, id: str) -> str:
        """Return a name by which the daemon's image store has an image. Raises NotFound."""
        image = self._images.get(id)
        if image is None:
            raise NotFound(f"image {id} does not exist")
        return next(iter([*image.tags, *image.digests]), id)

    def find(self, reference: str) -> Image | None:
        """Return an image by ID, by the beginning of its ID, or by a name; None without. Raises Unknown for no text."""
        if not reference:
            raise Unknown('can not resolve "" locally: ambiguous digest string')
        for key in (reference, f"sha256:{reference}"):
            if key in self._images:
                return self._images[key]
        try:
            name = str(parse(full_name(reference)))
        except Error:
            name = ""  # which no image has
        if name in self._names:
            return self._images[self._names[name].id]
        prefix = reference.removeprefix("sha256:")
        if prefix and len(prefix) < 64 and set(prefix) <= set("0123456789abcdef"):
            found = [image for id, image in self._images.items() if id.startswith(f"sha256:{prefix}")]
            if len(found) == 1:
                return found[0]
        return None

    async def resolve(self, reference: str) -> str:
        """Return the ID of an image that is here. Raises NotFound."""
        image = self.find(reference)
        if image is None:
            raise NotFound(f'image "{reference[:200]}" is not here; pull it first')
        return image.id

    async def config(self, image: Image) -> bytes:
        """Return an image's config. Raises NotFound for one that has been removed meanwhile."""
        return await self.namespace.content.read(image.id, MANIFEST_LIMIT)

    async def remove(self, reference: str) -> None:
        """Remove an image with all its names; one that is not here is not an error."""
        image = self.find(reference)
        if image is None:
            return
        names = [*image.names, image.id]
        for name in names:
            try:
                await self.namespace.images.delete(name, sync=name == names[-1])
            except NotFound:
                pass
            await self.update(name)


def _size(leaf: Leaf) -> int:
    parts = [leaf.target, leaf.manifest.config, *leaf.manifest.layers]
    return sum(part.size for part in parts)


def users(image: Image) -> tuple[int | None, str]:
    """Return an image's user as CRI shows it: a number or a name."""
    user = image.user.partition(":")[0]
    if user.isascii() and user.isdecimal() and len(user) < 19:
        return int(user), ""
    return None, user
