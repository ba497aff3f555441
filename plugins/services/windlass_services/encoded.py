"""Answers from stores that keep their records encoded; None from those that do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

from windlass.contracts.rpc import Encoded
from windlass.gate import offload, take

List = Callable[[Sequence[str]], Sequence[bytes]]
Walk = Callable[[Sequence[str]], Iterator[bytes]]


async def get(store: object, key: str, name: str = "get_encoded") -> Encoded | None:
    """Return a record as the response of Get, from the method of that name. Raises NotFound."""
    method: Callable[[str], bytes] | None = getattr(store, name, None)
    return None if method is None else Encoded(await offload(method, key))


async def listed(store: object, filters: Iterable[str]) -> Encoded | None:
    """Return the records that match as the response of List."""
    method: List | None = getattr(store, "list_encoded", None)
    return None if method is None else Encoded(await offload(_joined, method, list(filters)))


async def walk(store: object, filters: Iterable[str], block: int, taken: int) -> AsyncIterator[Encoded] | None:
    """Return what ``store`` walks through as messages of up to ``block`` records; ``taken`` are read in one go."""
    method: Walk | None = getattr(store, "walk_encoded", None)
    return None if method is None else _blocks(await offload(method, list(filters)), block, taken)


async def _blocks(walk: Iterator[bytes], block: int, taken: int) -> AsyncIterator[Encoded]:
    while found := await offload(take, walk, taken):
        for start in range(0, len(found), block):
            yield Encoded(b"".join(found[start : start + block]))


async def each(store: object, filters: Iterable[str]) -> Sequence[bytes] | None:
    """Return the records that match, each as a message of ListStream."""
    method: List | None = getattr(store, "list_encoded", None)
    return None if method is None else await offload(method, list(filters))


def _joined(method: List, filters: Sequence[str]) -> bytes:
    return b"".join(method(filters))
