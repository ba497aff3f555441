"""OCI layouts: reads oci-layout and index.json of an archive, and writes an index as a blob."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence

from windlass.contracts.values import Descriptor
from windlass.errors import InvalidArgument
from windlass_images.manifests import INDEX, INDEXES, parse_index, parse_object, to_json
from windlass_images.store import Store


def parse(documents: Mapping[str, bytes], where: str) -> Sequence[Descriptor]:
    """Return the descriptors of a layout's index."""
    layout = parse_object(documents["oci-layout"], f"{where}: oci-layout")
    if layout.get("imageLayoutVersion") != "1.0.0":
        version = str(layout.get("imageLayoutVersion"))[:40]
        raise InvalidArgument(f"{where} has OCI layout version {version}, only 1.0.0 is understood")
    if "index.json" not in documents:
        raise InvalidArgument(f"{where} has oci-layout, but no index.json")
    index = parse_index(documents["index.json"], f"{where}: index.json")
    if not index.manifests:
        raise InvalidArgument(f"{where}: index.json names no manifest")
    return index.manifests


async def write_index(store: Store, data: bytes | None, targets: Sequence[Descriptor]) -> Descriptor:
    """Write an index as a blob: that of an archive as it is, or one of targets, and return its descriptor."""
    if data is None:
        manifests = [to_json(target, target.annotations) for target in targets]
        data = compact({"schemaVersion": 2, "manifests": manifests})
    own = parse_object(data, "index.json").get("mediaType")
    return await write_document(store, data, own if isinstance(own, str) and own in INDEXES else INDEX)


def compact(document: object) -> bytes:
    """Return JSON as Go writes it, to the byte: without spaces, and with what HTML knows escaped."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


async def write_document(
    store: Store, data: bytes, media_type: str, labels: Mapping[str, str] | None = None
) -> Descriptor:
    """Write a document as a blob and return its descriptor."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    await store.content.write(f"{store.lease_id}-document-{digest}", chunks(), len(data), digest, labels)
    return Descriptor(media_type, digest, len(data))
