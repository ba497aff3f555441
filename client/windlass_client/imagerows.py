"""Images as docker's client lists them: repository and tag, an ID, an age, and what the unpacked layers take."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from windlass.contracts.values import Descriptor
from windlass.errors import Error, NotFound
from windlass_client.shortnames import familiar
from windlass_images import platforms
from windlass_images.manifests import (
    INDEXES,
    MANIFEST_LIMIT,
    ImageConfig,
    Manifest,
    chain_id,
    parse_index,
    parse_manifest,
    parse_object,
    parse_rootfs,
)
from windlass_remote.messages import from_descriptor

if TYPE_CHECKING:
    from windlass_api.containerd.services.images.v1.images_pb2 import Image
    from windlass_client.client import Client

NONE = "<none>"
MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")
T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """What the store has of an image for this machine; empty where a blob is missing, or it is for another machine."""

    config: str = ""
    """The digest of the config, which is docker's ID of an image."""
    document: dict[str, object] = field(default_factory=dict)
    manifest: Manifest | None = None
    image: ImageConfig | None = None

    @property
    def created(self) -> float:
        """When it was made, as seconds since 1970, 0 if it does not say."""
        return seconds(self.document.get("created"))


@dataclass(frozen=True)
class Listed:
    """A row."""

    name: str
    id: str
    digest: str
    created: float
    size: int
    labels: dict[str, str]

    @property
    def repository(self) -> str:
        """The name without tag and digest, as people type it."""
        name = self.name.partition("@")[0]
        return familiar(name.removesuffix(f":{self.tag}")) if self.tag != NONE else familiar(name)

    @property
    def tag(self) -> str:
        """The tag, ``<none>`` for a name with a digest only."""
        last = self.name.partition("@")[0].rpartition("/")[2]
        return last.partition(":")[2] or NONE

    @property
    def dangling(self) -> bool:
        """Whether it has no tag."""
        return self.tag == NONE


class Reader:
    """Reads images; what several have in common is asked for once."""

    def __init__(self, client: Client, snapshotter: str = "") -> None:
        """Take sizes from a snapshotter; without one no size is asked for."""
        self._client = client
        self._snapshotter = snapshotter
        self._usages: dict[str, asyncio.Task[int | None]] = {}

    async def known(self, target: Descriptor) -> Known:
        """Return what an image is on this machine; errors in its documents count as missing."""
        try:
            if target.media_type in INDEXES:
                index = parse_index(await self._read(target), target.digest, target.media_type)
                chosen = platforms.best(platforms.host(), list(index.manifests), lambda each: each.platform)
                target = (chosen or list(index.manifests))[0]
            manifest = parse_manifest(await self._read(target), target.digest, target.media_type)
            data = await self._read(manifest.config)
            document = parse_object(data, manifest.config.digest)
            image = parse_rootfs(data, manifest.config.digest) if manifest.is_image else None
        except (Error, IndexError):
            return Known()
        return Known(manifest.config.digest, document, manifest, image)

    async def _read(self, target: Descriptor) -> bytes:
        return await self._client.content.read(target.digest, MANIFEST_LIMIT)

    async def layers(self, known: Known) -> list[int]:
        """Return the bytes of each layer: unpacked, or as its blob if it is not unpacked."""
        if known.manifest is None or known.image is None:
            return []
        diff_ids = known.image.diff_ids
        chains = [chain_id(diff_ids[: number + 1]) for number in range(len(diff_ids))]
        usages = await asyncio.gather(*(self._usage(chain) for chain in chains))
        blobs = [layer.size for layer in known.manifest.filesystem]
        return [
            blob if usage is None else usage for usage, blob in zip(usages, [*blobs, *[0] * len(usages)], strict=False)
        ]

    def _usage(self, chain: str) -> Awaitable[int | None]:
        if chain not in self._usages:
            self._usages[chain] = asyncio.create_task(self._ask(chain))
        return self._usages[chain]

    async def _ask(self, chain: str) -> int | None:
        if not self._snapshotter:
            return None
        try:
            return (await self._client.snapshots.usage(self._snapshotter, chain)).size
        except NotFound:
            return None

    async def listed(self, image: Image) -> Listed:
        """Return an image's row."""
        known = await self.known(from_descriptor(image.target))
        size = sum(await self.layers(known))
        created = known.created or image.created_at.seconds
        return Listed(
            image.name, known.config or image.target.digest, image.target.digest, created, size, dict(image.labels)
        )


async def identified(client: Client, image: Image) -> str:
    """Return the ID of an image: the digest of its config for this machine, or of what it points to."""
    return (await Reader(client).known(from_descriptor(image.target))).config or image.target.digest


async def listed(client: Client, images: Sequence[Image]) -> list[Listed]:
    """Return the rows of images, the newest first."""
    from windlass_client.namespaces import SNAPSHOTTER

    reader = Reader(client, await client.namespaces.default(SNAPSHOTTER))
    rows = await asyncio.gather(*(reader.listed(image) for image in images))
    return sorted(rows, key=lambda row: (-row.created, row.name))


def seconds(text: object) -> float:
    """Return a time of RFC 3339, which may have nanoseconds, as seconds since 1970; 0 for anything else."""
    match = MOMENT.fullmatch(text) if isinstance(text, str) else None
    if not match:
        return 0
    try:
        whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
        return whole.astimezone(UTC).timestamp() + float(match[2] or 0)
    except (ValueError, OverflowError):
        return 0


def short(id: str) -> str:
    """Return an ID as it is shown."""
    return id.removeprefix("sha256:")[:12]
