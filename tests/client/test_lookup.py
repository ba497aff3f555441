"""A word means a container by name, by ID, or by the only ID that begins so."""

from __future__ import annotations

from typing import Any

import pytest

from windlass.errors import InvalidArgument, NotFound
from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
from windlass_client import lookup
from windlass_client.client import Client
from windlass_client.labels import NAME


@pytest.fixture(autouse=True)
def containers(daemon: Any) -> None:
    for id, name in (("web", "old"), ("0a1b2c3d4e5f", "web"), ("0a1bffffffff", ""), ("db.1", "")):
        daemon.containers.append(Container(id=id, labels={NAME: name} if name else {}))


@pytest.mark.parametrize(
    ("word", "id"),
    [
        ("web", "0a1b2c3d4e5f"),
        ("old", "web"),
        ("we", "web"),
        ("0a1b2", "0a1b2c3d4e5f"),
        ("0a1bffffffff", "0a1bffffffff"),
        ("db.1", "db.1"),
    ],
)
async def test_a_word_means_one_container(client: Client, word: str, id: str) -> None:
    assert (await lookup.container(client, word)).id == id


@pytest.mark.parametrize("word", ["", "nothing", "0a1b2c3d4e5f0", "^", "a b", "db?1", "x" * 300])
async def test_a_word_that_means_none(client: Client, word: str) -> None:
    with pytest.raises(NotFound, match="does not exist in namespace tests"):
        await lookup.container(client, word)


async def test_several_ids_that_begin_so_are_named(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="0a1b2c3d4e5f, 0a1bffffffff"):
        await lookup.container(client, "0a1b")
