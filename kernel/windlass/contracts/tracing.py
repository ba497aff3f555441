"""Contract: processors of traces, which measure spans and bring them to where they are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from windlass.plugin import PluginType, contract
from windlass.tracing import Facts, Span


class Recorder(Protocol):
    """Begins spans. Its methods are called for every call at every gate, from any thread, and never block."""

    def begin(self, name: str, kind: str, headers: Mapping[str, str], facts: Facts) -> Span:
        """Begin a span below `windlass.tracing.current`, or in the trace that ``headers`` name if there are any."""
        ...

    def close(self) -> None:
        """Send what is left, for a second or two at most, and then measure nothing any more."""
        ...


@contract
class TracingProcessor(Protocol):
    """Makes the recorder of a daemon."""

    def recorder(self, service: str, ratio: float) -> Recorder:
        """Return a recorder.

        ``service`` is what the daemon calls itself, and ``ratio`` the part of traces to keep, where the environment
        does not say so.
        """
        ...


TRACING_PROCESSOR: PluginType[TracingProcessor] = PluginType("io.containerd.tracing.processor.v1", TracingProcessor)
INTERNAL: PluginType[object] = PluginType("io.containerd.internal.v1")
"""Plugins that other plugins do not look up; containerd has several."""
