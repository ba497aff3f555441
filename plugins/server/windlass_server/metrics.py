"""The metrics listener: ``GET /v1/metrics`` on a TCP address, in Prometheus' text format.

It speaks as much of HTTP/1.1 as a scraper needs: one request on each
connection, of bounded size and time. Every client that can connect reads it,
so the address should be a loopback one or behind a firewall.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from windlass.contracts.metrics import Family, Kind, MetricSource, Sample
from windlass.errors import Error, InvalidArgument, StartError
from windlass.gate import Gate
from windlass_server.accepting import Acceptor

logger = logging.getLogger(__name__)

PATH = b"/v1/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_HEAD = 8 << 10
REQUEST_TIMEOUT = 5.0
MEASURE_TIMEOUT = 8.0
"""Below the ten seconds that a scraper waits by default."""
MAX_CONNECTIONS = 16
"""Peers at a time; when there are more, the one that keeps us waiting longest has to go."""
BACKLOG = 128
NANOSECONDS = 1e9


class MetricsServer:
    """Listens, and asks every source for each scrape."""

    def __init__(self, address: str, sources: Sequence[MetricSource], gates: Callable[[], Mapping[str, Gate]]) -> None:
        """Listen on ``host:port`` once started; ``gates`` counts the calls between plugins. Raises InvalidArgument."""
        self._host, self._port = parse_address(address)
        self._sources = sources
        self._gates = gates
        self._listeners: list[socket.socket] = []
        self._acceptors: list[Acceptor] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._idle: dict[asyncio.Task[None], None] = {}
        """Those that have not said yet what they want, or do not take their answer, longest first."""

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        port: int = self._listeners[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Begin to listen. Raises StartError."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self._host or None, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            self._listeners = _listen({(family, address) for family, _, _, _, address in found})
        except OSError as error:
            address = f"{self._host}:{self._port}"
            raise StartError(f"cannot listen for metrics on {address}: {error.strerror or error}") from error
        self._acceptors = [Acceptor(each, self._connection, lambda: 0) for each in self._listeners]

    async def stop(self) -> None:
        """Stop listening, and drop every connection."""
        for acceptor in self._acceptors:
            acceptor.close()
        for connection in tuple(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connection(self) -> asyncio.BaseProtocol:
        loop = asyncio.get_running_loop()
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(MAX_HEAD, loop), self._accept, loop)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS and not self._drop_idlest():
            writer.transport.abort()
            return
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._forget)
        self._idle[connection] = None

    def _drop_idlest(self) -> bool:
        """Make room for another peer, if one is idle."""
        connection = next(iter(self._idle), None)
        if connection is None:
            return False
        connection.cancel()
        self._forget(connection)
        return True

    def _forget(self, connection: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        self._idle.pop(connection, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
            self._idle.pop(task, None)
            writer.write(await self._answer(head.partition(b"\r\n")[0]))
            self._idle[task] = None
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


def _listen(places: Iterable[tuple[int, tuple[object, ...]]]) -> list[socket.socket]:
    """Return a socket for each address of a name; raises OSError when one cannot be had."""
    found: list[socket.socket] = []
    try:
        for family, address in sorted(places, key=repr):
            listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            found.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
    except BaseException:
        for listener in found:
            listener.close()
        raise
    return found


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
    if family.kind == Kind.HISTOGRAM:
        histogram = Metric(family.name, family.help, "histogram")
        for sample in family.samples:
            histogram.add_sample(family.name + sample.suffix, dict(sample.labels), sample.value)
        return histogram
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
