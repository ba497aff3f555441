"""The entry point of the library: a client for everything that speaks the containerd API.

    async with Client("/run/windlass/windlass.sock", "default") as client:
        for image in await client.images.list():
            print(image.name)

Records are the protobuf messages of `windlass_api`; failures are `windlass.errors` classes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from windlass.errors import DeadlineExceeded, Error
from windlass_client.connection import TIMEOUT, Connection

if TYPE_CHECKING:
    from windlass_api.containerd.services.version.v1.version_pb2 import VersionResponse
    from windlass_client.containers import Containers
    from windlass_client.content import Content
    from windlass_client.events import Events
    from windlass_client.images import Images
    from windlass_client.introspection import Introspection
    from windlass_client.leases import Leases
    from windlass_client.mounts import Mounts
    from windlass_client.namespaces import Namespaces
    from windlass_client.snapshots import Snapshots
    from windlass_client.tasks import Tasks
    from windlass_client.transfer import Transfer

ADDRESS = "/run/windlass/windlass.sock"
NAMESPACE = "default"


class Client:
    """A connection to a daemon in one namespace; the modules of a service are imported when it is first used."""

    def __init__(self, address: str = ADDRESS, namespace: str = NAMESPACE, timeout: float = TIMEOUT) -> None:
        self.connection = Connection(address, namespace, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.connection.close()

    @property
    def namespace(self) -> str:
        """The namespace that every call names."""
        return self.connection.namespace

    @asynccontextmanager
    async def lease(self, hours: float = 24, label: str = "") -> AsyncIterator[Client]:
        """Yield a client under a new lease, which is deleted at the end, also on failure.

        What the steps inside create is kept from garbage collection as long as the lease is there;
        what nothing refers to by then is removed with it.
        """
        import secrets

        lease = f"windlass-{secrets.token_hex(8)}"
        try:
            await self.leases.create(hours, label, lease)
        except (asyncio.CancelledError, DeadlineExceeded):  # it may have been created all the same
            await asyncio.shield(self._forget(lease))
            raise
        client = self.under(lease)
        failed = True
        try:
            yield client
            failed = False
        finally:
            # Waiting for the collection costs time, and only half of something has to be gone at once.
            await self.leases.delete(lease, sync=failed)

    async def _forget(self, lease: str) -> None:
        try:
            await self.leases.delete(lease)
        except Error:
            pass  # it was not created, or it expires by itself

    def under(self, lease: str) -> Client:
        """Return a client over the same connection whose calls carry a lease."""
        client = Client.__new__(Client)
        client.connection = self.connection.under(lease)
        return client

    async def version(self) -> VersionResponse:
        """Return the daemon's version and revision."""
        from google.protobuf.empty_pb2 import Empty

        from windlass_api.containerd.services.version.v1.version_pb2_grpc import VersionStub

        return await self.connection.call(VersionStub(self.connection.channel).Version, Empty())

    @cached_property
    def images(self) -> Images:
        """Named pointers to manifests."""
        from windlass_client.images import Images

        return Images(self.connection)

    @cached_property
    def content(self) -> Content:
        """Blobs."""
        from windlass_client.content import Content

        return Content(self.connection)

    @cached_property
    def snapshots(self) -> Snapshots:
        """Filesystem states."""
        from windlass_client.snapshots import Snapshots

        return Snapshots(self.connection)

    @cached_property
    def mounts(self) -> Mounts:
        """Mounts that the daemon makes."""
        from windlass_client.mounts import Mounts

        return Mounts(self.connection)

    @cached_property
    def containers(self) -> Containers:
        """Specs with labels, not running."""
        from windlass_client.containers import Containers

        return Containers(self.connection)

    @cached_property
    def tasks(self) -> Tasks:
        """Started containers and their processes."""
        from windlass_client.tasks import Tasks

        return Tasks(self.connection)

    @cached_property
    def leases(self) -> Leases:
        """What keeps things from garbage collection."""
        from windlass_client.leases import Leases

        return Leases(self.connection)

    @cached_property
    def transfer(self) -> Transfer:
        """What moves images between registries, the store, and archives."""
        from windlass_client.transfer import Transfer

        return Transfer(self.connection)

    @cached_property
    def events(self) -> Events:
        """What happens in the daemon."""
        from windlass_client.events import Events

        return Events(self.connection)

    @cached_property
    def namespaces(self) -> Namespaces:
        """Scopes of tenants, with their labels."""
        from windlass_client.namespaces import Namespaces

        return Namespaces(self.connection)

    @cached_property
    def introspection(self) -> Introspection:
        """The daemon's plugins and the daemon itself."""
        from windlass_client.introspection import Introspection

        return Introspection(self.connection)
