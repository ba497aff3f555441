"""The metrics listener: what a scraper gets, and what anybody else does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

pytest.importorskip(
    "prometheus_client", reason="prometheus-client is not installed; pip install 'windlass-server[metrics]'"
)

from prometheus_client.parser import text_string_to_metric_families

from windlass.contracts.metrics import Family, Kind, MetricSource, Sample
from windlass.errors import InvalidArgument, NotFound, StartError, Unavailable
from windlass.gate import Gate
from windlass_server import metrics
from windlass_server.metrics import MetricsServer, parse_address


class Source:
    """Has one value."""

    async def measure(self) -> list[Family]:
        return [Family("box_bytes", "Of a box.", Kind.GAUGE, (Sample({"id": 'a"\n'}, 7), Sample({"id": "b"}, 8)))]


class Slow:
    """Waits until it may go on."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()

    async def measure(self) -> list[Family]:
        self.asked += 1
        await self.go.wait()
        return []


class Large:
    """Has more to say than fits into a connection whose client does not read."""

    asked = 0

    async def measure(self) -> list[Family]:
        self.asked += 1
        samples = tuple(Sample({"id": f"{number}" + "x" * 10_000}, number) for number in range(1000))
        return [Family("large", "Of a box.", Kind.GAUGE, samples)]


class Sick:
    """Fails."""

    async def measure(self) -> list[Family]:
        raise Unavailable("no")


@contextlib.asynccontextmanager
async def serving(*sources: MetricSource, **gates: Gate) -> AsyncIterator[MetricsServer]:
    server = MetricsServer("127.0.0.1:0", sources, lambda: gates)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(server: MetricsServer, request: bytes) -> tuple[str, str]:
    """Return the status line and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    try:
        async with asyncio.timeout(30):
            answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.decode().partition("\r\n\r\n")
    return head.partition("\r\n")[0], body


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


async def test_a_scraper_gets_every_source_and_the_calls_between_plugins() -> None:
    """In a format that Prometheus' own parser reads; a source that fails is left out."""
    gate = Gate("io.example.v1.store")

    def fail() -> None:
        raise NotFound("none")

    with pytest.raises(NotFound):
        gate.guard(fail, "get")()
    async with serving(Source(), Sick(), store=gate) as server:
        status, body = await ask(server, get("/v1/metrics?x=y"))
    assert status == "HTTP/1.1 200 OK"
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert samples["box_bytes", 'a"\n'] == 7
    assert samples["box_bytes", "b"] == 8
    assert samples["windlass_plugin_calls_total", "get", "store"] == 1
    assert samples["windlass_plugin_failures_total", "get", "store"] == 1
    assert 0 < samples["windlass_plugin_seconds_total", "get", "store"] < 1
    assert samples["process_resident_memory_bytes",] > 0
    gate.close()


async def test_other_requests_are_refused() -> None:
    """With HTTP's own words."""
    async with serving(Source()) as server:
        assert (await ask(server, get("/")))[0] == "HTTP/1.1 404 Not Found"
        assert (await ask(server, get("/v1/metrics", "POST")))[0] == "HTTP/1.1 405 Method Not Allowed"
        assert await ask(server, get("/v1/metrics", "HEAD")) == ("HTTP/1.1 200 OK", "")


async def test_a_client_that_sends_too_much_or_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer, and the next one is served."""
    monkeypatch.setattr(metrics, "REQUEST_TIMEOUT", 0.2)
    async with serving(Source()) as server:
        with contextlib.suppress(ConnectionResetError):
            assert await ask(server, b"GET /" + b"x" * 20000) == ("", "")
        with contextlib.suppress(ConnectionResetError):
            assert await ask(server, b"GET") == ("", "")
        assert (await ask(server, get("/v1/metrics")))[0] == "HTTP/1.1 200 OK"


async def test_idle_peers_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, a scraper is answered; who has waited longest without a request goes."""
    monkeypatch.setattr(metrics, "MAX_CONNECTIONS", 3)
    async with serving(Source()) as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(10)]
        for _ in range(5):
            assert (await ask(server, get("/v1/metrics")))[0] == "HTTP/1.1 200 OK"
        assert len(server._connections) <= 3
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionResetError):
                assert await idle[0][0].read() == b""
        for _, writer in idle:
            writer.close()


async def test_peers_that_do_not_take_their_answer_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are as idle as the others."""
    monkeypatch.setattr(metrics, "MAX_CONNECTIONS", 3)
    large = Large()
    async with serving(large) as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.port, limit=1) for _ in range(3)]
        for _, writer in idle:
            writer.write(get("/v1/metrics"))
        async with asyncio.timeout(30):
            while large.asked < 3 or len(server._idle) < 3:  # who is measured for is not idle
                await asyncio.sleep(0.01)
        assert (await ask(server, get("/", "HEAD")))[0] == "HTTP/1.1 404 Not Found"
        for _, writer in idle:
            writer.close()


async def test_peers_that_are_being_answered_are_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """While all are, another one is refused: what is measured for them costs."""
    monkeypatch.setattr(metrics, "MAX_CONNECTIONS", 2)
    slow = Slow()
    async with serving(slow) as server:
        asked = [asyncio.create_task(ask(server, get("/v1/metrics"))) for _ in range(2)]
        async with asyncio.timeout(30):
            while slow.asked < 2:
                await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionResetError):
            assert await ask(server, get("/v1/metrics")) == ("", "")
        slow.go.set()
        assert [(await each)[0] for each in asked] == ["HTTP/1.1 200 OK"] * 2


async def test_an_address_that_is_taken_says_so() -> None:
    """The daemon does not start, and the operator knows why."""
    async with serving() as server:
        other = MetricsServer(f"127.0.0.1:{server.port}", (), dict)
        with pytest.raises(StartError, match=rf"127\.0\.0\.1:{server.port}.*in use"):
            await other.start()


@pytest.mark.parametrize(
    ("text", "parsed"), [("127.0.0.1:1338", ("127.0.0.1", 1338)), (":80", ("", 80)), ("[::1]:9", ("::1", 9))]
)
def test_addresses(text: str, parsed: tuple[str, int]) -> None:
    """As Go writes them."""
    assert parse_address(text) == parsed


@pytest.mark.parametrize("text", ["localhost", "1338", "host:", "host:x", "host:70000", "::1:80", "host:８０"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """Before anything listens."""
    with pytest.raises(InvalidArgument):
        parse_address(text)
