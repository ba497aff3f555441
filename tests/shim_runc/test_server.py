"""The ttrpc server on its own: calls at the same time, deadlines, peers that do not read, and answers too long."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shim_runc.harness import Client

from windlass import errors
from windlass_api.ttrpc import framing as ttrpc
from windlass_shim_runc import messages, server
from windlass_shim_runc.loop import Flag, Loop
from windlass_shim_runc.messages import Message
from windlass_shim_runc.server import Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SO_PEERCRED is Linux's")

NAME = "test.Service"


class Text(Message):
    """A text."""

    text = ""


class Service:
    """What the tests call."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.flag = Flag(loop)

    async def echo(self, request: Text) -> Text:
        return request

    async def long(self, request: Text) -> Text:
        return Text(text=request.text * int(1e6))

    async def wait(self, _: Text) -> None:
        await self.flag.wait()

    async def wake(self, _: Text) -> None:
        self.flag.set()

    async def refuse(self, request: Text) -> None:
        raise errors.AlreadyExists(request.text)

    async def fail(self, _: Text) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/x")

    async def stop(self, _: Text) -> None:
        self._loop.stop()


METHODS = {name.capitalize(): (Text, name) for name in ("echo", "long", "wait", "wake", "refuse", "fail", "stop")}


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Serve in a thread, and yield where."""
    loop, listener, path = Loop(), socket.socket(socket.AF_UNIX), str(directory / "s")
    listener.bind(path)
    listener.listen()
    loop.spawn(Server(loop, listener, {NAME: (METHODS, Service(loop))}).run())
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield path
    finally:
        client = Client(path)
        client.call(Message, "Stop", Text(), NAME)
        client.close()
        thread.join(10)
        listener.close()
        loop.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client of the service."""
    with serving(tmp_path) as path:
        made = Client(path)
        yield made
        made.close()


def test_calls_are_answered_as_they_end(tmp_path: Path) -> None:
    """One that waits holds up no other, on its connection or another's."""
    with serving(tmp_path) as path:
        one, other = Client(path), Client(path)
        waiting = one.send("Wait", Text(), NAME)
        assert one.call(Text, "Echo", Text(text="a"), NAME).text == "a"
        other.call(Message, "Wake", Text(), NAME)
        assert one.receive(waiting).code == 0
        one.close()
        other.close()


@pytest.mark.parametrize(
    ("method", "service", "code", "words"),
    [
        ("Refuse", NAME, errors.Code.ALREADY_EXISTS, "said"),
        ("Fail", NAME, errors.Code.UNKNOWN, "No such file or directory: /x"),
        ("Missing", NAME, errors.Code.UNIMPLEMENTED, "method Missing"),
        ("echo", NAME, errors.Code.UNIMPLEMENTED, "method echo"),
        ("Echo", "test.Other", errors.Code.UNIMPLEMENTED, "service test.Other"),
    ],
)
def test_errors_are_statuses(client: Client, method: str, service: str, code: int, words: str) -> None:
    """With the words of the error; only what is in the table can be called."""
    answer = client.receive(client.send(method, Text(text="said"), service))
    assert (answer.code, answer.message) == (code, words)


def test_a_deadline_is_the_requests(client: Client) -> None:
    """It is answered before the client gives up, and the method has ended."""
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded, match=r"Wait was not done in 0\.5 s"):
        client.call(Message, "Wait", Text(), NAME, timeout=0.5)
    assert time.monotonic() - began < 10


def test_an_answer_that_is_too_long_is_an_error(client: Client) -> None:
    """ttrpc has frames of at most 4 MiB."""
    assert len(client.call(Text, "Long", Text(text="abc"), NAME).text) == 3_000_000
    answer = client.receive(client.send("Long", Text(text="abcde"), NAME))
    assert (answer.code, answer.message) == (errors.Code.RESOURCE_EXHAUSTED, "the answer exceeds 4 MiB")


def test_a_peer_that_does_not_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When too much waits for it; others are served."""
    monkeypatch.setattr(server, "MAX_UNSENT", 1 << 20)
    with serving(tmp_path) as path:
        lazy, other = Client(path), Client(path)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(1000):
                lazy.send("Long", Text(text="a"), NAME)
                other.call(Text, "Echo", Text(), NAME)
        assert other.call(Text, "Echo", Text(text="b"), NAME).text == "b"
        lazy.close()
        other.close()


def test_a_peer_that_reads_slowly_gets_all(client: Client) -> None:
    """In the order of the calls, although the socket holds only a part."""
    streams = [client.send("Long", Text(text=letter), NAME) for letter in "abc"]
    time.sleep(0.1)
    for stream, letter in zip(streams, "abc", strict=True):
        text = messages.decode(Text, client.receive(stream).payload).text
        assert text == letter * 1_000_000


def test_a_client_that_goes_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its calls end unanswered, in the middle of a frame too."""
    with serving(tmp_path) as path:
        for data in (b"", b"\0", ttrpc.HEADER.pack(100, 1, ttrpc.REQUEST, 0) + b"half"):
            gone = Client(path)
            gone.send("Wait", Text(), NAME)
            gone.socket.sendall(data)
            gone.close()
        other = Client(path)
        assert other.call(Text, "Echo", Text(text="c"), NAME).text == "c"
        other.close()
