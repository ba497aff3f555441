"""Registers the exchange."""

from __future__ import annotations

from windlass.contracts.events import EXCHANGE, Exchange
from windlass.plugin import InitContext, Plugin


def init(context: InitContext) -> Exchange:
    """Make the exchange; its subscriptions end at stop."""
    from windlass_events.exchange import LocalExchange

    exchange = LocalExchange()
    context.on_stop(exchange.close)
    return exchange


PLUGIN = Plugin(EXCHANGE, id="exchange", init=init)
