"""The metrics listener: ``GET /v1/metrics`` on a TCP address, in Prometheus' text format.

It speaks as much of HTTP/1.1 as a scraper needs: one request on each
connection, of bounded size and time. What it tells is for whoever can connect,
so the address should be a loopback one or behind a firewall.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from windlass.errors import Error, InvalidArgument, StartError
from windlass.gate import Gate
from windlass.metrics import Family, Kind, MetricSource, Sample

logger = logging.getLogger(__name__)

PATH = b"/v1/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_HEAD = 8 << 10
REQUEST_TIMEOUT = 5.0
MEASURE_TIMEOUT = 8.0
"""Below the ten seconds that a scraper waits when nobody has told it otherwise."""
MAX_CONNECTIONS = 16
NANOSECONDS = 1e9


class MetricsServer:
    """Listens, and asks every source when somebody asks it."""

    def __init__(self, address: str, sources: Sequence[MetricSource], gates: Callable[[], Mapping[str, Gate]]) -> None:
        """Listen on ``host:port`` once started; ``gates`` tells the calls between plugins. Raises InvalidArgument."""
        self._host, self._port = parse_address(address)
        self._sources = sources
        self._gates = gates
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Begin to listen. Raises StartError."""
        try:
            self._server = await asyncio.start_server(self._accept, self._host or None, self._port, limit=MAX_HEAD)
        except OSError as error:
            address = f"{self._host}:{self._port}"
            raise StartError(f"cannot listen for metrics on {address}: {error.strerror or error}") from error

    async def stop(self) -> None:
        """Stop listening, and drop whoever is connected."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await self._answer(head.partition(b"\r\n")[0]))
            async with asyncio.timeout(REQUEST_TIMEOUT):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            logger.debug("a client of the metrics listener is dropped: %s", error)
        finally:
            writer.transport.abort()

    async def _answer(self, line: bytes) -> bytes:
        method, _, rest = line.partition(b" ")
        if rest.partition(b" ")[0].partition(b"?")[0] != PATH:
            return _response("404 Not Found", b"metrics are at /v1/metrics\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"only GET and HEAD\n", "Allow: GET, HEAD\r\n")
        body = exposition(await self.measure())
        return _response("200 OK", body if method == b"GET" else b"", length=len(body))

    async def measure(self) -> list[Family]:
        """Ask every source; one that fails or takes too long is left out."""
        found = await asyncio.gather(*(_ask(source) for source in self._sources))
        return [*gate_families(self._gates()), *(family for families in found for family in families)]


async def _ask(source: MetricSource) -> list[Family]:
    try:
        async with asyncio.timeout(MEASURE_TIMEOUT):
            return await source.measure()
    except (Error, TimeoutError) as error:
        logger.warning("%r cannot be measured: %s", source, str(error) or f"no answer within {MEASURE_TIMEOUT:g} s")
        return []


def parse_address(address: str) -> tuple[str, int]:
    """Read ``host:port``, ``[v6]:port`` or ``:port``. Raises InvalidArgument."""
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 0xFFFF or (":" in host and "]" not in host):
        raise InvalidArgument(f"metrics address {address!r} is not a host and a port, such as 127.0.0.1:1338")
    return host.strip("[]"), int(port)


def gate_families(gates: Mapping[str, Gate]) -> list[Family]:
    """Return what the calls from plugin to plugin have cost."""
    accounts = [
        ({"plugin": uri, "method": account.method}, account)
        for uri, gate in sorted(gates.items())
        for account in tuple(gate.accounts.values())
    ]

    def family(name: str, help: str, kind: Kind, values: Iterable[float]) -> Family:
        samples = (Sample(labels, value) for (labels, _), value in zip(accounts, values, strict=True))
        return Family(f"windlass_plugin_{name}", help, kind, tuple(samples))

    counted = [account for _, account in accounts]
    return [
        family("calls_total", "Calls of a plugin's method.", Kind.COUNTER, (each.calls for each in counted)),
        family("failures_total", "Calls that raised.", Kind.COUNTER, (each.failures for each in counted)),
        family("seconds_total", "Time spent in calls.", Kind.COUNTER, (each.total / NANOSECONDS for each in counted)),
        family("running", "Calls under way.", Kind.GAUGE, (each.running for each in counted)),
        family(
            "longest_seconds", "The longest call so far.", Kind.GAUGE, (each.longest / NANOSECONDS for each in counted)
        ),
    ]


def exposition(families: Iterable[Family]) -> bytes:
    """Return families, and what Linux says of the daemon's process, as text."""
    return generate_latest(_Once([*map(_metric, families), *ProcessCollector(registry=None).collect()]))


def _metric(family: Family) -> Metric:
    keys = list(family.samples[0].labels) if family.samples else []
    kind = CounterMetricFamily if family.kind == Kind.COUNTER else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=keys)
    for sample in family.samples:
        metric.add_metric([sample.labels[key] for key in keys], sample.value)
    return metric


class _Once:
    """What `generate_latest` takes: a registry that has been collected from."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _response(status: str, body: bytes, headers: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {size}\r\n{headers}"
    return f"{head}Connection: close\r\n\r\n".encode() + body
