"""The snapshots of a namespace, over the contract of snapshotters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from windlass.contracts.leases import Resource
from windlass.contracts.metadata import Metadata
from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Info, Snapshotter, Usage
from windlass.errors import NotFound
from windlass.gate import offload, offloaded
from windlass.typing import override
from windlass_images.store import Snapshots
from windlass_local.waiting import settled

COMMIT_TIMEOUT = 1800.0


class LocalSnapshots(Snapshots):
    """Snapshots behind views of the metadata store."""

    def __init__(
        self,
        metadata: Metadata,
        namespace: str,
        lease: str = "",
        capabilities: Mapping[str, frozenset[str]] = MappingProxyType({}),
    ) -> None:
        """Work in ``namespace`` under ``lease``, empty for none; ``capabilities`` are those of each snapshotter."""
        self._metadata = metadata
        self._namespace = namespace
        self._lease = lease
        self._capabilities = capabilities

    @override
    async def stat(self, snapshotter: str, key: str) -> Info:
        return await offload(self._view(snapshotter).stat, key)

    @override
    async def hold(self, snapshotter: str, name: str) -> None:
        if self._lease:
            leases = self._metadata.leases(self._namespace)
            await settled(offload(leases.add_resource, self._lease, Resource(name, f"snapshots/{snapshotter}")))

    @override
    async def usage(self, snapshotter: str, key: str) -> Usage:
        return await offload(self._view(snapshotter).usage, key)

    async def mounts(self, snapshotter: str, key: str) -> Sequence[Mount]:
        """Return the mounts of an active snapshot or a view. Raises NotFound."""
        return await offload(self._view(snapshotter).mounts, key)

    @override
    async def prepare(
        self, snapshotter: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Mount]:
        return await settled(offload(self._view(snapshotter).prepare, key, parent, labels))

    @override
    async def view(
        self, snapshotter: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Mount]:
        return await settled(offload(self._view(snapshotter).view, key, parent, labels))

    @override
    async def commit(
        self, snapshotter: str, name: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> None:
        commit = offloaded(self._view(snapshotter).commit, deadline=COMMIT_TIMEOUT)
        await settled(commit(name, key, labels, parent))

    @override
    async def remove(self, snapshotter: str, key: str) -> None:
        await settled(offload(self._view(snapshotter).remove, key))

    @override
    async def capabilities(self, snapshotter: str) -> frozenset[str]:
        try:
            return self._capabilities[snapshotter]
        except KeyError:
            raise NotFound(f"snapshotter {snapshotter} does not exist; `ctr plugins ls` lists those that do") from None

    def _view(self, snapshotter: str) -> Snapshotter:
        return self._metadata.snapshotter(snapshotter, self._namespace, self._lease)
