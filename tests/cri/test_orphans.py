"""Tasks that no container has are ended by the next daemon; those of sandboxes, and all others, go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from windlass.contracts.containers import Container
from windlass.contracts.tasks import Exit, Process, Status
from windlass.errors import Unavailable
from windlass_cri.containers.orphans import end_orphans
from windlass_local.inside import LocalNamespace


@dataclass
class Namespace:
    """Containers and tasks by their IDs; stands for both of their stores."""

    recorded: list[str]
    running: dict[str, Status]
    deleted: list[str] = field(default_factory=list)
    refuses: str = ""

    async def get(self, id: str) -> Process:
        return Process(id, status=self.running[id])

    async def delete(self, id: str) -> Exit:
        if id == self.refuses:
            raise Unavailable("its shim is stuck")
        self.deleted.append(id)
        return Exit(1, 0, 1)


class Records:
    def __init__(self, ids: list[str]) -> None:
        self._ids = ids

    async def list(self) -> list[Container]:
        return [Container(id) for id in self._ids]


class Tasks(Namespace):
    @property
    def tasks(self) -> Tasks:
        return self

    @property
    def containers(self) -> Records:
        return Records(self.recorded)

    async def list(self) -> list[Process]:
        return [Process(id, status=status) for id, status in self.running.items()]


async def test_what_has_no_container_is_ended() -> None:
    """Also when one of them cannot be."""
    tasks = Tasks(["mine"], dict.fromkeys(["mine", "stuck", "left", "pod"], Status.STOPPED), refuses="stuck")
    await end_orphans(cast("LocalNamespace", tasks), {"pod"})
    assert tasks.deleted == ["left"]
