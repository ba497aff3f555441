"""Layers in another form: taken apart and put together in a thread, through files without names, never in memory."""

from __future__ import annotations

import asyncio
import enum
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import IO

from windlass.contracts.content import CHUNK
from windlass.contracts.diff import LABEL_UNCOMPRESSED
from windlass.contracts.values import Descriptor
from windlass.errors import DataLoss, InvalidArgument, OutOfRange
from windlass_images import compression, estargz
from windlass_images.compression import Compressor
from windlass_images.manifests import LAYER
from windlass_images.pipes import ChunkReader, Incoming, chunks_of
from windlass_images.store import Store

PLAIN_LIMIT = 256 << 30
"""Bytes that a layer may unpack to; a gzip bomb is found here."""

Step = Callable[[int], None]
"""Gets the number of bytes of the layer that have been read; called on the loop."""


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
    """The result of repacking a layer, in addition to the file."""

    diff_id: str
    digest: str
    annotations: Mapping[str, str]


async def repack(
    store: Store, layer: Descriptor, form: Form, where: str, diff_id: str = "", step: Step = lambda done: None
) -> tuple[Descriptor, str]:
    """Write a layer in another form; return its descriptor and its diff ID then, which its blob is labelled with.

    Raises InvalidArgument for a damaged layer, and for one that does not unpack to ``diff_id``.
    """
    name = f"{where}: layer {layer.digest}"
    with tempfile.TemporaryFile() as out:
        incoming = Incoming(ChunkReader(_counted(store, layer, step)))
        try:
            packed = await asyncio.to_thread(_pack, incoming, form, out, name, diff_id)
        finally:
            incoming.close()
        size = out.seek(0, 2)
        out.seek(0)
        ref = f"{store.lease_id}-convert-{form.value}-{layer.digest}"
        labels = {LABEL_UNCOMPRESSED: packed.diff_id}
        await store.content.write(ref, chunks_of(out), size, packed.digest, labels)
    kept = {key: value for key, value in layer.annotations.items() if key not in estargz.ANNOTATIONS}
    return Descriptor(form.media_type, packed.digest, size, {**kept, **packed.annotations}), packed.diff_id


async def _counted(store: Store, layer: Descriptor, step: Step) -> AsyncIterator[bytes]:
    done = 0
    async for chunk in store.content.chunks(layer.digest):
        done += len(chunk)
        step(done)
        yield chunk
    if done != layer.size:
        raise DataLoss(f"layer {layer.digest} has {done} bytes in the store, its descriptor says {layer.size}")


def _pack(incoming: Incoming, form: Form, out: IO[bytes], name: str, diff_id: str) -> Packed:
    damage: tuple[type[Exception], ...] = ()
    try:
        source, damage = compression.decompressed(incoming)
        if form is Form.ESTARGZ:
            with tempfile.TemporaryFile() as plain:
                _copy(source, compression.plain(), plain, diff_id)
                plain.seek(0)
                built = estargz.build(plain, out)
            return Packed(built.diff_id, _digest_of(out), built.annotations)
        found = _copy(source, COMPRESSORS[form](), out, diff_id)
        return Packed(found, _digest_of(out), {})
    except (InvalidArgument, OutOfRange) as error:
        raise type(error)(f"{name}: {error}") from None
    except damage as error:
        raise InvalidArgument(f"{name} {compression.why(error)}") from None


def _copy(source: IO[bytes], compressor: Compressor, out: IO[bytes], expected: str) -> str:
    """Pack all of a stream into a file and return the digest of what went in, which is the expected if any is."""
    found, size = hashlib.sha256(), 0
    while data := source.read(CHUNK):
        size += len(data)
        if size > PLAIN_LIMIT:
            raise OutOfRange(f"it unpacks to more than {PLAIN_LIMIT} bytes")
        found.update(data)
        out.write(compressor.compress(data))
    out.write(compressor.flush())
    digest = f"sha256:{found.hexdigest()}"
    if expected and digest != expected:
        raise InvalidArgument(f"it unpacks to {digest}, the config says {expected}")
    return digest


def _digest_of(file: IO[bytes]) -> str:
    found = hashlib.sha256()
    file.seek(0)
    while data := file.read(CHUNK):
        found.update(data)
    return f"sha256:{found.hexdigest()}"
