"""Where the control groups of containers and of pods are: looked up once, since they do not move."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from windlass.errors import Error
from windlass_cri.stats.cgroups import Group, groups, locate, of_pod
from windlass_oci.runtime_spec import Spec

if TYPE_CHECKING:
    from windlass_cri.containers.containers import Containers
    from windlass_cri.record import Container, Pod


class Places:
    """The groups that have been found, by the IDs of containers and pods; used on the loop."""

    def __init__(self, containers: Containers) -> None:
        """Know none yet; ``containers`` has their specs."""
        self._containers = containers
        self._known: dict[str, Group] = {}

    async def find(self, containers: Iterable[Container], pods: Iterable[Pod]) -> dict[str, Group]:
        """Return the groups of those that have one now."""
        wanted, parents, specs = [], {}, {}
        for container in containers:
            wanted.append(container.id)
            if container.id not in self._known:
                try:
                    specs[container.id] = await self._containers.spec(container)
                except Error:
                    continue  # it was removed meanwhile
        for pod in pods:
            wanted.append(pod.id)
            if pod.id not in self._known:
                parents[pod.id] = pod.config.linux.cgroup_parent
        if specs or parents:
            self._known.update(await asyncio.to_thread(_located, specs, parents))
        return {id: self._known[id] for id in wanted if id in self._known}

    def keep(self, ids: Collection[str]) -> None:
        """Forget all others."""
        for id in self._known.keys() - set(ids):
            del self._known[id]


def _located(specs: dict[str, Spec], parents: dict[str, str]) -> dict[str, Group]:
    places = {id: groups(id, spec) for id, spec in specs.items()}
    places |= {id: of_pod(parent) for id, parent in parents.items()}
    found = {id: locate(directories) for id, directories in places.items()}
    return {id: group for id, group in found.items() if group is not None}
