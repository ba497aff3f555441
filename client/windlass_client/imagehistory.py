"""How an image was made, step by step, as its config tells."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from windlass.errors import FailedPrecondition
from windlass_client import format, imagefinding, output
from windlass_client.imagerows import Reader, seconds, short
from windlass_client.namespaces import SNAPSHOTTER
from windlass_remote.messages import from_descriptor

if TYPE_CHECKING:
    from windlass_client.client import Client

WIDTH = 45
"""Characters of a command that are shown."""


async def rows(client: Client, name: str, human: bool, whole: bool) -> list[dict[str, object]]:
    """Return the steps, the last first. Raises NotFound, FailedPrecondition for an image that is not here whole."""
    image = await imagefinding.find(client, name)
    reader = Reader(client, await client.namespaces.default(SNAPSHOTTER))
    known = await reader.known(from_descriptor(image.target))
    if known.manifest is None:
        raise FailedPrecondition(f"image {name} is not here for this machine; pull it, to see how it was made")
    sizes = await reader.layers(known)
    found = []
    for step in _steps(known.document, len(sizes)):
        size = 0 if step.get("empty_layer") else sizes.pop(0) if sizes else 0
        found.append(_row(step, size, human, whole))
    if found:
        found[-1]["ID"] = known.config if whole else short(known.config)
    return found[::-1]


def _steps(document: Mapping[str, object], layers: int) -> list[Mapping[str, object]]:
    history = document.get("history")
    steps = [each for each in history if isinstance(each, dict)] if isinstance(history, list) else []
    filled = sum(not each.get("empty_layer") for each in steps)
    # Its author may have told less than there is.
    return [*({} for _ in range(layers - filled)), *steps]


def _row(step: Mapping[str, object], size: int, human: bool, whole: bool) -> dict[str, object]:
    created = seconds(step.get("created"))
    command = " ".join(str(step.get("created_by") or "").split())
    return {
        "ID": "<missing>",
        "CreatedSince": f"{format.age(time.time() - created)} ago" if created else "N/A",
        "CreatedAt": output.local(created) if created else "N/A",
        "CreatedBy": command if whole or len(command) <= WIDTH else f"{command[: WIDTH - 1]}…",
        "Size": format.size(size) if human else str(size),
        "Comment": str(step.get("comment") or ""),
    }
