"""What images are worked on with inside the daemon: `windlass_images.store.Store` over the contracts."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Self

from windlass.contracts.diff import DETACHED, Differ
from windlass.contracts.gc import Collector
from windlass.contracts.leases import LABEL_EXPIRE
from windlass.contracts.metadata import Metadata
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor, Payload
from windlass.errors import Error, NotFound, Unimplemented
from windlass.gate import offload, offloaded
from windlass.typing import override
from windlass_images.store import Store
from windlass_images.turns import PATIENCE
from windlass_local.content import LocalContent
from windlass_local.images import LocalImages
from windlass_local.snapshots import LocalSnapshots
from windlass_local.waiting import settled

logger = logging.getLogger(__name__)

LEASE_SECONDS = 24 * 3600
"""What a killed daemon has fetched is kept so long for the next attempt (docs/containerd 6.5.1)."""


@dataclass(frozen=True)
class Parts:
    """The plugins that a store is made of; ``differs`` in the order in which they are asked."""

    metadata: Metadata
    collector: Collector
    differs: Mapping[str, Differ] = field(default_factory=dict)
    capabilities: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Of each snapshotter."""
    patience: float = PATIENCE
    """Seconds in which a registry, or another client that writes the same ingest, has to get on; 0 is without end."""


class LocalStore(Store):
    """One namespace of the daemon, under a lease if there is one; views are made when they are first used."""

    def __init__(self, parts: Parts, namespace: str, lease: str = "") -> None:
        """Work in ``namespace``, under ``lease`` if it is not empty."""
        self.parts = parts
        self.namespace = namespace
        self._lease = lease

    @property
    @override
    def lease_id(self) -> str:
        return self._lease

    @cached_property
    @override
    def content(self) -> LocalContent:
        return LocalContent(self.parts.metadata.content(self.namespace, self._lease), self.parts.patience)

    @cached_property
    @override
    def images(self) -> LocalImages:
        return LocalImages(self.parts.metadata.images(self.namespace, self._lease), self.parts.collector)

    @cached_property
    @override
    def snapshots(self) -> LocalSnapshots:
        return LocalSnapshots(self.parts.metadata, self.namespace, self._lease, self.parts.capabilities)

    def under(self, lease: str) -> Self:
        """Return this store under a lease."""
        return type(self)(self.parts, self.namespace, lease)

    @override
    @asynccontextmanager
    async def lease(self, label: str = "") -> AsyncIterator[Self]:
        leases = self.parts.metadata.leases(self.namespace)
        expires = datetime.fromtimestamp(time.time() + LEASE_SECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        labels = {LABEL_EXPIRE: expires} | ({"windlass.dev/for": label} if label else {})
        lease = f"{time.time_ns() % 1_000_000_000}-{secrets.token_urlsafe(9)}"
        try:
            await settled(offload(leases.create, lease, labels))
        except asyncio.CancelledError:  # it was created all the same
            await asyncio.shield(self._end(lease, False))
            raise
        failed = True
        try:
            yield self.under(lease)
            failed = False
        finally:
            await asyncio.shield(self._end(lease, failed))

    async def _end(self, lease: str, collect: bool) -> None:
        try:
            await offload(self.parts.metadata.leases(self.namespace).delete, lease)
            if collect:
                await self.parts.collector.collect()
        except NotFound:
            pass
        except Error as error:  # the caller's own failure is the one to report
            logger.warning("lease %s of namespace %s: %s", lease, self.namespace, error)

    @override
    async def apply(self, desc: Descriptor, mounts: Sequence[Mount], detached: bool = False) -> Descriptor:
        # The first differ that knows the media type does it, and decides how long that may take.
        payloads = {DETACHED: Payload("", b"")} if detached else {}
        problem = Unimplemented("no differ is configured")
        for differ in self.parts.differs.values():
            try:
                return await settled(offloaded(differ.apply, deadline=None)(self.content.view, desc, mounts, payloads))
            except Unimplemented as error:
                problem = error
        raise problem
