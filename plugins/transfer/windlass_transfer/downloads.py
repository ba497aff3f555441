"""Brings the blobs of an image from a registry to the store, each once, also when several transfers want it.

Bytes go from the connection to the ingest in one thread; the event loop sees none of them. Bytes that came before a
connection, a transfer or the daemon broke off are not fetched again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from windlass.contracts.content import ContentStore, Writer
from windlass.contracts.transfer import Progress, Report
from windlass.contracts.values import MAX_LABEL, Descriptor
from windlass.errors import AlreadyExists, Error, FailedPrecondition, NotFound, ResourceExhausted
from windlass.gate import offload
from windlass.typing import override
from windlass_images.imagetree import Source
from windlass_images.manifests import (
    INDEXES,
    KNOWN_CONFIGS,
    MANIFEST_LIMIT,
    MANIFESTS,
    is_distributable,
    is_layer,
    parse_object,
)
from windlass_images.turns import Locked
from windlass_local import blobs
from windlass_local.store import LocalStore
from windlass_local.waiting import settled
from windlass_registry.blobs import Blob
from windlass_registry.ranges import Ranges
from windlass_registry.repository import Repository
from windlass_transfer.workers import Tools

ATTESTATIONS = ("application/vnd.in-toto+json",)
SOURCE = "containerd.io/distribution.source."
BLOCK = 1 << 20
LARGE = 64 << 20
"""Bytes from which on a layer is fetched over several connections."""
TRIES = 3
"""A blob whose bytes are wrong is fetched from its beginning, and from another host, as often."""
MOST_LAYERS = 1000
MOST_URLS = 8


def ref_of(desc: Descriptor) -> str:
    """Return what the ingest of a blob is called, as containerd calls it (docs/containerd 6.5.1)."""
    kinds = ((MANIFESTS, "manifest"), (INDEXES, "index"), (KNOWN_CONFIGS, "config"), (ATTESTATIONS, "attestation"))
    other = "layer" if is_layer(desc.media_type) else "unknown"
    return f"{next((name for types, name in kinds if desc.media_type in types), other)}-{desc.digest}"


class Downloads(Source):
    """The documents and layers of one pull, from its registry."""

    def __init__(self, tools: Tools, store: LocalStore, repository: Repository, report: Report, name: str) -> None:
        """Fetch to ``store``, under its lease; ``name`` is the image's."""
        self._tools = tools
        self._store = store
        self._repository = repository
        self._report = report
        self._name = name
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._urls: dict[str, tuple[str, ...]] = {}
        self._parents: dict[str, tuple[str, ...]] = {}
        self._loop = asyncio.get_running_loop()
        # With the commit, since every change of a blob afterwards is one more that waits for the disk.
        self._source = {SOURCE + repository.reference.hostname: repository.reference.repository}

    @override
    async def document(self, target: Descriptor, parent: Descriptor | None = None) -> None:
        self._below(target, parent)
        view = self._store.content.view

        def fetch() -> bytes:
            if target.media_type in MANIFESTS | INDEXES:
                return self._repository.manifest(target)
            if target.size > MANIFEST_LIMIT:
                raise ResourceExhausted(
                    f"config {target.digest} has {target.size} bytes, {MANIFEST_LIMIT} are the limit"
                )
            with self._repository.blob(target) as blob:
                return b"".join(iter(lambda: blob.read(BLOCK), b""))

        call = partial(_store, view, target, fetch, self._source)
        await self._once(target, lambda: self._tools.documents.run(call, self._repository.abort))
        self.tell("complete", target, target.size)
        if target.media_type in MANIFESTS:
            self._urls |= _urls(await self._store.content.read(target.digest, MANIFEST_LIMIT))

    @override
    async def layers(self, targets: Sequence[Descriptor], parent: Descriptor) -> None:
        if len(targets) > MOST_LAYERS:
            raise ResourceExhausted(f"image {self._name} has {len(targets)} layers, {MOST_LAYERS} are the limit")
        for target in targets:
            self._below(target, parent)
            if target.digest not in self._tasks:
                self.tell("waiting", target, 0)
                self._tasks[target.digest] = asyncio.create_task(self._layer(target))

    async def ready(self, target: Descriptor) -> None:
        """Wait for a layer; raise the error that kept it from coming."""
        await asyncio.shield(self._tasks[target.digest])

    async def finish(self) -> None:
        """Wait for all layers; the first that does not come ends it."""
        for task in asyncio.as_completed(list(self._tasks.values())):
            await task

    async def stop(self) -> None:
        """Give up what is still under way, and wait until it has ended."""
        left = [task for task in self._tasks.values() if not task.done()]
        if left:
            self._repository.abort()
        for task in left:
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _layer(self, target: Descriptor) -> None:
        async def fetch() -> None:
            async with self._tools.downloads:
                await self._tools.layers.run(lambda: self._fetch(target), self._repository.abort)

        fetched = await self._once(target, fetch)
        self.tell("complete" if fetched else "already exists", target, target.size)

    async def _once(self, target: Descriptor, fetch: Callable[[], Awaitable[None]]) -> bool:
        """Have a blob, fetched unless it is there; say whether it was. Another client that writes it is waited for."""
        turn = self._store.content.turn(ref_of(target))
        async with self._tools.blobs(target.digest):
            while not await self._has(target):
                try:
                    await fetch()
                    return True
                except Locked:
                    await turn.wait()
            await self._named_source(target)
            return False

    async def _has(self, target: Descriptor) -> bool:
        """Say whether the namespace has a blob, which the lease then holds."""
        try:
            info = await self._store.content.info(target.digest)
        except NotFound:
            return False
        if info.size != target.size:
            raise FailedPrecondition(
                f"image {self._name}: blob {target.digest} has {info.size} bytes, its descriptor says {target.size}"
            )
        return await settled(offload(_is_held, self._store.content.view, target))

    def _fetch(self, target: Descriptor) -> None:
        """Fetch a layer, in a thread."""
        view, ref = self._store.content.view, ref_of(target)
        for number in range(TRIES):
            try:
                writer = blobs.opened(view, ref, target.size, target.digest, target.media_type)
            except AlreadyExists:
                return  # it has come otherwise meanwhile
            try:
                blob = self._receive(writer, target)
                try:
                    blobs.commit_or_label(view, writer, target, self._source)
                    return
                except FailedPrecondition as error:
                    self._distrust(blob, number, target, error)
            finally:
                writer.close()
            blobs.abort(view, ref)

    def _receive(self, writer: Writer, target: Descriptor) -> Blob | Ranges:
        """Bring an ingest to its full size. Whether the bytes are right is the writer's to say."""
        offset, urls = writer.status().offset, self._urls.get(target.digest, ())
        blob: Blob | Ranges = self._repository.blob(target, offset, urls=urls, verify=False)
        if self._tools.connections > 1 and target.size - offset >= LARGE and not urls:
            blob = self._repository.ranges(target, offset, self._tools.connections)
        with blob:
            while _moved(blob, writer):
                self._tell_from_thread("downloading", target, blob.position)
        return blob

    def _distrust(self, blob: Blob | Ranges, number: int, target: Descriptor, error: Error) -> None:
        """Take it that the bytes were wrong: those of an earlier attempt, or of a host that is not asked again."""
        if blob.host is not None and blob.began == 0:
            self._repository.distrust(blob.host)
        if number + 1 == TRIES or not self._repository.hosts("pull"):
            where = f" from {blob.host.authority}" if blob.host is not None else ""
            raise FailedPrecondition(
                f"fetch blob of {self._repository.reference.locator} {target.digest}{where}: {error}"
            ) from None

    async def _named_source(self, target: Descriptor) -> None:
        """Remember where else a blob is, so that a later push can have it mounted (docs/containerd 6.5.4)."""
        ((key, repository),) = self._source.items()
        value = appended((await self._store.content.info(target.digest)).labels, key, repository)
        if value is not None:
            await self._store.content.label(target.digest, {key: value})

    def _below(self, target: Descriptor, parent: Descriptor | None) -> None:
        if parent is not None:
            known = self._parents.get(target.digest, ())
            self._parents[target.digest] = tuple(dict.fromkeys([*known, ref_of(parent)]))

    def tell(self, event: str, target: Descriptor, progress: int) -> None:
        """Report a step of what the documents above name as theirs; the image itself is above the first."""
        parents = self._parents.get(target.digest) or (self._name,)
        self._report(Progress(event, ref_of(target), parents, progress, target.size, target))

    def _tell_from_thread(self, event: str, target: Descriptor, progress: int) -> None:
        self._loop.call_soon_threadsafe(self.tell, event, target, progress)


def _moved(blob: Blob | Ranges, writer: Writer) -> bool:
    """Write what comes next; say whether anything did.

    Here, so that the last of a blob whose next bytes do not come is not in the traceback of that.
    """
    data = blob.read(BLOCK)
    if data:
        writer.write(data)
    return bool(data)


def appended(labels: Mapping[str, str], key: str, repository: str) -> str | None:
    """Return a list of repositories with one more in it; None when it is in already, or has no room."""
    known = {name for name in labels.get(key, "").split(",") if name}
    value = ",".join(sorted({*known, repository}))
    return None if repository in known or len(key) + len(value) > MAX_LABEL else value


def _is_held(view: ContentStore, target: Descriptor) -> bool:
    """Have the lease hold a blob that is there; say whether it still was."""
    ref = f"hold-{target.digest}"
    try:
        writer = view.writer(ref, target.size, target.digest)
    except AlreadyExists:
        return True
    writer.close()
    blobs.abort(view, ref)
    return False


def _store(view: ContentStore, target: Descriptor, fetch: Callable[[], bytes], labels: Mapping[str, str]) -> None:
    try:
        writer = blobs.opened(view, ref_of(target), target.size, target.digest, target.media_type)
    except AlreadyExists:
        return
    try:
        # Only now: a transfer that finds the ingest locked tries again, and registries count requests.
        data = fetch()
        if writer.status().offset:
            writer.truncate(0)
        writer.write(data)
        blobs.commit_or_label(view, writer, target, labels)
    finally:
        writer.close()


def _urls(manifest: bytes) -> dict[str, tuple[str, ...]]:
    """Return where the foreign layers of a manifest lie, by digest; other layers come from the registry alone."""
    found = {}
    layers = parse_object(manifest, "manifest").get("layers")
    for layer in layers if isinstance(layers, list) else []:
        urls = layer.get("urls")
        if isinstance(urls, list) and not is_distributable(layer["mediaType"]):
            found[layer["digest"]] = tuple(url for url in urls[:MOST_URLS] if isinstance(url, str))
    return found
