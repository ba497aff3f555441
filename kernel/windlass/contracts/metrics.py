"""Contract: what can be measured about the daemon and its tasks, for the plugins that export it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from windlass.plugin import contract


class Kind(StrEnum):
    """Kinds of metrics, as Prometheus calls them."""

    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a family, distinguished from the others by its labels."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    """The samples of one name, which all have the same labels; a counter's name ends in ``_total``."""

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
