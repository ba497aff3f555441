"""The exchange: stamps events, checks them, and offers each to every subscription."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from windlass import tracing
from windlass.contracts.events import Envelope, Exchange
from windlass.contracts.values import Payload, check_identifier
from windlass.errors import InvalidArgument
from windlass.filters.expressions import parse
from windlass.typing import override
from windlass_events.fields import ReadableEvent
from windlass_events.subscription import Subscription

logger = logging.getLogger(__name__)

MAX_TOPIC = 1024
SHOWN = 128


class LocalExchange(Exchange):
    """The exchange inside the daemon."""

    def __init__(self) -> None:
        # Their order without their number mattering: a client that goes may leave tens of thousands at once.
        self._subscriptions: dict[Subscription, None] = {}
        # Held while an event is appended to every queue: all subscribers see the same order.
        self._publishing = threading.RLock()

    @override
    def publish(self, namespace: str, topic: str, event: Payload) -> None:
        check_identifier("namespace", namespace)
        check_topic(topic)
        with self._publishing:
            self._deliver(Envelope(time.time_ns(), namespace, topic, event))

    @override
    def forward(self, envelope: Envelope) -> None:
        check_identifier("namespace", envelope.namespace)
        check_topic(envelope.topic)
        with self._publishing:
            self._deliver(envelope)

    @override
    def subscribe(self, filters: Sequence[str] = ()) -> AbstractAsyncContextManager[AsyncIterator[Envelope]]:
        return Subscription(parse(filters), self._enter, self._leave)

    def close(self) -> None:
        """End every subscription; each is read to its end."""
        with self._publishing:
            for subscription in tuple(self._subscriptions):
                subscription.end()
            self._subscriptions.clear()

    def _deliver(self, envelope: Envelope) -> None:
        event = ReadableEvent(envelope)
        if envelope.topic.startswith("/tasks/") and logger.isEnabledFor(logging.DEBUG):
            logger.debug("event %s", envelope.topic, extra=_details(event))
        for subscription in tuple(self._subscriptions):  # one that cannot be woken any more leaves meanwhile
            subscription.offer(event)

    def _enter(self, subscription: Subscription) -> None:
        with self._publishing:
            self._subscriptions[subscription] = None

    def _leave(self, subscription: Subscription) -> None:
        with self._publishing:
            self._subscriptions.pop(subscription, None)


def _details(event: ReadableEvent) -> dict[str, str]:
    """Return what the log has of an event besides its topic."""
    details = {"namespace": event.envelope.namespace}
    for name in ("container_id", "exec_id", "id"):
        value, _ = event.field(("event", name))
        if value:
            details[name] = value
    # What a shim reports, such as the end of a process, comes after the request that has led to it.
    container = f"{details['namespace']}/{details.get('container_id', '')}"
    if (span := tracing.last(container + event.envelope.topic) or tracing.last(container)) is not None:
        details["trace_id"] = span.trace
    return details


def check_topic(topic: str) -> None:
    """Raise InvalidArgument unless ``topic`` is ``/`` and identifiers, separated by ``/``."""
    if not topic.startswith("/"):
        raise InvalidArgument(f"topic {topic[:SHOWN]!r} must start with '/'")
    if len(topic) > MAX_TOPIC:
        raise InvalidArgument(f"topic {topic[:SHOWN]!r}… is longer than {MAX_TOPIC} characters")
    for component in topic[1:].split("/"):
        check_identifier(f"a part of topic {topic[:SHOWN]!r}", component)
