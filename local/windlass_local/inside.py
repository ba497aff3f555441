"""A namespace inside the daemon: `windlass_local.namespace.Namespace` over the contracts."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

from windlass.contracts import tasks as contract
from windlass.contracts.activations import ActivateOptions, MountManager
from windlass.contracts.mounts import Mount
from windlass.errors import AlreadyExists, NotFound
from windlass.gate import offload
from windlass.typing import override
from windlass_local.containers import LocalContainers
from windlass_local.namespace import Namespace
from windlass_local.store import LocalStore, Parts
from windlass_local.tasks import LocalTasks
from windlass_local.waiting import settled, unless_gone


@dataclass(frozen=True)
class Running:
    """The plugins that containers need beyond images."""

    tasks: contract.Tasks
    mounts: MountManager


class LocalNamespace(LocalStore, Namespace):
    """One namespace of the daemon with its containers and tasks."""

    def __init__(self, parts: Parts, running: Running, name: str, lease: str = "") -> None:
        """Work in namespace ``name``, under ``lease`` if it is not empty."""
        super().__init__(parts, name, lease)
        self._running = running

    @override
    def under(self, lease: str) -> LocalNamespace:
        return LocalNamespace(self.parts, self._running, self.namespace, lease)

    @property
    @override
    def name(self) -> str:
        return self.namespace

    @cached_property
    @override
    def containers(self) -> LocalContainers:
        return LocalContainers(self.parts.metadata.containers(self.namespace))

    @cached_property
    @override
    def tasks(self) -> LocalTasks:
        return LocalTasks(self._running.tasks, self.namespace)

    @override
    async def default(self, label: str) -> str:
        try:
            found = await offload(self.parts.metadata.namespaces().get, self.namespace)
        except NotFound:
            return ""
        return found.labels.get(label, "")

    async def activate(self, name: str, mounts: Sequence[Mount]) -> Sequence[Mount]:
        """Return mounts that mount(2) can make, until `deactivate`; again is the same. The lease holds what is made."""
        manager = self._running.mounts
        if not manager.handles(mounts):
            return mounts
        options = ActivateOptions(lease=self.lease_id)
        try:
            return (await settled(offload(manager.activate, self.namespace, name, mounts, options))).system
        except AlreadyExists:
            return (await offload(manager.info, self.namespace, name)).system

    async def deactivate(self, name: str) -> None:
        """Unmount what `activate` made; nothing is not an error."""
        await unless_gone(settled(offload(self._running.mounts.deactivate, self.namespace, name)))

    @override
    @asynccontextmanager
    async def mountable(self, mounts: Sequence[Mount]) -> AsyncIterator[Sequence[Mount]]:
        manager, name = self._running.mounts, f"windlass-{secrets.token_hex(8)}"
        if not manager.handles(mounts):
            yield mounts
            return
        options = ActivateOptions(lease=self.lease_id)
        try:
            # A caller that is cancelled here has mounts all the same.
            activation = await settled(offload(manager.activate, self.namespace, name, mounts, options))
            yield activation.system
        finally:
            await unless_gone(settled(offload(manager.deactivate, self.namespace, name)))
