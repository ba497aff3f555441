"""The exchange: order, threads, filters, slow subscribers, topics."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from windlass.contracts.events import Envelope
from windlass.contracts.values import Payload
from windlass.errors import InvalidArgument, ResourceExhausted
from windlass_api.containerd.events.container_pb2 import ContainerCreate, ContainerUpdate
from windlass_api.containerd.events.task_pb2 import TaskCreate, TaskExit, TaskIO
from windlass_api.containerd.services.images.v1.events_pb2 import ImageCreate
from windlass_events import fields, subscription
from windlass_events.exchange import LocalExchange

NOTHING = Payload("containerd.events.TaskStart", b"")


@pytest.fixture
def exchange() -> LocalExchange:
    return LocalExchange()


def payload(message: Message) -> Payload:
    return Payload(message.DESCRIPTOR.full_name, message.SerializeToString())


async def take(events: AsyncIterator[Envelope], count: int) -> list[Envelope]:
    async with asyncio.timeout(10):
        return [await anext(events) for _ in range(count)]


async def test_every_subscriber_receives_every_event_in_order(exchange: LocalExchange) -> None:
    """With namespace, topic, payload and a time."""
    before = time.time_ns()
    async with exchange.subscribe() as one, exchange.subscribe([""]) as other:
        for number in range(100):
            exchange.publish("default", f"/tasks/t{number}", Payload("type", b"%d" % number))

        for events in (one, other):
            received = await take(events, 100)
            assert [envelope.event.value for envelope in received] == [b"%d" % number for number in range(100)]
            assert {envelope.namespace for envelope in received} == {"default"}
            assert received[7].topic == "/tasks/t7"
            assert before <= received[0].timestamp <= received[99].timestamp <= time.time_ns()


async def test_subscription_starts_when_it_is_entered(exchange: LocalExchange) -> None:
    """There is no replay."""
    waiting = exchange.subscribe()
    exchange.publish("default", "/early", NOTHING)
    async with waiting as events:
        exchange.publish("default", "/late", NOTHING)
        assert [envelope.topic for envelope in await take(events, 1)] == ["/late"]


async def test_events_of_many_threads_come_in_one_order_for_all(exchange: LocalExchange) -> None:
    """And none is lost."""

    def publish(thread: int) -> None:
        for number in range(500):
            exchange.publish("default", f"/t{thread}", Payload("", b"%d" % number))

    async with exchange.subscribe() as one, exchange.subscribe() as other:
        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        first, second = await take(one, 2000), await take(other, 2000)
        for thread in threads:
            thread.join()

    assert first == second
    for number in range(4):
        mine = [int(envelope.event.value) for envelope in first if envelope.topic == f"/t{number}"]
        assert mine == list(range(500))


@pytest.mark.parametrize("stamp", [12345, 0, -5])
async def test_forwarded_event_keeps_its_stamp(exchange: LocalExchange, stamp: int) -> None:
    """The epoch and what was before it are times too."""
    envelope = Envelope(stamp, "other", "/tasks/exit", NOTHING)
    async with exchange.subscribe() as events:
        exchange.forward(envelope)
        assert await take(events, 1) == [envelope]


async def test_forwarded_event_needs_namespace_and_topic(exchange: LocalExchange) -> None:
    for envelope in (
        Envelope(1, "", "/topic", NOTHING),
        Envelope(1, "ns", "topic", NOTHING),
    ):
        with pytest.raises(InvalidArgument):
            exchange.forward(envelope)


@pytest.mark.parametrize("topic", ["", "/", "test", "//", "/test/", "/a//b", "/a b", "/ä", "/-a", "/" + "a" * 77])
def test_topic_that_is_not_valid_is_refused(exchange: LocalExchange, topic: str) -> None:
    with pytest.raises(InvalidArgument, match="topic"):
        exchange.publish("default", topic, NOTHING)


def test_long_topic_is_refused_in_few_words(exchange: LocalExchange) -> None:
    with pytest.raises(InvalidArgument) as raised:
        exchange.publish("default", "/a" * 100_000, NOTHING)
    assert len(str(raised.value)) < 300


def test_namespace_must_be_an_identifier(exchange: LocalExchange) -> None:
    for namespace in ("", "a/b", "-x"):
        with pytest.raises(InvalidArgument, match="namespace"):
            exchange.publish(namespace, "/topic", NOTHING)


def test_filter_that_does_not_parse_is_refused_before_anything_is_opened(exchange: LocalExchange) -> None:
    with pytest.raises(InvalidArgument, match="parse error"):
        exchange.subscribe(["topic=="])


IMAGE = payload(ImageCreate(name="docker.io/library/busybox:latest", labels={"a/b": "c", "d.e": "f"}))
EXIT = payload(TaskExit(container_id="c1", id="exec1", pid=7, exit_status=3))
TASK = payload(TaskCreate(container_id="c1", io=TaskIO(stdout="/fifo", terminal=True), pid=5))
OPTIONS = AnyMessage(type_url="types.example/containerd.events.TaskExit", value=EXIT.value)
CONTAINER = payload(ContainerCreate(id="c2", image="i", runtime=ContainerCreate.Runtime(name="r", options=OPTIONS)))


@pytest.mark.parametrize(
    ("filter", "event", "matches"),
    [
        ("event.container_id==c1", EXIT, True),
        ("event.container_id~=^c[0-9]$,event.id!=c1", EXIT, True),
        ("event.container_id==c2", EXIT, False),
        ("event.pid", EXIT, False),
        ("event.exit_status==3", EXIT, False),
        ("event.exited_at", EXIT, False),
        ("event", EXIT, False),
        ("event.nothing", EXIT, False),
        ("event.nothing!=x", EXIT, True),
        ('event.labels."a/b"==c', IMAGE, True),
        ("event.labels.d.e==f", IMAGE, True),
        ("event.labels.d", IMAGE, False),
        ("event.name~=busybox", IMAGE, True),
        ("event.io.terminal==true", TASK, True),
        ('event.io.stdout=="/fifo"', TASK, True),
        ("event.io.stdin", TASK, False),
        ("event.io", TASK, False),
        ("event.rootfs", TASK, False),
        ("event.checkpoint", TASK, False),
        ("event.runtime.name==r", CONTAINER, True),
        ("event.runtime.options.container_id==c1", CONTAINER, True),
        ("event.labels.x", payload(ContainerUpdate(id="c")), False),
        ("event.container_id==c1", Payload("types.containerd.io/containerd.events.TaskExit", EXIT.value), True),
        ("event.container_id", Payload("containerd.events.TaskExit", b"\xff garbage"), False),
        ("event.container_id", Payload("no.such.Message", b""), False),
        ("event.container_id", Payload("", b""), False),
        ("event.type_url", Payload("google.protobuf.Any", OPTIONS.SerializeToString()), False),
        ("event." + "io." * 50 + "io", TASK, False),
        ('topic=="/tasks/exit"', EXIT, True),
        ("topic~=|^/images/|", EXIT, False),
        ("namespace==default", EXIT, True),
        ("namespace!=default", EXIT, False),
        ("timestamp", EXIT, False),
    ],
)
async def test_filters_read_namespace_topic_and_fields(
    exchange: LocalExchange, filter: str, event: Payload, matches: bool
) -> None:
    async with exchange.subscribe([filter]) as events, exchange.subscribe(['topic=="/last"', filter]) as either:
        exchange.publish("default", "/tasks/exit", event)
        exchange.publish("default", "/last", NOTHING)
        topics = [envelope.topic for envelope in await take(either, 2 if matches else 1)]
        assert topics == (["/tasks/exit", "/last"] if matches else ["/last"])
        if matches:
            assert (await take(events, 1))[0].event == event


async def test_slow_subscriber_is_ended_and_the_others_are_not(
    exchange: LocalExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what its filter accepts counts against it."""
    monkeypatch.setattr(subscription, "MAX_EVENTS", 100)
    async with (
        exchange.subscribe() as slow,
        exchange.subscribe() as quick,
        exchange.subscribe(['topic=="/rare"']) as picky,
    ):
        exchange.publish("default", "/rare", NOTHING)
        for number in range(150):
            exchange.publish("default", f"/t{number}", NOTHING)
            await take(quick, 1)
        await take(quick, 1)

        with pytest.raises(ResourceExhausted, match="100 events or 64 MiB behind"):
            await anext(slow)
        exchange.publish("default", "/rare", NOTHING)
        assert len(await take(quick, 1)) == 1
        assert len(await take(picky, 2)) == 2


async def test_subscriber_that_is_megabytes_behind_is_ended(
    exchange: LocalExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "MAX_BYTES", 10_000)
    async with exchange.subscribe() as slow:
        for _ in range(11):
            exchange.publish("default", "/big", Payload("", b"x" * 1000))
        with pytest.raises(ResourceExhausted):
            await take(slow, 11)


async def test_queue_is_bounded_while_the_loop_is_busy(
    exchange: LocalExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "MAX_EVENTS", 100)
    async with exchange.subscribe() as events:
        for _ in range(200):
            exchange.publish("default", "/t", NOTHING)
        with pytest.raises(ResourceExhausted):
            await take(events, 1)


async def test_long_backlog_lets_other_callbacks_have_their_turn(exchange: LocalExchange) -> None:
    async with exchange.subscribe() as events:
        for _ in range(3 * subscription.BATCH):
            exchange.publish("default", "/t", NOTHING)
        await asyncio.sleep(0)
        ready = events._ready  # type: ignore[attr-defined] # how many wait here is not shown otherwise
        assert len(ready) <= subscription.BATCH
        await take(events, 3 * subscription.BATCH)


async def test_closed_exchange_ends_its_subscriptions_when_they_are_read(exchange: LocalExchange) -> None:
    async with exchange.subscribe() as events:
        exchange.publish("default", "/last", NOTHING)
        exchange.close()
        assert [envelope.topic async for envelope in events] == ["/last"]


async def test_subscriber_that_left_receives_nothing(exchange: LocalExchange) -> None:
    async with exchange.subscribe() as events:
        pass
    exchange.publish("default", "/t", NOTHING)
    assert [envelope async for envelope in events] == []
    assert not exchange._subscriptions


def test_subscriber_whose_loop_is_gone_is_forgotten(exchange: LocalExchange) -> None:
    """Publishers do not notice."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(exchange.subscribe().__aenter__())
    loop.close()

    exchange.publish("default", "/t", NOTHING)

    assert not exchange._subscriptions


async def test_waiting_reader_can_be_cancelled(exchange: LocalExchange) -> None:
    async with exchange.subscribe() as events:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(events)
        exchange.publish("default", "/t", NOTHING)
        assert len(await take(events, 1)) == 1


def test_each_event_of_a_task_is_a_line_on_level_debug(
    exchange: LocalExchange, caplog: pytest.LogCaptureFixture
) -> None:
    """With the container and the exec, so that a log has a container's life; other events are left to subscribers."""
    with caplog.at_level("DEBUG"):
        exchange.publish("default", "/tasks/exit", payload(TaskExit(container_id="c1", id="e1", exit_status=3)))
        exchange.forward(Envelope(1, "default", "/tasks/create", payload(TaskCreate(container_id="c1"))))
        exchange.publish("default", "/images/create", payload(ImageCreate(name="x")))
        exchange.publish("default", "/tasks/odd", Payload("no.such.Type", b"\xff"))
    logged = [
        (record.getMessage(), vars(record).get("container_id"), vars(record).get("id")) for record in caplog.records
    ]
    assert logged == [
        ("event /tasks/exit", "c1", "e1"),
        ("event /tasks/create", "c1", None),
        ("event /tasks/odd", None, None),
    ]


def test_a_types_name_of_any_length_is_not_remembered() -> None:
    """A client that forwards events with types of a megabyte each would fill the daemon's memory."""
    before = fields._message_class.cache_info().currsize
    for number in range(3):
        assert fields.decode(f"x.{number}." + "y" * 1000, b"") is None
    assert fields._message_class.cache_info().currsize == before
    assert fields.decode("types/containerd.events.TaskExit", b"") == TaskExit()


async def test_many_subscribers_may_leave_at_once(exchange: LocalExchange) -> None:
    """A connection has up to 65,536 streams, and when it ends the daemon must not stand still for minutes."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(20_000):
            await stack.enter_async_context(exchange.subscribe())
        began = time.thread_time()
    assert time.thread_time() - began < 5  # of processor time; it was more than a minute
    async with exchange.subscribe() as events:
        exchange.publish("default", "/after", NOTHING)
        assert [envelope.topic for envelope in await take(events, 1)] == ["/after"]
