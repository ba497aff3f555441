"""What services see of a call, and what clients' addresses and errors become."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from windlass.contracts import rpc
from windlass.contracts.checks import Problem
from windlass.errors import Error, FailedPrecondition, InvalidArgument, NotFound, Unavailable


class OneCall(rpc.Call):
    """A call of a client that can go."""

    def __init__(self, *metadata: tuple[str, str | bytes], namespace: str = "") -> None:
        super().__init__(metadata, namespace)
        self.gone: list[Callable[[], None]] = []

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        self.gone.append(callback)


def test_the_first_text_under_a_key_counts() -> None:
    """Bytes are none, as those of keys that end in -bin."""
    call = OneCall(("k", b"bytes"), ("k", "first"), ("k", "second"), ("containerd-lease", "l1"))
    assert (call.value("k"), call.value("none"), call.value("none", "default")) == ("first", "", "default")
    assert call.lease == "l1"
    assert OneCall().lease == ""


def test_a_namespace_is_the_clients_before_the_servers() -> None:
    """One that cannot be is refused, not replaced by another."""
    named = ("containerd-namespace", "mine")
    assert OneCall(named, namespace="k8s.io").namespace == "mine"
    assert OneCall(namespace="k8s.io").namespace == "k8s.io"
    with pytest.raises(FailedPrecondition, match="namespace is required"):
        _ = OneCall().namespace
    with pytest.raises(InvalidArgument, match="namespace"):
        _ = OneCall(("containerd-namespace", "../x"), namespace="k8s.io").namespace


async def test_a_call_is_cancelled_when_its_client_goes() -> None:
    """Who waits for that waits no longer, and not before."""
    call = OneCall()
    waiting = asyncio.create_task(call.cancelled())
    await asyncio.sleep(0)
    assert not waiting.done()
    [gone] = call.gone
    gone()
    await asyncio.wait_for(waiting, 20)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("unix:///run/x.sock", [("grpc.default_authority", "localhost")]),
        ("unix-abstract:x", [("grpc.default_authority", "localhost")]),
        ("127.0.0.1:7000", []),
    ],
)
def test_a_channel_to_a_socket_names_a_host(target: str, options: list[tuple[str, str]]) -> None:
    """Servers that want one refuse a percent-encoded path; a host keeps its own name."""
    assert rpc.authority(target) == options


@pytest.mark.parametrize("error", [NotFound("image\nx\x1b[31m\u202e"), Unavailable("a\tb\x00"), Error("a\x7fb")])
def test_a_message_is_one_line_and_stays_of_its_class(error: Error) -> None:
    """It quotes names that strangers chose, and a terminal shows it."""
    shown = rpc.printable(error)
    assert type(shown) is type(error)
    assert str(shown).isprintable()
    assert len(str(shown)) == len(str(error))


def test_a_message_that_is_a_line_is_the_same_error() -> None:
    """In any language; what was raised is what travels."""
    error = NotFound("Bild größer ☃ does not exist")
    assert rpc.printable(error) is error


@pytest.mark.parametrize(
    ("details", "name"),
    [
        ("Received RST_STREAM with error code 0", "NO_ERROR"),
        ("Received RST_STREAM with error code 1", "PROTOCOL_ERROR"),
        ("Received RST_STREAM with error code 99", "error 99"),
        ("Connection reset by peer", ""),
    ],
)
def test_a_reset_has_the_name_of_its_error(details: str, name: str) -> None:
    """One that HTTP/2 does not know has its number, and what is no reset has none."""
    assert rpc.reset_by(details) == name


def test_a_problem_reads_as_object_state_and_remedy() -> None:
    """As `windlass fsck` prints it."""
    problem = Problem("blob sha256:1", "is 3 bytes and should be 4", "pull its image again")
    assert str(problem) == "blob sha256:1 is 3 bytes and should be 4; pull its image again"
