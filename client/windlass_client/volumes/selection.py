"""Which volumes the filters of `windlass volume ls` and `prune` mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass_client import asking
from windlass_client.asking import Filters
from windlass_client.volumes import removal, usage
from windlass_client.volumes.volume import Volume, Volumes

if TYPE_CHECKING:
    from windlass_client.cli import Where


async def matching(where: Where, volumes: Volumes, wanted: Filters) -> list[Volume]:
    """Return the volumes that have all of the wanted properties; only for ``dangling`` the daemon is asked."""
    found = [each for each in volumes.list() if _fits(each, wanted)]
    if "dangling" not in wanted:
        return found
    dangling = asking.truth(wanted["dangling"][-1], "dangling")
    async with where.client() as client:
        used = usage.users(await client.containers.list(), volumes.directory)
    return [each for each in found if dangling != bool(usage.holders(volumes, each.name, used))]


def _fits(volume: Volume, wanted: Filters) -> bool:
    names = wanted.get("name", ())
    return (
        (not names or any(name in volume.name for name in names))
        and all(driver == "local" for driver in wanted.get("driver", ()))
        and asking.labelled(volume.labels, wanted.get("label", ()), wanted.get("label!", ()))
    )


async def pruned(where: Where, volumes: Volumes, wanted: Filters, everything: bool) -> removal.Pruned:
    """Remove the unused volumes that have the wanted labels; those with names of their own only with ``everything``."""
    async with where.client() as client:
        return await removal.prune(client, volumes, lambda each: (everything or each.anonymous) and _fits(each, wanted))
