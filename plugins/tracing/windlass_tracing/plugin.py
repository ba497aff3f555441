"""Registers the sender of traces, and what records them."""

from __future__ import annotations

import importlib.util

from windlass import tracing
from windlass.contracts.tracing import INTERNAL, TRACING_PROCESSOR, TracingProcessor
from windlass.plugin import InitContext, Plugin, SkipPlugin
from windlass.records import dataclass


@dataclass(frozen=True)
class OtlpConfig:
    """Configuration of ``io.containerd.tracing.processor.v1.otlp``, where the environment does not say otherwise."""

    #: URL of the collector, such as http://127.0.0.1:4318. OTEL_EXPORTER_OTLP_ENDPOINT wins.
    endpoint: str = ""
    #: http/protobuf or grpc; empty is http/protobuf. OTEL_EXPORTER_OTLP_PROTOCOL wins.
    protocol: str = ""
    #: Speak to a gRPC collector without TLS; the scheme http in the endpoint says so too.
    insecure: bool = False


@dataclass(frozen=True)
class TracingConfig:
    """Configuration of ``io.containerd.internal.v1.tracing``, where the environment does not say otherwise."""

    #: What the daemon calls itself in traces; empty is windlass. OTEL_SERVICE_NAME wins.
    service_name: str = ""
    #: Part of the traces that are kept, 0.0 to 1.0; 0 is all. OTEL_TRACES_SAMPLER wins.
    sampling_ratio: float = 0.0


def init_otlp(context: InitContext) -> TracingProcessor:
    """Find out where to send traces."""
    from windlass_tracing.settings import Otlp

    config = context.config(OtlpConfig)
    settings = Otlp.read(config.endpoint, config.protocol, config.insecure)
    if settings is None:
        raise SkipPlugin("no collector for traces; set OTEL_EXPORTER_OTLP_ENDPOINT in the daemon's environment")
    if importlib.util.find_spec("opentelemetry") is None:
        raise SkipPlugin("traces need OpenTelemetry; pip install 'windlass-tracing[otlp]'")
    from windlass_tracing.otlp import OtlpProcessor

    return OtlpProcessor(settings)


def init_tracing(context: InitContext) -> object:
    """Record every call."""
    config = context.config(TracingConfig)
    processors = context.all(TRACING_PROCESSOR)
    if not processors:
        raise SkipPlugin(f"no plugin of type {TRACING_PROCESSOR.uri} has started, so traces have nowhere to go")
    processor = context.single(TRACING_PROCESSOR)
    recorder = processor.recorder(config.service_name or "windlass", config.sampling_ratio or 1.0)

    async def begin() -> None:
        tracing.record(recorder.begin)

    def end() -> None:
        tracing.record(None)
        recorder.close()

    context.on_start(begin)
    context.on_stop(end)
    return recorder


OTLP = Plugin(TRACING_PROCESSOR, id="otlp", init=init_otlp, config=OtlpConfig)
TRACING_PLUGIN = Plugin(INTERNAL, id="tracing", init=init_tracing, requires=(TRACING_PROCESSOR,), config=TracingConfig)
