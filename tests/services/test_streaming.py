"""Promises of streams: bytes come whole, no faster than they are taken, and a side that is left alone gets an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from windlass.contracts.rpc import Call
from windlass.contracts.streaming import Stream
from windlass.contracts.values import Payload
from windlass.errors import AlreadyExists, Cancelled, DeadlineExceeded, InvalidArgument, NotFound
from windlass_api.containerd.services.streaming.v1.streaming_pb2 import StreamInit
from windlass_api.containerd.types.transfer.streaming_pb2 import Data, WindowUpdate
from windlass_services import streaming
from windlass_services.bytestreams import LARGEST_WINDOW, PART, WINDOW, StreamReader, StreamWriter
from windlass_services.streaming import Streaming, payload
from windlass_transfer.streams import MOST, StreamManager

CALL = Call((("containerd-namespace", "test"),))


def pack(message: Message) -> AnyMessage:
    return AnyMessage(type_url=f"types.test/{message.DESCRIPTOR.full_name}", value=message.SerializeToString())


class Client:
    """The other side of a stream, which is opened when it is entered."""

    def __init__(self, manager: StreamManager, name: str = "s-1") -> None:
        self._requests: asyncio.Queue[AnyMessage | None] = asyncio.Queue()
        self._service = Streaming(manager)
        self._requests.put_nowait(pack(StreamInit(id=name)))

    async def __aenter__(self) -> Client:
        self._answers = self._service.stream(self._sent(), CALL)
        await anext(self._answers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._answers.aclose()  # type: ignore[attr-defined] # it is a generator

    async def _sent(self) -> AsyncIterator[AnyMessage]:
        while (message := await self._requests.get()) is not None:
            yield message

    def send(self, message: Message) -> None:
        self._requests.put_nowait(pack(message))

    def finish(self) -> None:
        self._requests.put_nowait(None)

    async def receive(self) -> AnyMessage | None:
        return await anext(self._answers, None)


@pytest.fixture
async def manager() -> StreamManager:
    return StreamManager(asyncio.get_running_loop())


async def test_a_stream_is_found_by_its_name_in_its_namespace(manager: StreamManager) -> None:
    async with Client(manager):
        assert await manager.get("test", "s-1") is not None
        with pytest.raises(NotFound):
            await manager.get("other", "s-1")
        with pytest.raises(AlreadyExists):
            async with Client(manager):
                pass
        assert await manager.get("test", "s-1") is not None
    with pytest.raises(NotFound):
        await manager.get("test", "s-1")


@pytest.mark.parametrize("first", [Data(data=b"x"), StreamInit(), StreamInit(id="x" * 300), StreamInit(id="a\nb")])
async def test_a_stream_says_its_name_first(manager: StreamManager, first: Message) -> None:
    client = Client(manager)
    client._requests = asyncio.Queue()
    client.send(first)
    with pytest.raises(InvalidArgument):
        async with client:
            pass
    assert not manager.collectibles()


async def test_bytes_come_whole_and_as_they_were_granted(manager: StreamManager) -> None:
    data = bytes(range(256)) * 20_000
    async with Client(manager) as client:
        reader = StreamReader(await manager.get("test", "s-1"))

        async def read() -> bytes:
            found = b""
            while part := await reader.read():
                found += part
            return found

        reading = asyncio.create_task(read())
        sent = credit = 0
        while sent < len(data):
            if credit <= 0:
                message = await client.receive()
                assert message is not None
                credit += WindowUpdate.FromString(message.value).update
            part = data[sent : sent + min(PART, credit)]
            client.send(Data(data=part))
            sent, credit = sent + len(part), credit - len(part)
        client.finish()
        assert await reading == data


async def test_who_sends_more_than_was_granted_is_cut_off(manager: StreamManager) -> None:
    async with Client(manager) as client:
        client.send(Data(data=bytes(3 * WINDOW)))
        with pytest.raises(InvalidArgument, match="more than"):
            await StreamReader(await manager.get("test", "s-1")).read()


async def test_nothing_is_sent_that_the_client_has_not_granted(manager: StreamManager) -> None:
    async with Client(manager) as client:
        writing = asyncio.create_task(_write_all(await manager.get("test", "s-1"), b"x"))
        await asyncio.sleep(0.05)
        assert not writing.done()
        client.send(WindowUpdate(update=1))
        assert (await client.receive()) is not None
        await writing


async def _write_all(stream: Stream, data: bytes) -> None:
    await StreamWriter(stream).write(data)
    await stream.close()


async def test_bytes_go_as_the_client_grants_them(manager: StreamManager) -> None:
    data = bytes(range(250)) * 1000
    async with Client(manager) as client:
        writing = asyncio.create_task(_write_all(await manager.get("test", "s-1"), data))
        found = b""
        while len(found) < len(data):
            client.send(WindowUpdate(update=1000))
            message = await client.receive()
            assert message is not None
            part = Data.FromString(message.value).data
            assert len(part) <= 1000
            found += part
        await writing
        assert found == data
        assert await client.receive() is None


@pytest.mark.parametrize("grant", [0, -5])
async def test_a_grant_of_nothing_is_refused(manager: StreamManager, grant: int) -> None:
    async with Client(manager) as client:
        client.send(WindowUpdate(update=grant))
        with pytest.raises(InvalidArgument, match="grants"):
            await StreamWriter(await manager.get("test", "s-1")).write(b"x")


async def test_large_grants_do_not_add_up_for_ever(manager: StreamManager) -> None:
    async with Client(manager) as client:
        writer = StreamWriter(await manager.get("test", "s-1"))
        for _ in range(5):
            client.send(WindowUpdate(update=(1 << 31) - 1))
            writer._credit = 0
            await writer._collect()
            assert writer._credit <= LARGEST_WINDOW


async def test_who_waits_for_a_client_that_has_gone_hears_of_it(manager: StreamManager) -> None:
    async with Client(manager):
        stream = await manager.get("test", "s-1")
        reading = asyncio.create_task(StreamReader(stream).read())
        writing = asyncio.create_task(StreamWriter(stream).write(b"x"))
        await asyncio.sleep(0)
    for task in (reading, writing):
        with pytest.raises(Cancelled):
            await asyncio.wait_for(task, 5)


async def test_who_is_silent_for_too_long_is_given_up(manager: StreamManager) -> None:
    """In either direction; its lease and what came so far go with the transfer."""
    async with Client(manager):
        stream = await manager.get("test", "s-1")
        with pytest.raises(DeadlineExceeded, match=r"sent nothing for 0\.05 s"):
            await StreamReader(stream, 0.05).read()
        with pytest.raises(DeadlineExceeded, match=r"taken nothing for 0\.05 s"):
            await StreamWriter(stream, 0.05).write(b"x")


async def test_a_slow_client_is_waited_for(manager: StreamManager) -> None:
    """Each byte gives it as much time again."""
    async with Client(manager) as client:
        reader = StreamReader(await manager.get("test", "s-1"), 0.5)
        for _ in range(4):
            asyncio.get_running_loop().call_later(0.2, client.send, Data(data=b"x"))
            assert await reader.read() == b"x"


async def test_types_that_are_not_known_are_passed_over(manager: StreamManager) -> None:
    async with Client(manager) as client:
        client.send(StreamInit(id="later version"))
        client.send(Data(data=b"x"))
        assert await StreamReader(await manager.get("test", "s-1")).read() == b"x"


async def test_a_stream_ends_when_what_was_sent_has_been_taken(manager: StreamManager) -> None:
    """The answer to a transfer comes after the last of its progress."""
    async with Client(manager) as client:
        stream = await manager.get("test", "s-1")
        for _ in range(5):
            await stream.send(payload(Data(data=b"x")))
        closing = asyncio.create_task(stream.close())
        for _ in range(5):
            await asyncio.sleep(0)
            assert not closing.done()
            assert await client.receive()
        await asyncio.wait_for(closing, 0.5)
        assert await client.receive() is None


async def test_a_client_that_takes_nothing_is_not_waited_for_long(
    manager: StreamManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has had its time."""
    monkeypatch.setattr(streaming, "LINGER", 0.05)
    async with Client(manager):
        stream = await manager.get("test", "s-1")
        await stream.send(payload(Data(data=b"x")))
        await asyncio.wait_for(stream.close(), 5)


async def test_a_stream_of_a_lease_goes_with_it(manager: StreamManager) -> None:
    class Quiet:
        closed = False

        async def receive(self) -> Payload | None:
            return None

        async def send(self, message: Payload) -> None:
            """Take it."""

        async def close(self) -> None:
            self.closed = True

    free, leased = Quiet(), Quiet()
    await manager.add("test", "free", free)
    await manager.add("test", "leased", leased, "l-1")

    found = {each.id: (each.lease, bool(each.labels)) for each in manager.collectibles()}
    assert found == {"free": ("", True), "leased": ("l-1", False)}
    await asyncio.to_thread(manager.discard, "test", "leased")
    await asyncio.sleep(0.05)
    assert leased.closed and not free.closed
    with pytest.raises(NotFound):
        await manager.get("test", "leased")


async def test_there_are_only_so_many(manager: StreamManager) -> None:
    from windlass.errors import ResourceExhausted

    async with Client(manager):
        stream = await manager.get("test", "s-1")
        for number in range(MOST - 1):
            await manager.add("test", f"more-{number}", stream)
        with pytest.raises(ResourceExhausted):
            await manager.add("test", "one more", stream)


def test_messages_are_written_as_containerd_writes_them() -> None:
    assert payload(Data(data=b"x")).type_url == "containerd.types.transfer.Data"
