"""Contract: what a store of records may have besides, so that lists are bytes (docs/decisions/lists-are-bytes.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class EncodedRecords(Protocol):
    """A `ContainerStore`, `ImageStore` or `SandboxStore` that keeps its records as messages of the API too.

    Bytes are a message whose field 1 is the record's: ``containerd.services.containers.v1.GetContainerResponse``,
    ``containerd.services.images.v1.GetImageResponse`` and ``containerd.services.sandbox.v1.StoreGetResponse``. Those
    of several records, joined, are the response of ``List``. A store need not have these methods; clients then get
    what ``get`` and ``list`` return. A `LeaseStore` may have ``list_encoded`` and ``resources_encoded``, a
    `NamespaceStore` may have both below, and views of content and snapshots may have ``walk_encoded``, an iterator,
    and ``info_encoded``.
    """

    def get_encoded(self, key: str) -> bytes:
        """Return what ``get`` does. Raises NotFound."""
        ...

    def list_encoded(self, filters: Sequence[str] = ()) -> Sequence[bytes]:
        """Return what ``list`` does. Raises InvalidArgument."""
        ...
