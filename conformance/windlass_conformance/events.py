"""The promises of `windlass.contracts.events.Exchange`, one test each (docs/containerd 3.13, 8.9).

The subclass provides a fixture ``exchange``: a function that makes an exchange, or finds one, inside a running
event loop. Other events than the cases' own may come by; the cases look at their own namespace only.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from windlass.contracts.events import Envelope, Exchange
from windlass.contracts.values import Payload
from windlass.errors import InvalidArgument

PATIENCE = 20.0
TYPE = "conformance.Event"
MANY = 2000

Make = Callable[[], Exchange]


class ExchangeSuite:
    """The promises of an exchange; the module says how to run the suite."""

    certifies = "events"

    @pytest.fixture
    def exchange(self) -> Make:
        """Give what makes the exchange under test; the subclass provides it."""
        raise NotImplementedError("the subclass provides the exchange under test")

    @pytest.fixture
    def namespace(self) -> str:
        """Give a namespace in which no other client publishes."""
        return f"conformance-{secrets.token_hex(4)}"

    def test_events_arrive_as_they_were_published(self, exchange: Make, namespace: str) -> None:
        """A subscriber gets namespace, topic and event, and a time."""

        async def case(found: Exchange) -> None:
            async with listening(found, f"namespace=={namespace}") as received:
                found.publish(namespace, "/some/topic", Payload(TYPE, b"value"))
                envelope = await received()
                assert (envelope.namespace, envelope.topic) == (namespace, "/some/topic")
                assert envelope.event.value == b"value"
                assert envelope.event.type_url.rpartition("/")[2] == TYPE
                assert envelope.timestamp > 0

        run(exchange, case)

    def test_every_subscriber_gets_every_event_in_order(self, exchange: Make, namespace: str) -> None:
        """Two subscribers see the same events in the order in which they were published, however many."""

        async def case(found: Exchange) -> None:
            own = f"namespace=={namespace}"
            async with listening(found, own) as first, listening(found, own) as second:
                for number in range(MANY):
                    found.publish(namespace, "/some/topic", Payload(TYPE, b"%d" % number))
                for received in (first, second):
                    values = [(await received()).event.value for _ in range(MANY)]
                    assert values == [b"%d" % number for number in range(MANY)]

        run(exchange, case)

    def test_nothing_is_replayed(self, exchange: Make, namespace: str) -> None:
        """An event from before a subscription does not arrive in it."""

        async def case(found: Exchange) -> None:
            found.publish(namespace, "/some/topic", Payload(TYPE, b"before"))
            async with listening(found, f"namespace=={namespace}") as received:
                found.publish(namespace, "/some/topic", Payload(TYPE, b"after"))
                assert (await received()).event.value == b"after"

        run(exchange, case)

    def test_filters_choose(self, exchange: Make, namespace: str) -> None:
        """An event arrives when one of the filters matches its namespace and topic."""

        async def case(found: Exchange) -> None:
            filters = (f'namespace=={namespace},topic=="/b/two"', f"namespace=={namespace},topic~=^/c/")
            async with listening(found, *filters) as received:
                for topic in ("/a/one", "/b/two", "/c/three", "/d/last", "/b/two"):
                    found.publish(namespace, topic, Payload(TYPE, b""))
                assert [(await received()).topic for _ in range(3)] == ["/b/two", "/c/three", "/b/two"]

        run(exchange, case)

    def test_a_filter_that_does_not_parse_is_refused(self, exchange: Make) -> None:
        """Subscribing with it is InvalidArgument."""

        async def case(found: Exchange) -> None:
            with pytest.raises(InvalidArgument):
                async with listening(found, "namespace==") as received:
                    await received()

        run(exchange, case)

    @pytest.mark.parametrize("topic", ["", "/", "//", "/a/", "a", "a/b", "/a//b", "/a b", "/ä"])
    def test_topics_are_checked(self, exchange: Make, namespace: str, topic: str) -> None:
        """A topic is a slash and a word, and so on; any other is InvalidArgument."""

        async def case(found: Exchange) -> None:
            with pytest.raises(InvalidArgument):
                found.publish(namespace, topic, Payload(TYPE, b""))

        run(exchange, case)

    def test_a_namespace_is_needed(self, exchange: Make) -> None:
        """An event of a namespace that is not an identifier is refused."""

        async def case(found: Exchange) -> None:
            with pytest.raises(InvalidArgument):
                found.publish("not/valid", "/some/topic", Payload(TYPE, b""))

        run(exchange, case)

    def test_forwarded_events_keep_their_time(self, exchange: Make, namespace: str) -> None:
        """An envelope that was filled elsewhere arrives as it is."""

        async def case(found: Exchange) -> None:
            async with listening(found, f"namespace=={namespace}") as received:
                sent = Envelope(1_600_000_000_000_000_001, namespace, "/some/topic", Payload(TYPE, b"x"))
                found.forward(sent)
                assert await received() == sent

        run(exchange, case)

    def test_who_leaves_is_forgotten(self, exchange: Make, namespace: str) -> None:
        """After a subscription has ended, publishing goes on, and others still hear."""

        async def case(found: Exchange) -> None:
            own = f"namespace=={namespace}"
            async with listening(found, own) as received:
                async with listening(found, own):
                    pass
                found.publish(namespace, "/some/topic", Payload(TYPE, b"x"))
                assert (await received()).event.value == b"x"

        run(exchange, case)

    def test_a_slow_subscriber_holds_up_nobody(self, exchange: Make, namespace: str) -> None:
        """Events reach the other subscribers while one does not read."""

        async def case(found: Exchange) -> None:
            own = f"namespace=={namespace}"
            async with found.subscribe([own]), listening(found, own) as received:
                for number in range(MANY):
                    found.publish(namespace, "/some/topic", Payload(TYPE, b"%d" % number))
                for number in range(MANY):
                    assert (await received()).event.value == b"%d" % number

        run(exchange, case)


@asynccontextmanager
async def listening(exchange: Exchange, *filters: str) -> AsyncIterator[Callable[[], Awaitable[Envelope]]]:
    """Subscribe, and give what returns the next event."""
    async with exchange.subscribe(list(filters)) as envelopes:

        async def received() -> Envelope:
            return await asyncio.wait_for(anext(envelopes), PATIENCE)

        yield received


def run(exchange: Make, case: Callable[[Exchange], Awaitable[None]]) -> None:
    """Run a case in an event loop of its own."""

    async def work() -> None:
        await case(exchange())

    asyncio.run(work())
