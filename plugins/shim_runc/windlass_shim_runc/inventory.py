"""What a shim holds: containers, those that are being created, and the sandbox that they are in.

A shim may hold all the containers of a pod; a sandbox keeps it while there is no container.
"""

from __future__ import annotations

from windlass.errors import AlreadyExists, NotFound
from windlass_shim_runc import records
from windlass_shim_runc.container import Container
from windlass_shim_runc.process import DELETED, Process
from windlass_shim_runc.sandbox import Sandbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from windlass_shim_runc import messages
    from windlass_shim_runc.keeper import Handover
    from windlass_shim_runc.shim import Shim


class Inventory:
    """Knows everything that keeps its shim from ending."""

    def __init__(self, shim: Shim, on_vacant: Callable[[], None]) -> None:
        """Call ``on_vacant`` when the last container or sandbox is gone."""
        self.shim = shim
        self.containers: dict[str, Container] = {}
        self.sandbox: Sandbox | None = None
        self._creating: set[str] = set()
        self._on_vacant = on_vacant

    @property
    def vacant(self) -> bool:
        """Whether there is neither a container, nor one coming, nor a sandbox for them."""
        return not self.containers and not self._creating and self.sandbox is None

    def container(self, id: str) -> Container:
        """Return a container; raises NotFound."""
        container = self.containers.get(id)
        if container is None or container.init.state == DELETED:
            raise NotFound(f"container {id[:76]} does not exist in this shim")
        return container

    def process(self, request: messages.ProcessRequest) -> tuple[Container, Process]:
        """Return what a request names; raises NotFound."""
        container = self.container(request.id)
        return container, container.process(request.exec_id)

    def require_new(self, id: str) -> None:
        """Raise AlreadyExists for the ID of a container that is there or on its way."""
        if id in self.containers or id in self._creating:
            raise AlreadyExists(f"container {id} exists already")

    async def create(self, container: Container, request: messages.CreateTaskRequest) -> None:
        """Create a container, and hold it if that succeeds."""
        self._creating.add(container.id)
        try:
            await container.create(request)
            self.containers[container.id] = container
        finally:
            self._creating.discard(container.id)
            self._notice_vacancy()

    async def delete(self, container: Container) -> None:
        """Delete a container."""
        await container.delete()
        if self.containers.get(container.id) is container:
            del self.containers[container.id]
        self._notice_vacancy()

    def _notice_vacancy(self) -> None:
        if self.vacant:
            self._on_vacant()

    def to_record(self, handover: Handover) -> records.ShimRecord:
        """Return what `take_over` goes on with, at a moment when all tasks rest."""
        return records.ShimRecord(
            containers=tuple(container.to_record(handover) for container in self.containers.values()),
            sandbox=self.sandbox.to_record() if self.sandbox else records.SandboxRecord(),
        )

    def take_over(self, handover: Handover, record: records.ShimRecord) -> None:
        """Hold the containers and the sandbox of a record."""
        for each in record.containers:
            self.containers[each.id] = Container.take_over(self.shim, handover, each)
        if record.sandbox.id:
            self.sandbox = Sandbox.take_over(self.shim.loop, record.sandbox)
