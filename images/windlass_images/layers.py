"""Layers in another form: taken apart and put together in a thread, through files without names, never in memory."""

from __future__ import annotations

import asyncio
import enum
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import IO

from windlass.content import CHUNK
from windlass.errors import DataLoss, InvalidArgument, OutOfRange
from windlass.values import Descriptor
from windlass_images import compression, estargz
from windlass_images.compression import Compressor
from windlass_images.manifests import LAYER
from windlass_images.pipes import ChunkReader, Incoming, chunks_of
from windlass_images.store import Store
from windlass_images.unpack import UNCOMPRESSED

PLAIN_LIMIT = 256 << 30
"""Bytes that a layer may unpack to; a gzip bomb is found here."""

Step = Callable[[int], None]
"""Is told the bytes of the layer that have been read; called on the loop."""


class Form(enum.Enum):
    """How a layer's tar is packed."""

    PLAIN = "uncompressed"
    GZIP = "gzip"
    ZSTD = "zstd"
    ESTARGZ = "estargz"

    @property
    def media_type(self) -> str:
        """The OCI media type of such a layer."""
        suffixes = {Form.PLAIN: "", Form.ZSTD: "+zstd"}
        return LAYER + suffixes.get(self, "+gzip")


COMPRESSORS: Mapping[Form, Callable[[], Compressor]] = {
    Form.PLAIN: compression.plain,
    Form.GZIP: compression.gzipped,
    Form.ZSTD: compression.zstandardized,
}


@dataclass(frozen=True)
class Packed:
    """What packing a layer anew has made, besides the file."""

    source_id: str
    """Diff ID of the layer as it was."""
    diff_id: str
    digest: str
    annotations: Mapping[str, str]


async def repack(
    store: Store, layer: Descriptor, form: Form, where: str, diff_id: str = "", step: Step = lambda done: None
) -> Descriptor:
    """Write a layer in another form and return its descriptor, whose blob is labelled with its diff ID.

    Raises InvalidArgument for a damaged layer, and for one that does not unpack to ``diff_id``.
    """
    name = f"{where}: layer {layer.digest}"
    with tempfile.TemporaryFile() as out:
        incoming = Incoming(ChunkReader(_counted(store, layer, step)))
        try:
            packed = await asyncio.to_thread(_pack, incoming, form, out, name)
        finally:
            incoming.close()
        if diff_id and packed.source_id != diff_id:
            raise InvalidArgument(f"{name} unpacks to {packed.source_id}, the config says {diff_id}")
        size = out.seek(0, 2)
        out.seek(0)
        ref = f"{store.lease_id}-convert-{form.value}-{layer.digest}"
        labels = {UNCOMPRESSED: packed.diff_id}
        await store.content.write(ref, chunks_of(out), size, packed.digest, labels)
    kept = {key: value for key, value in layer.annotations.items() if key not in estargz.ANNOTATIONS}
    return Descriptor(form.media_type, packed.digest, size, {**kept, **packed.annotations})


async def _counted(store: Store, layer: Descriptor, step: Step) -> AsyncIterator[bytes]:
    done = 0
    async for chunk in store.content.chunks(layer.digest):
        done += len(chunk)
        step(done)
        yield chunk
    if done != layer.size:
        raise DataLoss(f"layer {layer.digest} has {done} bytes in the store, its descriptor says {layer.size}")


def _pack(incoming: Incoming, form: Form, out: IO[bytes], name: str) -> Packed:
    damage: tuple[type[Exception], ...] = ()
    try:
        source, damage = compression.decompressed(incoming)
        if form is Form.ESTARGZ:
            with tempfile.TemporaryFile() as plain:
                source_id = _copy(source, compression.plain(), plain)
                plain.seek(0)
                built = estargz.build(plain, out)
            return Packed(source_id, built.diff_id, _digest_of(out), built.annotations)
        source_id = _copy(source, COMPRESSORS[form](), out)
        return Packed(source_id, source_id, _digest_of(out), {})
    except (InvalidArgument, OutOfRange) as error:
        raise type(error)(f"{name}: {error}") from None
    except damage as error:
        raise InvalidArgument(f"{name} is damaged: {str(error)[:200]}") from None


def _copy(source: IO[bytes], compressor: Compressor, out: IO[bytes]) -> str:
    """Pack all of a stream into a file and return the digest of what went in."""
    found, size = hashlib.sha256(), 0
    while data := source.read(CHUNK):
        size += len(data)
        if size > PLAIN_LIMIT:
            raise OutOfRange(f"it unpacks to more than {PLAIN_LIMIT} bytes")
        found.update(data)
        out.write(compressor.compress(data))
    out.write(compressor.flush())
    return f"sha256:{found.hexdigest()}"


def _digest_of(file: IO[bytes]) -> str:
    found = hashlib.sha256()
    file.seek(0)
    while data := file.read(CHUNK):
        found.update(data)
    return f"sha256:{found.hexdigest()}"
