"""The library: metadata, deadlines and errors of calls, and leases."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from client.conftest import FakeDaemon
from google.protobuf.any_pb2 import Any as AnyMessage

from windlass.contracts.values import Platform
from windlass.errors import DeadlineExceeded, NotFound, Unavailable
from windlass_api.containerd.events import task_pb2
from windlass_client import describe
from windlass_client.client import Client
from windlass_images import platforms


async def test_every_call_names_its_namespace(client: Client, daemon: FakeDaemon) -> None:
    """The header is there without anybody asking for it."""
    await client.images.list()
    assert daemon.namespaces == {"tests"}


async def test_errors_are_classes_with_the_daemons_words(client: Client) -> None:
    """A status becomes the class that it stands for."""
    with pytest.raises(NotFound, match="image none does not exist"):
        await client.images.get("none")


async def test_nobody_there(tmp_path: Path) -> None:
    """The error names the socket and what to do."""
    async with Client(str(tmp_path / "none.sock")) as client:
        with pytest.raises(Unavailable, match=r"none.sock is not running: there is no such socket; start it with"):
            await client.version()


async def test_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    """No call waits for ever."""

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
        listener.listen()
        async with Client(str(tmp_path / "s.sock"), timeout=0.3) as client:
            with pytest.raises((DeadlineExceeded, Unavailable)):
                await client.version()


async def test_a_lease_ends_with_its_block(client: Client, daemon: FakeDaemon) -> None:
    """Also when the block fails, and then garbage is collected at once."""
    async with client.lease() as leased:
        assert leased.connection.lease in daemon.leased
        assert client.connection.lease == ""
    assert not daemon.leased

    with pytest.raises(ZeroDivisionError):
        async with client.lease() as leased:
            raise ZeroDivisionError
    assert not daemon.leased


@pytest.mark.parametrize(
    ("wanted", "have", "fits"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/arm/v7", "linux/arm/v6", True),
        ("windows/amd64", "linux/amd64", False),
    ],
)
def test_platforms(wanted: str, have: str, fits: bool) -> None:
    """A variant that is left out is the usual one."""
    assert platforms.matches(platforms.parse(wanted), platforms.parse(have)) is fits
    assert platforms.write(Platform("linux", "arm", "v7")) == "linux/arm/v7"


def test_what_a_container_carries_is_shown_whatever_it_is() -> None:
    """JSON, a message that we know, and bytes that we do not."""
    known = AnyMessage()
    known.Pack(task_pb2.TaskPaused(container_id="c"))
    assert describe.payload(AnyMessage(type_url="x/Spec", value=b'{"a":1}')) == {"@type": "x/Spec", "value": {"a": 1}}
    assert describe.payload(known)["container_id"] == "c"
    assert describe.payload(AnyMessage(type_url="x/Y", value=b"\xff")) == {"@type": "x/Y", "bytes": 1}
