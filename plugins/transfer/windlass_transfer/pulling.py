"""A pull: resolved, judged, fetched and unpacked at the same time, and named at the end (docs/containerd 6.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from windlass.contracts.transfer import Progress, Registry, Report, Stored, Unpack
from windlass.contracts.values import Descriptor
from windlass.errors import Error, InvalidArgument
from windlass_images import naming
from windlass_images.imagetree import Leaf, Tree, Walk
from windlass_images.manifests import INDEXES, MANIFESTS
from windlass_images.unpack import Ways, unpack
from windlass_local.store import LocalStore
from windlass_registry.repository import Repository
from windlass_transfer.downloads import Downloads
from windlass_transfer.progress import kept_moving
from windlass_transfer.workers import Tools, named

Admit = Callable[[str, Descriptor], Awaitable[None]]


class Pull:
    """One pull on its way."""

    def __init__(
        self,
        tools: Tools,
        store: LocalStore,
        repository: Repository,
        report: Report,
        admit: Admit,
        width: int,
        strict: bool,
    ) -> None:
        """Fetch from ``repository`` to ``store``; ``width`` layers of an image are applied at a time.

        If ``strict``, nothing is unpacked for a platform but what is for it.
        """
        self._tools = tools
        self._store = store
        self._repository = repository
        self._report = report
        self._admit = admit
        self._width = width
        self._strict = strict

    async def run(self, source: Registry, wanted: Stored, unpacks: Sequence[Unpack]) -> None:
        """Pull, and return when the image has its name; of a pull that fails or is cancelled nothing stays."""
        patience = self._store.parts.patience if source.patience is None else source.patience
        async with kept_moving(self._repository.meter, patience, f"image {source.reference}"):
            await self._run(source, wanted, unpacks)

    async def _run(self, source: Registry, wanted: Stored, unpacks: Sequence[Unpack]) -> None:
        name = source.reference
        origin = f"OCI Registry ({name})"
        self._report(Progress(f"Resolving from {origin}"))
        desc = await self._tools.documents.run(self._repository.resolve, self._repository.abort)
        if desc.media_type not in MANIFESTS | INDEXES:
            raise InvalidArgument(
                f"image {name} is a {desc.media_type[:100]!r}, which is neither a manifest nor an index"
            )
        await self._admit(name, desc)
        self._report(Progress(f"Pulling from {origin}"))
        async with self._store.lease("pull") as store:
            downloads = Downloads(self._tools, store, self._repository, self._report, name)
            try:
                tree = await self._bring(downloads, store, desc, wanted, unpacks)
                await downloads.finish()
            finally:
                await asyncio.shield(downloads.stop())
            for each in naming.whole(wanted.name or name, wanted.extra_references, tree.root):
                await store.images.put(each, tree.root, naming.labels(each, wanted))
                self._report(Progress("saved", each, desc=tree.root))
        self._report(Progress(f"Completed pull from {origin}"))

    async def _bring(
        self, downloads: Downloads, store: LocalStore, desc: Descriptor, wanted: Stored, unpacks: Sequence[Unpack]
    ) -> Tree:
        """Return the image's tree, whose layers may still be on their way; what is to be unpacked is."""
        self._report(Progress("fetching image content", str(self._repository.reference), desc=desc))
        chosen = wanted.platforms or None
        where = f"image {self._repository.reference}"
        walk = Walk(store, downloads, where, chosen, limit=wanted.manifest_limit, all_metadata=wanted.all_metadata)
        tree = await walk.tree(desc)
        for each in unpacks:
            for leaf in tree.leaves_for(each.platform, self._strict):
                await self._unpack(downloads, store, each.snapshotter, leaf)
        return tree

    async def _unpack(self, downloads: Downloads, store: LocalStore, snapshotter: str, leaf: Leaf) -> None:
        layers = {layer.digest: layer for layer in leaf.manifest.filesystem}

        def show(verb: str, digest: str, done: int, total: int) -> None:
            downloads.tell("extracted" if done == total else "extracting", layers[digest], done)

        ways = Ways(self._width, downloads.ready, self._tools.snapshots)
        try:
            await unpack(store, snapshotter, leaf, show, ways)
        except Error as error:
            raise named(error, f"image {self._repository.reference}") from None
