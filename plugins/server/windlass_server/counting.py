"""What the calls of clients have cost, by method, under the names that containerd's metrics have.

Those are the names, labels and buckets of go-grpc-prometheus. Nothing is counted before a listener
for metrics asks for it.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping

from windlass.contracts.metrics import CallCounter, Counter, Family, Kind, Sample
from windlass.contracts.rpc import Method
from windlass.typing import override

CODES = (
    *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
    *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented"),
    *("Internal", "Unavailable", "DataLoss", "Unauthenticated"),
)
"""Statuses by their numbers, as Go names them."""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds: the default ones of Prometheus' libraries."""


class Counts(Counter):
    """The calls of one method."""

    def __init__(self, path: str, kind: str) -> None:
        """Have no call yet."""
        service, _, method = path[1:].rpartition("/")
        self.labels = {"grpc_method": method, "grpc_service": service, "grpc_type": kind}
        self.started = self.received = self.sent = 0
        self.seconds = 0.0
        self.handled = [0] * len(CODES)
        self.buckets = [0] * (len(BUCKETS) + 1)

    @override
    def begin(self) -> float:
        self.started += 1
        return time.monotonic()

    @override
    def end(self, code: int, started: float) -> None:
        took = time.monotonic() - started
        self.handled[code if code < len(CODES) else 2] += 1
        self.seconds += took
        self.buckets[bisect_left(BUCKETS, took)] += 1


class CallCounts(CallCounter):
    """The calls of all methods."""

    def __init__(self, histogram: bool) -> None:
        """Report how calls' times are distributed if ``histogram``."""
        self._on = False
        self._histogram = histogram
        self._methods: dict[str, Counts] = {}

    @property
    @override
    def on(self) -> bool:
        return self._on

    @override
    def turn_on(self) -> None:
        self._on = True

    @override
    def counter(self, path: str, kind: str) -> Counts:
        return self._methods.setdefault(path, Counts(path, kind))

    @override
    async def measure(self) -> list[Family]:
        found = sorted(self._methods.items())
        all = [counts for _, counts in found]
        families = [
            _counter("started", "RPCs started on the server.", all, lambda each: each.started),
            _counter("msg_received", "RPC stream messages received on the server.", all, lambda each: each.received),
            _counter("msg_sent", "gRPC stream messages sent by the server.", all, lambda each: each.sent),
            _handled(all),
        ]
        return [*families, _handling(all)] if self._histogram else families


def kind_of(method: Method) -> str:
    """Return which sides of a method stream, as its metrics call it."""
    if method.takes_stream:
        return "bidi_stream" if method.gives_stream else "client_stream"
    return "server_stream" if method.gives_stream else "unary"


def _counter(name: str, what: str, all: list[Counts], value: Callable[[Counts], int]) -> Family:
    samples = tuple(Sample(each.labels, value(each)) for each in all)
    return Family(f"grpc_server_{name}_total", f"Total number of {what}", Kind.COUNTER, samples)


def _handled(all: list[Counts]) -> Family:
    samples = (
        Sample({"grpc_code": code, **each.labels}, count)
        for each in all
        for code, count in zip(CODES, each.handled, strict=True)
    )
    what = "Total number of RPCs completed on the server, regardless of success or failure."
    return Family("grpc_server_handled_total", what, Kind.COUNTER, tuple(samples))


def _handling(all: list[Counts]) -> Family:
    what = "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server."
    samples = tuple(sample for each in all for sample in _distribution(each))
    return Family("grpc_server_handling_seconds", what, Kind.HISTOGRAM, samples)


def _distribution(counts: Counts) -> Iterator[Sample]:
    below = 0
    for bound, count in zip((*map(_bound, BUCKETS), "+Inf"), counts.buckets, strict=True):
        below += count
        labels: Mapping[str, str] = {**counts.labels, "le": bound}
        yield Sample(labels, below, "_bucket")
    yield Sample(counts.labels, counts.seconds, "_sum")
    yield Sample(counts.labels, below, "_count")


def _bound(seconds: float) -> str:
    return f"{seconds:g}"
