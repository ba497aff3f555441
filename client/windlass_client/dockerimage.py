"""An image as docker's inspect describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass_client.imagerows import Reader
from windlass_client.namespaces import SNAPSHOTTER
from windlass_client.shortnames import familiar
from windlass_remote.messages import from_descriptor

if TYPE_CHECKING:
    from windlass_api.containerd.services.images.v1.images_pb2 import Image
    from windlass_client.client import Client

NO_TIME = "0001-01-01T00:00:00Z"


async def document(client: Client, image: Image) -> dict[str, object]:
    """Return the description of an image, with what its config says if that is here."""
    reader = Reader(client, await client.namespaces.default(SNAPSHOTTER))
    known = await reader.known(from_descriptor(image.target))
    names = [each.name for each in await client.images.list(f"target.digest=={image.target.digest}")]
    config = known.document
    history = config.get("history")
    last = history[-1] if isinstance(history, list) and history and isinstance(history[-1], dict) else {}
    return {
        "Id": known.config or image.target.digest,
        "RepoTags": sorted(familiar(name) for name in names if "@" not in name),
        "RepoDigests": sorted({f"{_repository(name)}@{image.target.digest}" for name in names}),
        "Parent": "",
        "Comment": last.get("comment") or "",
        "Created": config.get("created") or image.created_at.ToJsonString(),
        "Author": config.get("author") or "",
        "Config": config.get("config") or {},
        "Architecture": config.get("architecture") or "",
        **({"Variant": config["variant"]} if config.get("variant") else {}),
        "Os": config.get("os") or "",
        "Size": sum(await reader.layers(known)),
        "RootFS": {"Type": "layers", "Layers": list(known.image.diff_ids) if known.image else []},
        "Metadata": {"LastTagTime": image.updated_at.ToJsonString() if image.updated_at.seconds else NO_TIME},
        "Descriptor": {
            "mediaType": image.target.media_type,
            "digest": image.target.digest,
            "size": image.target.size,
        },
        "Labels": dict(image.labels),
    }


def _repository(name: str) -> str:
    plain = name.partition("@")[0]
    head, slash, last = plain.rpartition("/")
    return familiar(f"{head}{slash}{last.partition(':')[0]}")
