"""The daemon in memory of the client's tests, as a store."""

from __future__ import annotations

import pytest
from client.conftest import address, client, daemon

from windlass.contracts.values import Platform
from windlass_client.client import Client
from windlass_client.store import ClientStore

__all__ = ["address", "client", "daemon"]


@pytest.fixture(autouse=True)
def _amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are about an amd64 machine of the first level, wherever they run."""
    monkeypatch.setattr("windlass_images.platforms._level", lambda: 1)
    monkeypatch.setattr("windlass_images.platforms.host", lambda: Platform("linux", "amd64"))


@pytest.fixture
def store(client: Client) -> ClientStore:
    return ClientStore(client)
