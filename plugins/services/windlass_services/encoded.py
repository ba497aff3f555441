"""Answers from stores that keep their records encoded; None from those that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from windlass.contracts.rpc import Encoded
from windlass.gate import offload

List = Callable[[Sequence[str]], Sequence[bytes]]


async def get(store: object, key: str) -> Encoded | None:
    """Return a record as the response of Get. Raises NotFound."""
    method: Callable[[str], bytes] | None = getattr(store, "get_encoded", None)
    return None if method is None else Encoded(await offload(method, key))


async def listed(store: object, filters: Iterable[str]) -> Encoded | None:
    """Return the records that match as the response of List."""
    method: List | None = getattr(store, "list_encoded", None)
    return None if method is None else Encoded(await offload(_joined, method, list(filters)))


async def each(store: object, filters: Iterable[str]) -> Sequence[bytes] | None:
    """Return the records that match, each as a message of ListStream."""
    method: List | None = getattr(store, "list_encoded", None)
    return None if method is None else await offload(method, list(filters))


def _joined(method: List, filters: Sequence[str]) -> bytes:
    return b"".join(method(filters))
