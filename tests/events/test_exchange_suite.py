"""The conformance suite of exchanges, on ours."""

from __future__ import annotations

import pytest

from windlass_conformance.events import ExchangeSuite, Make
from windlass_events.exchange import LocalExchange


class TestLocal(ExchangeSuite):
    """The exchange in memory."""

    @pytest.fixture
    def exchange(self) -> Make:
        return LocalExchange
