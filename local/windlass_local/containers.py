"""The containers of a namespace, over the contract of container stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windlass.contracts.containers import Container, ContainerStore
from windlass.contracts.values import Payload
from windlass.gate import offload
from windlass.typing import override
from windlass_local.namespace import Containers
from windlass_local.waiting import settled


class LocalContainers(Containers):
    """Containers behind a view of the metadata store."""

    def __init__(self, view: ContainerStore) -> None:
        """Work on one namespace's ``view``."""
        self._view = view

    @override
    async def get(self, id: str) -> Container:
        return await offload(self._view.get, id)

    @override
    async def list(self, *filters: str) -> Sequence[Container]:
        return await offload(self._view.list, list(filters))

    @override
    async def create(self, container: Container) -> Container:
        return await settled(offload(self._view.create, container))

    @override
    async def label(self, id: str, labels: Mapping[str, str]) -> None:
        await offload(self._view.update, Container(id, labels=labels), [f"labels.{key}" for key in labels])

    async def set_spec(self, id: str, spec: Payload) -> None:
        """Replace a container's spec. Raises NotFound."""
        await settled(offload(self._view.update, Container(id, spec=spec), ["spec"]))

    @override
    async def delete(self, id: str) -> None:
        await settled(offload(self._view.delete, id))
