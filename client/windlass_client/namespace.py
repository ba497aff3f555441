"""A daemon's namespace, through its API, as what `windlass_local` works on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property

from windlass.contracts.containers import Container
from windlass.contracts.mounts import Mount
from windlass.contracts.tasks import IO, CreateOptions, Exit, Process, Status
from windlass.contracts.values import Payload
from windlass.typing import override
from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_api.containerd.v1.types import task_pb2
from windlass_client import containers as containers_service
from windlass_client import tasks as tasks_service
from windlass_client.store import ClientStore
from windlass_local.namespace import Containers, Namespace, Tasks
from windlass_remote.messages import any_of, from_any, from_mounts, from_timestamp, payloads, to_any, to_mounts


class ClientNamespace(ClientStore, Namespace):
    """One namespace with its containers and tasks, behind a connection."""

    @cached_property
    @override
    def containers(self) -> ClientContainers:
        return ClientContainers(self._client.containers)

    @cached_property
    @override
    def tasks(self) -> ClientTasks:
        return ClientTasks(self._client.tasks)

    @property
    @override
    def name(self) -> str:
        return self._client.namespace

    @override
    @asynccontextmanager
    async def lease(self, label: str = "") -> AsyncIterator[ClientNamespace]:
        async with self._client.lease(label=label) as leased:
            yield ClientNamespace(leased)

    @override
    async def default(self, label: str) -> str:
        return (await self._client.namespaces.get(self.name)).labels.get(label, "")

    @override
    @asynccontextmanager
    async def mountable(self, mounts: Sequence[Mount]) -> AsyncIterator[Sequence[Mount]]:
        async with self._client.mounts.active(to_mounts(mounts)) as plain:
            yield from_mounts(plain)


class ClientContainers(Containers):
    """Containers, as messages of the containers service."""

    def __init__(self, service: containers_service.Containers) -> None:
        """Translate for ``service``."""
        self._service = service

    @override
    async def get(self, id: str) -> Container:
        return from_message(await self._service.get(id))

    @override
    async def list(self, *filters: str) -> Sequence[Container]:
        return [from_message(message) for message in await self._service.list(*filters)]

    @override
    async def create(self, container: Container) -> Container:
        return from_message(await self._service.create(to_message(container)))

    @override
    async def label(self, id: str, labels: Mapping[str, str]) -> None:
        await self._service.label(id, labels)

    @override
    async def delete(self, id: str) -> None:
        await self._service.delete(id)


def from_message(message: containers_pb2.Container) -> Container:
    """Return a container's record."""
    return Container(
        id=message.id,
        runtime=message.runtime.name,
        runtime_options=from_any(message.runtime.options),
        spec=from_any(message.spec),
        labels=dict(message.labels),
        image=message.image,
        snapshotter=message.snapshotter,
        snapshot_key=message.snapshot_key,
        extensions=payloads(message.extensions),
        sandbox=message.sandbox,
        created_at=from_timestamp(message.created_at),
        updated_at=from_timestamp(message.updated_at),
    )


def to_message(container: Container) -> containers_pb2.Container:
    """Return a container's record as a message; its times are the daemon's to set."""
    return containers_pb2.Container(
        id=container.id,
        runtime=containers_pb2.Container.Runtime(name=container.runtime, options=to_any(container.runtime_options)),
        spec=to_any(container.spec),
        labels=container.labels,
        image=container.image,
        snapshotter=container.snapshotter,
        snapshot_key=container.snapshot_key,
        extensions={key: any_of(payload) for key, payload in container.extensions.items()},
        sandbox=container.sandbox,
    )


class ClientTasks(Tasks):
    """Tasks, as messages of the tasks service."""

    def __init__(self, service: tasks_service.Tasks) -> None:
        """Translate for ``service``."""
        self._service = service

    @override
    async def create(self, container: Container, options: CreateOptions) -> int:
        return await self._service.create(container.id, to_mounts(options.rootfs), options.io, to_any(options.options))

    @override
    async def exec(self, id: str, exec_id: str, spec: Payload, io: IO) -> None:
        await self._service.exec(id, exec_id, any_of(spec), io)

    @override
    async def start(self, id: str, exec_id: str = "") -> int:
        return await self._service.start(id, exec_id)

    @override
    async def get(self, id: str, exec_id: str = "") -> Process:
        return _process(id, exec_id, await self._service.get(id, exec_id))

    @override
    async def wait(self, id: str, exec_id: str = "") -> Exit:
        ended = await self._service.ended(id, exec_id)
        return Exit(0, ended.exit_status, from_timestamp(ended.exited_at))

    @override
    async def kill(self, id: str, signal: int, exec_id: str = "", all: bool = False) -> None:
        await self._service.kill(id, signal, exec_id, all)

    @override
    async def resize(self, id: str, exec_id: str, width: int, height: int) -> None:
        await self._service.resize(id, exec_id, width, height)

    @override
    async def close_stdin(self, id: str, exec_id: str = "") -> None:
        await self._service.close_stdin(id, exec_id)

    @override
    async def delete(self, id: str) -> Exit:
        deleted = await self._service.delete(id)
        return Exit(deleted.pid, deleted.exit_status, from_timestamp(deleted.exited_at))

    @override
    async def delete_exec(self, id: str, exec_id: str) -> Exit:
        deleted = await self._service.delete_exec(id, exec_id)
        return Exit(deleted.pid, deleted.exit_status, from_timestamp(deleted.exited_at))


def _process(id: str, exec_id: str, message: task_pb2.Process) -> Process:
    return Process(
        id,
        exec_id,
        message.pid,
        Status(message.status),
        IO(message.stdin, message.stdout, message.stderr, message.terminal),
        message.exit_status,
        from_timestamp(message.exited_at),
    )
