"""Traces that reach a collector: what they contain, and what happens when it is away."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tracing.collector import Collector, collecting, decoded

from windlass import tracing
from windlass.contracts.tracing import Recorder
from windlass.errors import InvalidArgument, NotFound
from windlass.gate import Gate, Handle, offload
from windlass_tracing.otlp import OtlpProcessor
from windlass_tracing.settings import Otlp

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}

Start = Callable[[], Recorder]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture
def start(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Give what begins to record, with a short delay, to the collector."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setattr(tracing, "active", False)
    monkeypatch.setattr(tracing, "recorder", None)
    started: list[Recorder] = []

    def begin() -> Recorder:
        settings = Otlp.read("", "", False)
        assert settings is not None
        recorder = OtlpProcessor(settings).recorder("windlass", 1.0)
        started.append(recorder)
        tracing.record(recorder.begin)
        return recorder

    yield begin
    tracing.record(None)
    for each in started:
        each.close()


class Store:
    """A plugin."""

    def put(self, fails: bool) -> None:
        if fails:
            raise NotFound("it is not there")

    async def ask(self, other: Store) -> None:
        await offload(other.put, False)


def in_a_request(headers: dict[str, str], call: Callable[[], object]) -> None:
    """Do something as the daemon does it for an RPC."""

    def serve() -> None:
        span = tracing.begin("a.B/C", tracing.SERVER, headers, {"rpc.method": "C"})
        tracing.current.set(span)
        call()
        span.end()

    contextvars.copy_context().run(serve)


def test_a_request_is_followed_through_gates_and_threads(start: Start, collector: Collector) -> None:
    """The span of the RPC is in the client's trace; calls at gates are below it, also in other threads."""
    start()
    first, second = (Handle(Store(), Gate(f"io.example.v1.{name}")) for name in ("first", "second"))
    in_a_request(PARENT, lambda: asyncio.run(first.ask(second)))  # type: ignore[operator] # a handle's method

    found = collector.wait_for("a.B/C", "io.example.v1.first.ask", "io.example.v1.second.put")
    rpc, asked, put = found["a.B/C"], found["io.example.v1.first.ask"], found["io.example.v1.second.put"]
    assert {span.trace for span in found.values()} == {TRACE}
    assert (rpc.parent, asked.parent, put.parent) == ("b7ad6b7169203331", rpc.id, asked.id)
    assert rpc.facts == {"rpc.method": "C"} and rpc.resource["service.name"] == "windlass"
    assert collector.paths[0] == "/v1/traces"


def test_a_failed_call_says_why(start: Start, collector: Collector) -> None:
    """The error is the status of the span."""
    start()
    store = Handle(Store(), Gate("io.example.v1.store"))

    def fail() -> None:
        with pytest.raises(NotFound):
            store.put(True)  # type: ignore[operator] # a handle's method

    in_a_request({}, fail)
    assert collector.wait_for("io.example.v1.store.put")["io.example.v1.store.put"].error == "NotFound: it is not there"


def test_calls_outside_of_a_request_are_no_traces(start: Start, collector: Collector) -> None:
    """What the daemon does by itself all the time would hide what clients do."""
    start()
    Handle(Store(), Gate("io.example.v1.idle")).put(False)  # type: ignore[operator] # a handle's method
    in_a_request({}, lambda: None)
    collector.wait_for("a.B/C")
    assert "io.example.v1.idle.put" not in {span.name for span in collector.spans}


def test_the_environment_says_who_sends_and_what(
    start: Start, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Service, attributes and headers are those of the variables; a client that does not sample is not recorded."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "node-7")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "rack=12")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x")
    start()
    in_a_request({"traceparent": f"00-{'1' * 32}-b7ad6b7169203331-00"}, lambda: None)
    in_a_request(PARENT, lambda: None)
    found = collector.wait_for("a.B/C")["a.B/C"]
    assert (found.resource["service.name"], found.resource["rack"]) == ("node-7", "12")
    assert collector.headers[0]["authorization"] == "Bearer x"
    assert {span.trace for span in collector.spans} == {TRACE}


@pytest.mark.parametrize("hangs", [True, False])
def test_a_collector_that_hangs_or_is_away_delays_nothing(
    start: Start, collector: Collector, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """Requests go on, the queue does not grow, and the end waits a few seconds at most."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "600")
    if hangs:
        collector.hangs.set()
    else:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    recorder = start()
    began = time.monotonic()
    for _ in range(3000):
        in_a_request({}, lambda: None)
    assert time.monotonic() - began < 20, "the collector's timeout is 10 s for each of six batches"
    if hangs:
        assert collector.asked.wait(10)
    tracing.record(None)
    closing = threading.Thread(target=recorder.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, Otlp("http/protobuf")),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/x"}, Otlp("http/protobuf")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, Otlp("grpc")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "TRUE"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_where_traces_go(environment: dict[str, str], expected: Otlp | None) -> None:
    """The variables decide; without an endpoint there are no traces."""
    assert Otlp.read("", "", False, environment) == expected


def test_containerds_block_is_accepted() -> None:
    """Its endpoint has no path; the environment wins."""
    assert Otlp.read("http://c:4318", "", True, {}) == Otlp("http/protobuf", "http://c:4318/v1/traces", True)
    assert Otlp.read("http://c:4317", "grpc", True, {}) == Otlp("grpc", "http://c:4317", True)
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other"}
    assert Otlp.read("http://c:4318", "", False, given) == Otlp("http/protobuf")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"OTEL_SDK_DISABLED": "perhaps"}, "neither true nor false"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "set it to otlp or none"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4318"}, "not a URL"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http/json"),
    ],
)
def test_what_cannot_be_is_refused(environment: dict[str, str], says: str) -> None:
    """One line says which variable, and what it may be."""
    with pytest.raises(InvalidArgument, match=says):
        Otlp.read("", "", False, environment)


def test_traces_by_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other protocol of OTLP."""
    names: list[str] = []

    def export(data: bytes, context: grpc.ServicerContext) -> bytes:
        names.extend(span.name for span in decoded(data))
        return b""

    handler = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": grpc.unary_unary_rpc_method_handler(export)}
    )
    server = grpc.server(ThreadPoolExecutor(1), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setattr(tracing, "active", False)
    settings = Otlp.read(f"http://127.0.0.1:{port}", "grpc", True, {})
    assert settings is not None
    recorder = OtlpProcessor(settings).recorder("windlass", 1.0)
    tracing.record(recorder.begin)
    try:
        in_a_request({}, lambda: None)
        until = time.monotonic() + 20
        while "a.B/C" not in names:
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        tracing.record(None)
        recorder.close()
        server.stop(None).wait()
