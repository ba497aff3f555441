"""Fake registries, and clients that ask them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from registry.fake import Fake, running

from windlass_registry.client import Client
from windlass_registry.repository import Repository


@pytest.fixture
def fakes() -> Iterator[Callable[[], Fake]]:
    """Starts registries."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(running())


@pytest.fixture
def fake(fakes: Callable[[], Fake]) -> Fake:
    return fakes()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Knows the hosts below ``tmp_path`` only."""
    client = Client([tmp_path])
    yield client
    client.close()


@pytest.fixture
def repository(client: Client, fake: Fake) -> Repository:
    return client.repository(f"{fake.authority}/team/app:1", scheme="http")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for."""
    monkeypatch.setattr("windlass_registry.session._wait", lambda answer, number: 0.0)
