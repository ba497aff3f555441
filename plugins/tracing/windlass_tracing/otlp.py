"""Traces to an OpenTelemetry collector, by a thread that may wait for it as long as it likes.

Spans wait for the collector in a queue of `QUEUE`. When that is full the newest are dropped, so
that a collector that hangs or is away neither delays a call nor makes the daemon grow.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Span as Measured
from opentelemetry.trace import SpanKind, Status, StatusCode, format_span_id, format_trace_id, set_span_in_context

from windlass import __version__, tracing
from windlass.contracts.tracing import Recorder, TracingProcessor
from windlass.errors import FailedPrecondition
from windlass.tracing import CLIENT, INTERNAL, SERVER, Facts, Span
from windlass.typing import override
from windlass_tracing.settings import GRPC, Otlp

QUIET = 60.0
"""Seconds in which the log gets one line about a collector that does not answer."""
LAST_SEND = 2.0
"""Seconds that the last spans have to reach the collector when the daemon stops."""
KINDS = {SERVER: SpanKind.SERVER, CLIENT: SpanKind.CLIENT, INTERNAL: SpanKind.INTERNAL}


class OtlpProcessor(TracingProcessor):
    """Makes recorders that send to a collector."""

    def __init__(self, settings: Otlp) -> None:
        """Send to where ``settings`` says; headers, timeouts and certificates are the environment's."""
        self._exporter = exporter(settings)
        for name in ("opentelemetry", "windlass_tracing"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for name in NOISY:
            logging.getLogger(name).addFilter(Seldom())

    @override
    def recorder(self, service: str, ratio: float) -> OtlpRecorder:
        named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create({} if named else {SERVICE_NAME: service})
        sampler = None if os.environ.get("OTEL_TRACES_SAMPLER") else ParentBased(TraceIdRatioBased(ratio))
        return OtlpRecorder(self._exporter, resource, sampler)


NOISY = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.sdk._shared_internal",
    "urllib3.connectionpool",
)
"""Loggers that have a line for each try of a collector that is away."""


class Seldom(logging.Filter):
    """Lets one line pass each `QUIET` seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + QUIET
        return True


def exporter(settings: Otlp) -> SpanExporter:
    """Return what sends spans. Raises FailedPrecondition if the package for the protocol is not installed."""
    endpoint = settings.endpoint or None
    try:
        if settings.protocol == GRPC:
            from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as by_grpc

            return by_grpc.OTLPSpanExporter(endpoint=endpoint, insecure=settings.insecure or None)
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as by_http

        return by_http.OTLPSpanExporter(endpoint=endpoint)
    except ImportError as error:
        extra = "otlp-grpc" if settings.protocol == GRPC else "otlp"
        reason = f"OTLP over {settings.protocol} is not installed: {error}"
        raise FailedPrecondition(f"{reason}; pip install 'windlass-tracing[{extra}]'") from error


class OtlpRecorder(Recorder):
    """Measures spans and hands them to the thread that sends."""

    def __init__(self, exporter: SpanExporter, resource: Resource, sampler: Sampler | None) -> None:
        self._provider = TracerProvider(resource=resource, sampler=sampler, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("windlass", __version__)
        self._propagator = get_global_textmap()

    @override
    def begin(self, name: str, kind: str, headers: Mapping[str, str], facts: Facts) -> Span:
        around = tracing.current.get()
        if isinstance(around, OtlpSpan) and not headers:
            context = around.context
        else:
            context = self._propagator.extract(headers, Context())
        span = self._tracer.start_span(name, context, KINDS[kind], facts)
        return OtlpSpan(span, set_span_in_context(span, context))

    @override
    def close(self) -> None:
        # A collector that hangs would keep the daemon from stopping.
        last = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(LAST_SEND)


class OtlpSpan(Span):
    """A span that is measured."""

    __slots__ = ("_span", "context")

    def __init__(self, span: Measured, context: Context) -> None:
        found = span.get_span_context()
        super().__init__(format_trace_id(found.trace_id), format_span_id(found.span_id))
        self._span = span
        self.context = context

    @override
    def headers(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        get_global_textmap().inject(carrier, self.context)
        return carrier

    @override
    def note(self, **facts: str | int) -> None:
        self._span.set_attributes(facts)

    @override
    def end(self, error: str = "") -> None:
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()
