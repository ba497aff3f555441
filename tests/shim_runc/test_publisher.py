"""Events to the daemon: in order, until each is acknowledged, however long the daemon is away."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim_runc.fake_runtime import Parts
from shim_runc.harness import EventSink

from windlass.errors import Code
from windlass_api.ttrpc import framing as ttrpc
from windlass_shim_runc import messages, publisher
from windlass_shim_runc.publisher import Publisher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim runs on Linux only")


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[EventSink]:
    """A daemon's event service."""
    made = EventSink(tmp_path / "events.sock")
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(publisher, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(publisher, "LONGEST_PAUSE", 0.02)


def exits(queue: Publisher, *ids: str) -> None:
    """Publish an exit of each container."""
    for id in ids:
        queue.publish("/tasks/exit", messages.TaskExit(container_id=id))


def ids(sink: EventSink, count: int = 0) -> list[str]:
    """Return the containers of the events that have come, and wait for ``count``: the sink answers, then notes one."""
    sink.wait_for("/tasks/exit", count)
    return [messages.decode(messages.TaskExit, event).container_id for _, event in sink.received]


def test_events_arrive_in_order(parted: Parts, sink: EventSink) -> None:
    """On one connection, and the queue is empty afterwards."""
    queue = Publisher(parted.loop, f"unix://{sink.path}", "ns")

    async def live() -> None:
        exits(queue, "a", "b", "c")
        assert not queue.empty.is_set
        task = parted.loop.spawn(queue.run())
        await queue.empty.wait(30)
        parted.loop.cancel(task)

    parted.run(live())
    queue.disconnect()
    assert ids(sink, 3) == ["a", "b", "c"]
    assert len(sink.connections) == 1


def test_a_daemon_that_comes_later_gets_all(parted: Parts, sink: EventSink) -> None:
    """Nothing is lost while it is away, and nothing overtakes."""
    queue = Publisher(parted.loop, str(sink.path), "ns")
    sink.stop()

    async def live() -> None:
        task = parted.loop.spawn(queue.run())
        exits(queue, "a", "b")
        await parted.loop.sleep(0.05)
        assert ids(sink) == []
        sink.start()
        exits(queue, "c")
        await queue.empty.wait(30)
        parted.loop.cancel(task)

    parted.run(live())
    queue.disconnect()
    assert ids(sink, 3) == ["a", "b", "c"]


class Answering(Publisher):
    """One whose daemon gives the answers of a list, then acknowledges."""

    answers: list[int]
    sent: list[bytes]

    async def _forward(self, event: bytes) -> ttrpc.Response:
        self.sent.append(event)
        return ttrpc.Response(self.answers.pop(0), "as the test wants it") if self.answers else ttrpc.Response()


@pytest.mark.parametrize(
    ("answers", "sent"),
    [
        ([], ["a", "b"]),
        ([Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED], ["a", "a", "a", "b"]),
        ([Code.INVALID_ARGUMENT], ["a", "b"]),
        ([Code.UNIMPLEMENTED, Code.UNKNOWN], ["a", "b", "b"]),
    ],
)
def test_only_what_may_succeed_later_is_sent_again(parted: Parts, answers: list[int], sent: list[str]) -> None:
    """An event that the daemon refuses for good does not hold up the others."""
    queue = Answering(parted.loop, "/nowhere", "ns")
    queue.answers, queue.sent = list(answers), []

    async def live() -> None:
        exits(queue, "a", "b")
        task = parted.loop.spawn(queue.run())
        await queue.empty.wait(30)
        parted.loop.cancel(task)

    parted.run(live())
    envelopes = [messages.decode(messages.ForwardRequest, event).envelope for event in queue.sent]
    assert [messages.decode(messages.TaskExit, each.event.value).container_id for each in envelopes] == sent
    assert {(each.topic, each.namespace, each.event.type_url) for each in envelopes} == {
        ("/tasks/exit", "ns", "containerd.events.TaskExit")
    }
    assert all(each.timestamp.seconds for each in envelopes)
