"""A lease for each pod, with its ID: garbage collection takes nothing that the pod needs (docs/containerd 5.5)."""

from __future__ import annotations

from collections.abc import Collection

from windlass.contracts.leases import LeaseStore
from windlass.errors import AlreadyExists
from windlass.gate import offload
from windlass_local.waiting import settled, unless_gone

PURPOSE = "windlass.dev/for"
POD = "pod"
CONTAINER = "container"
"""Of the lease that a container's snapshot has until its record is made."""


class PodLeases:
    """The leases of pods, and of containers that are being made."""

    def __init__(self, leases: LeaseStore) -> None:
        """Use those of CRI's namespace."""
        self._leases = leases

    async def create(self, id: str) -> None:
        """Make a pod's; it may be there."""
        try:
            await settled(offload(self._leases.create, id, {PURPOSE: POD}))
        except AlreadyExists:
            pass

    async def delete(self, id: str) -> None:
        """Delete a pod's; one that is gone is not an error."""
        await unless_gone(settled(offload(self._leases.delete, id)))

    async def sweep(self, known: Collection[str]) -> None:
        """Delete those of pods that are not ``known``, and of containers that an earlier daemon was making."""
        wanted = [f'labels."{PURPOSE}"=={POD}', f'labels."{PURPOSE}"=={CONTAINER}']
        for lease in await offload(self._leases.list, wanted):
            if lease.labels[PURPOSE] == CONTAINER or lease.id not in known:
                await self.delete(lease.id)
