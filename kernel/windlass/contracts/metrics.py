"""Contract: what can be measured about the daemon and its tasks, for the plugins that export it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from windlass.plugin import PluginType, contract
from windlass.records import dataclass


class Kind(StrEnum):
    """Kinds of metrics, as Prometheus calls them."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a family, distinguished from the others by its labels."""

    labels: Mapping[str, str]
    value: float
    suffix: str = ""
    """What follows the family's name: of a histogram ``_bucket``, with a label ``le``, ``_sum`` or ``_count``."""


@dataclass(frozen=True, slots=True)
class Family:
    """The samples of one name, which all have the same labels; a counter's name ends in ``_total``.

    A histogram has samples of three kinds for each set of labels, see `Sample.suffix`.
    """

    name: str
    help: str
    kind: Kind
    samples: tuple[Sample, ...]


@contract
class MetricSource(Protocol):
    """Can be measured."""

    async def measure(self) -> list[Family]:
        """Measure now; what does not answer within a few seconds is left out."""
        ...


class Counter(Protocol):
    """Counts the calls of one method; used on the daemon's loop only."""

    received: int
    """Messages from clients, and to them."""
    sent: int

    def begin(self) -> float:
        """Count the start of a call, and return what `end` wants."""
        ...

    def end(self, code: int, started: float) -> None:
        """Count the end of a call with its status."""
        ...


@contract
class CallCounter(MetricSource, Protocol):
    """Counts the calls of clients, once it is turned on."""

    @property
    def on(self) -> bool:
        """Whether anybody wants the numbers."""
        ...

    def turn_on(self) -> None:
        """Count the calls of servers that start later."""
        ...

    def counter(self, path: str, kind: str) -> Counter:
        """Return what counts a method; ``kind`` is unary, client_stream, server_stream or bidi_stream."""
        ...


METRICS: PluginType[CallCounter] = PluginType("io.containerd.metrics.v1", CallCounter)
"""Plugins that count what clients do, for the listener for metrics."""
