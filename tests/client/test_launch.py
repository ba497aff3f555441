"""Promises of `windlass run` before there is a task: of a container that cannot be created nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from client.conftest import ArchiveFiles, FakeDaemon

from windlass.errors import AlreadyExists, DeadlineExceeded
from windlass.values import Platform
from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
from windlass_client import launch
from windlass_client.client import Client
from windlass_client.store import ClientStore
from windlass_images.importer import Options, load

AMD64 = Platform("linux", "amd64")
WISHES = launch.Wishes("example.org/x:1", "box", user="1000", platform=AMD64)


@pytest.fixture
async def image(client: Client, tmp_path: Path) -> None:
    await load(ClientStore(client), ArchiveFiles(b"one").save(tmp_path / "a.tar"), Options(platform=AMD64))


async def test_a_container_and_its_snapshot_are_made(client: Client, daemon: FakeDaemon, image: None) -> None:
    await launch.create(client, WISHES)

    assert [each.id for each in daemon.containers] == ["box"] and "box" in daemon.snapshots


async def test_a_container_whose_creation_timed_out_is_taken_back(
    client: Client, address: str, daemon: FakeDaemon, image: None
) -> None:
    """The daemon has created it all the same: it must not stay without its snapshot."""
    daemon.delay = 6
    async with Client(address, "tests", timeout=3) as hasty:
        with pytest.raises(DeadlineExceeded):
            await launch.create(hasty, WISHES)

    assert not daemon.containers and "box" not in daemon.snapshots


async def test_a_container_of_the_same_name_is_left_alone(client: Client, daemon: FakeDaemon, image: None) -> None:
    daemon.containers.append(Container(id="box", image="other"))

    with pytest.raises(AlreadyExists):
        await launch.create(client, WISHES)

    assert [each.image for each in daemon.containers] == ["other"] and "box" not in daemon.snapshots
