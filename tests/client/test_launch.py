"""A container is there with its snapshot, or neither is, however slow the daemon's disk."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from windlass.contracts.containers import Container
from windlass.errors import AlreadyExists, DeadlineExceeded, InvalidArgument, NotFound
from windlass_client import lookup
from windlass_client.client import Client
from windlass_client.labels import NAME
from windlass_client.launch import LaunchOptions, create
from windlass_client.lifecycle import creation, removal, tasks
from windlass_client.store import ClientStore
from windlass_images import platforms
from windlass_images.importer import Options, load

AMD64 = platforms.parse("linux/amd64")
UNPACK = Options(platform=AMD64)
BOX = LaunchOptions(image="example.org/x:1", id="box", platform=AMD64)


@pytest.fixture
async def image(client: Client, tmp_path: Path, archive_files: Any) -> None:
    await load(ClientStore(client), archive_files().save(tmp_path / "a.tar"), UNPACK)


@pytest.mark.usefixtures("image")
async def test_a_container_whose_record_comes_after_the_deadline_is_withdrawn(daemon: Any, address: str) -> None:
    """The daemon carries out what it has begun; the client does not take the snapshot from under it."""
    daemon.slow = 1.5
    async with Client(address, "tests", timeout=1) as client:
        with pytest.raises(DeadlineExceeded):
            await create(client, BOX)
        await asyncio.sleep(1)
    assert daemon.containers == []
    assert "box" not in daemon.snapshots


@pytest.mark.usefixtures("image")
async def test_a_container_that_cannot_be_withdrawn_keeps_its_snapshot(daemon: Any, address: str) -> None:
    """The disk is slower still; whoever removes the container removes both."""
    daemon.slow = 2.5
    async with Client(address, "tests", timeout=1) as client:
        with pytest.raises(DeadlineExceeded):
            await create(client, BOX)
        await asyncio.sleep(1)
    assert [each.snapshot_key for each in daemon.containers] == ["box"]
    assert "box" in daemon.snapshots


@pytest.mark.usefixtures("image")
async def test_a_client_that_was_killed_leaves_a_name_free(daemon: Any, client: Client) -> None:
    """The snapshot that it had prepared stays for as long as its lease does, a day."""
    await create(client, BOX)
    (left,) = daemon.containers
    daemon.containers.clear()
    await create(client, BOX)
    (container,) = daemon.containers
    assert container.snapshot_key.startswith("box-") and {left.snapshot_key, container.snapshot_key} <= {
        *daemon.snapshots
    }


@pytest.mark.usefixtures("image")
async def test_of_two_clients_one_creates_a_container(daemon: Any, client: Client) -> None:
    daemon.slow = 0.3
    named = replace(BOX, name="box")
    ends = await asyncio.gather(*(creation.create(client, named) for _ in range(2)), return_exceptions=True)
    (failed,) = [end for end in ends if isinstance(end, Exception)]
    assert str(failed) == "container box is being created by another client; choose another name"
    assert [each.snapshot_key for each in daemon.containers] == ["box"]
    with pytest.raises(AlreadyExists, match="container box already exists"):
        await creation.create(client, named)


@pytest.mark.usefixtures("image")
async def test_of_two_clients_one_gives_a_name_whose_id_another_container_has(daemon: Any, client: Client) -> None:
    """After `rename box old` the ID box is taken, so that IDs are drawn: they do not keep two from one name."""
    daemon.slow = 0.3
    await creation.create(client, replace(BOX, name="box"))
    daemon.containers[0].labels[NAME] = "old"
    named = replace(BOX, name="box")
    ends = await asyncio.gather(*(creation.create(client, named) for _ in range(2)), return_exceptions=True)
    assert [type(end) for end in ends if isinstance(end, Exception)] == [AlreadyExists]
    assert sorted(map(lookup.name_of, daemon.containers)) == ["box", "old"]


async def test_a_name_that_cannot_be_is_said_before_anything_is_asked(client: Client) -> None:
    """It was part of a filter, and the error was about that."""
    with pytest.raises(InvalidArgument, match=r"container 'a b' is not valid"):
        await creation.create(client, replace(BOX, name="a b", id="a b"))


async def test_a_container_that_another_client_has_removed_first_is_no_failure(client: Client) -> None:
    """`windlass run --rm` beside `windlass rm -f`, or beside the program that does it for a client that was killed."""
    await removal.remove_ended(client, "gone")


async def test_a_container_that_is_removed_while_it_is_started_has_not_lost_its_files() -> None:
    async def missing(what: str, *_: str) -> None:
        raise NotFound(f"{what} does not exist")

    client: Any = SimpleNamespace(
        snapshots=SimpleNamespace(mounts=missing), containers=SimpleNamespace(get=partial(missing, "container box"))
    )
    with pytest.raises(NotFound, match=r"^container box does not exist$"):
        await tasks._mounts(client, Container("box", snapshotter="overlayfs", snapshot_key="box"))
