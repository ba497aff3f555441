"""A metadata store before stores in memory, and the events that it publishes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from metadata.memory_content import MemoryContent
from metadata.memory_snapshotter import MemorySnapshotter

from windlass.contracts.content import ContentStore
from windlass.contracts.events import Envelope, Exchange
from windlass.contracts.images import Image
from windlass.contracts.values import Descriptor, Payload
from windlass_metadata.database import Database
from windlass_metadata.store import MetadataStore

KEPT = {"containerd.io/gc.root": "test"}


class Events(Exchange):
    """An exchange that remembers."""

    def __init__(self) -> None:
        self.published: list[tuple[str, str, Payload]] = []

    def publish(self, namespace: str, topic: str, event: Payload) -> None:
        self.published.append((namespace, topic, event))

    def forward(self, envelope: Envelope) -> None:
        raise NotImplementedError

    def subscribe(self, filters: Sequence[str] = ()) -> AbstractAsyncContextManager[AsyncIterator[Envelope]]:
        raise NotImplementedError

    def topics(self) -> list[str]:
        return [topic for _, topic, _ in self.published]


@dataclass
class World:
    """A metadata store and everything around it."""

    root: Path
    content: MemoryContent = field(default_factory=MemoryContent)
    snapshotter: MemorySnapshotter = field(default_factory=MemorySnapshotter)
    other: MemorySnapshotter = field(default_factory=MemorySnapshotter)
    events: Events = field(default_factory=Events)
    shared: bool = True
    opened: list[Database] = field(default_factory=list)

    def open(self, root: Path | None = None, clean_timeout: float = 10.0) -> MetadataStore:
        """Open the database, or the one below ``root``."""
        self.opened.append(Database((root or self.root) / "meta.db"))
        snapshotters = {"memory": self.snapshotter, "other": self.other}
        return MetadataStore(
            self.opened[-1], self.content, snapshotters, self.events, shared=self.shared, clean_timeout=clean_timeout
        )

    def close(self) -> None:
        for database in self.opened:
            database.close()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    # Any: the fields of a World, each of its own type
    def make(**changes: Any) -> World:
        worlds.append(World(tmp_path, **changes))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    return make_world()


@pytest.fixture
def metadata(world: World) -> MetadataStore:
    return world.open()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put(store: ContentStore, data: bytes, labels: dict[str, str] | None = None, ref: str = "") -> str:
    """Write a blob and return its digest."""
    writer = store.writer(ref or f"put-{digest_of(data)}")
    try:
        writer.write(data)
        writer.commit(len(data), digest_of(data), labels)
    finally:
        writer.close()
    return digest_of(data)


def image(name: str, digest: str, labels: dict[str, str] | None = None) -> Image:
    return Image(name, Descriptor("application/vnd.oci.image.index.v1+json", digest, 7), labels or {})
