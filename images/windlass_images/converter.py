"""Conversion: a new image with the layers of another in a different form, and with matching documents.

Documents are changed as they are, so that what we do not know stays in them. The result is OCI throughout;
statements about the old image, such as attestations, do not come along: they name what it no longer is.

Source: docs/containerd 6.6.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from windlass.contracts.values import Descriptor
from windlass.errors import FailedPrecondition, NotFound
from windlass_images import platforms
from windlass_images.compression import GZIP, is_zstd
from windlass_images.estargz import TOC_DIGEST
from windlass_images.imagetree import keep_labels
from windlass_images.layers import Form, repack
from windlass_images.layouts import write_document
from windlass_images.manifests import (
    CONFIG,
    DOCKER_LAYER,
    INDEX,
    LAYER,
    MANIFEST,
    MANIFEST_LIMIT,
    is_distributable,
    is_layer,
    parse_object,
    to_json,
)
from windlass_images.platforms import Wanted
from windlass_images.store import Store
from windlass_images.survey import Node, Survey
from windlass_images.unpack import Progress, ignore

PARALLEL = 2
"""Layers that are converted at a time: each takes a processor."""

Document = dict[str, Any]
"""Any: JSON that a survey has read before."""


@dataclass(frozen=True)
class Options:
    """The wanted result of a conversion."""

    form: Form = Form.GZIP
    platforms: Wanted = None
    """What goes into the new image; None for all that the old one has."""


@dataclass(frozen=True)
class Converted:
    """A new image."""

    name: str
    target: Descriptor
    layers: Mapping[str, str] = field(default_factory=dict)
    """New digests of layers by old ones, of those that have changed."""


async def convert(store: Store, source: str, name: str, options: Options, progress: Progress = ignore) -> Converted:
    """Make an image of another. Raises NotFound if content of it is missing; then nothing new is kept."""
    async with store.lease(label="convert") as leased:
        image = await leased.images.get(source)
        where = f"image {source}"
        node = await Survey(leased, where, options.platforms).look(image.target)
        work = _Conversion(leased, where, options, progress)
        target = await work.convert(node)
        if node.role == "artifact":
            raise FailedPrecondition(f"{where} is an artifact, not an image: it has no layers that could be converted")
        if target is None:
            raise NotFound(f"{where} has nothing for {platforms.write_all(options.platforms)}; try --all-platforms")
        await leased.images.put(name, target, image.labels)
        return Converted(name, target, work.changed)


class _Conversion:
    """One conversion: each blob is converted once, however many documents name it."""

    def __init__(self, store: Store, where: str, options: Options, progress: Progress) -> None:
        self._store = store
        self._where = where
        self._options = options
        self._progress = progress
        self._turn = asyncio.Semaphore(PARALLEL)
        self._layers: dict[str, asyncio.Task[tuple[Descriptor, str]]] = {}
        self._done: dict[str, Descriptor | None] = {}
        self.changed: dict[str, str] = {}

    async def convert(self, node: Node) -> Descriptor | None:
        """Return the new descriptor of a node, None if the node is left out."""
        digest = node.target.digest
        if digest not in self._done:
            make = {"index": self._index, "manifest": self._manifest}.get(node.role)
            self._done[digest] = await make(node) if make else None
        return self._done[digest]

    async def _index(self, node: Node) -> Descriptor | None:
        document = await self._read(node)
        entries = {entry["digest"]: entry for entry in document["manifests"]}
        made = [(child, await self.convert(child)) for child in node.children]
        kept = [(entries[child.target.digest], target) for child, target in made if target is not None]
        if not kept:
            return None
        document["mediaType"] = INDEX
        document["manifests"] = [_replaced(entry, target) for entry, target in kept]
        return await self._write(document, INDEX, keep_labels([target for _, target in kept]))

    async def _manifest(self, node: Node) -> Descriptor:
        document = await self._read(node)
        config, *layers = node.children
        mine = [layer for layer in layers if is_layer(layer.target.media_type)]
        if node.image is None or len(node.image.diff_ids) != len(mine):
            raise FailedPrecondition(f"{self._where}: config {config.target.digest} is missing, or not of its layers")
        made = await self._convert_layers(mine, node.image.diff_ids)
        new_config = await self._config(config, node.image.diff_ids, [diff_id for _, diff_id in made])
        document["mediaType"] = MANIFEST
        document["config"] = _replaced(document["config"], new_config)
        changed = iter(layer for layer, _ in made)
        parts = [next(changed) if is_layer(layer.target.media_type) else layer.target for layer in layers]
        document["layers"] = [
            _replaced(entry, part, ("annotations",)) | to_json(part, part.annotations)
            for entry, part in zip(document["layers"], parts, strict=True)
        ]
        return await self._write(document, MANIFEST, keep_labels([new_config, *parts]))

    async def _convert_layers(self, layers: list[Node], diff_ids: tuple[str, ...]) -> list[tuple[Descriptor, str]]:
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            digest = layer.target.digest
            if digest not in self._layers:
                self._layers[digest] = asyncio.create_task(self._layer(layer, diff_id))
        tasks = [self._layers[layer.target.digest] for layer in layers]
        try:
            return [await task for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _layer(self, node: Node, diff_id: str) -> tuple[Descriptor, str]:
        """Return a layer in its new form and its diff ID then."""
        layer = node.target
        if not is_distributable(layer.media_type):
            return layer, diff_id
        if not node.present:
            raise NotFound(f"{self._where}: layer {layer.digest} is missing; pull it, or choose a --platform")
        if not layer.media_type.startswith((LAYER, DOCKER_LAYER)) or "encrypted" in layer.media_type:
            raise FailedPrecondition(
                f"{self._where}: layer {layer.digest} cannot be converted, its media type is {layer.media_type[:100]!r}"
            )
        form = self._options.form
        if _has_form(layer, form, await self._store.content.head(layer.digest, 4)):
            return Descriptor(form.media_type, layer.digest, layer.size, layer.annotations), diff_id
        async with self._turn:

            def step(done: int) -> None:
                self._progress("converting", layer.digest, done, layer.size)

            made, new_id = await repack(self._store, layer, form, self._where, diff_id, step)
        self.changed[layer.digest] = made.digest
        return made, new_id

    async def _config(self, node: Node, old: tuple[str, ...], new: list[str]) -> Descriptor:
        target = node.target
        if list(old) == new:
            return Descriptor(CONFIG, target.digest, target.size)
        document = await self._read(node)
        document["rootfs"]["diff_ids"] = new
        # Docker's notes about the original image do not hold for this one.
        document.pop("container_config", None)
        if isinstance(document.get("config"), dict):
            document["config"].pop("Image", None)
        return await self._write(document, CONFIG, {})

    async def _read(self, node: Node) -> Document:
        if not node.present:
            missing = f"{node.role} {node.target.digest}"
            raise NotFound(f"{self._where}: {missing} is missing; pull it, or choose a --platform")
        data = await self._store.content.read(node.target.digest, MANIFEST_LIMIT)
        return parse_object(data, f"{self._where}: {node.target.digest}")

    async def _write(self, document: Document, media_type: str, labels: Mapping[str, str]) -> Descriptor:
        data = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        return await write_document(self._store, data, media_type, labels)


def _has_form(layer: Descriptor, form: Form, magic: bytes) -> bool:
    """Return whether a layer is packed so already: by its media type, and by its first bytes, which may not agree."""
    packed = "+gzip" if magic.startswith(GZIP) else "+zstd" if is_zstd(magic) else ""
    kinds = {f"{LAYER}+gzip": "+gzip", f"{DOCKER_LAYER}.gzip": "+gzip", f"{LAYER}+zstd": "+zstd"}
    wanted = form.media_type.removeprefix(LAYER)
    called = kinds.get(layer.media_type, "")
    return called == packed == wanted and (form is not Form.ESTARGZ or TOC_DIGEST in layer.annotations)


def _replaced(entry: Document, target: Descriptor, without: Collection[str] = ()) -> Document:
    """Return a descriptor of a document, pointing elsewhere; platform and annotations stay."""
    changed = entry.get("digest") != target.digest
    kept = {key: value for key, value in entry.items() if key not in without}
    if changed:
        kept = {key: value for key, value in kept.items() if key not in ("data", "urls")}
    return kept | to_json(target, {})
