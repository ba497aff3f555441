"""Takes images away: by name or ID, or all that no container uses; what only they needed goes with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from windlass.errors import FailedPrecondition, NotFound
from windlass_client import asking, imagefinding
from windlass_client.asking import Filters
from windlass_client.imagerows import Listed, identified, listed
from windlass_client.lookup import name_of
from windlass_client.shortnames import familiar, full

if TYPE_CHECKING:
    from windlass_client.client import Client


@dataclass(frozen=True)
class Removed:
    """Names that are gone, and the ID of the image if it was its last."""

    names: Sequence[str]
    deleted: str = ""


async def remove(client: Client, word: str, force: bool = False, sync: bool = True) -> Removed:
    """Remove a name, or with an ID all names of an image. Raises NotFound, FailedPrecondition while it is in use.

    In use is an image that a container was made of, as long as it has no other name. Without ``sync`` blobs and
    snapshots stay until the next garbage collection.
    """
    image = await imagefinding.find(client, word)
    same = [each.name for each in await client.images.list(f"target.digest=={image.target.digest}")]
    named = image.name in (word, full(word))
    names = [image.name] if named else same
    left = [name for name in same if name not in names]
    if not left and not force:
        await _refuse_used(client, same, word)
    id = "" if left else await identified(client, image)
    for number, name in enumerate(names):
        await client.images.delete(name, sync=sync and number == len(names) - 1)
    return Removed(names, id)


async def _refuse_used(client: Client, names: Sequence[str], word: str) -> None:
    for container in await client.containers.list():
        if container.image in names:
            raise FailedPrecondition(
                f"image {familiar(word)} is in use by container {name_of(container)}; remove that first, or use --force"
            )


async def unused(client: Client, filters: Sequence[str], wanted: Filters, everything: bool) -> list[Listed]:
    """Return the images that a prune removes: those that no container uses, without ``everything`` only untagged."""
    images = await client.images.list(*filters)
    used = {container.image for container in await client.containers.list()}
    kept = {image.target.digest for image in await client.images.list() if image.name in used}
    free = [image for image in images if image.name not in used and image.target.digest not in kept]
    return [row for row in await listed(client, free) if _fits(row, wanted) and (everything or row.dangling)]


def _fits(row: Listed, wanted: Filters) -> bool:
    moments = [asking.moment(text).timestamp() for text in wanted.get("until", ())]
    return all(row.created <= moment for moment in moments) and asking.labelled(
        row.labels, wanted.get("label", ()), wanted.get("label!", ())
    )


async def prune(client: Client, rows: Sequence[Listed]) -> tuple[list[Removed], int]:
    """Remove images, and return what is gone and how many bytes the images had."""
    removed, freed = [], 0
    left = {image.name: image.target.digest for image in await client.images.list()}
    for number, row in enumerate(rows):
        try:
            await client.images.delete(row.name, sync=number == len(rows) - 1)
        except NotFound:
            continue  # another client was quicker
        left.pop(row.name, None)
        last = row.digest not in left.values()
        removed.append(Removed([row.name], row.id if last else ""))
        freed += row.size if last else 0
    return removed, freed
