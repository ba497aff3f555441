"""The current span goes with a call from thread to thread, and a recorder measures each call at a gate."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from windlass import tracing
from windlass.errors import NotFound
from windlass.gate import Gate, Handle, offload
from windlass.tracing import Facts, Span


class Measured(Span):
    """A span that remembers."""

    def __init__(self, name: str, parent: Span | None) -> None:
        super().__init__("a" * 32, "b" * 16)
        self.name = name
        self.parent = parent
        self.facts: dict[str, str | int] = {}
        self.error: str | None = None

    def note(self, **facts: str | int) -> None:
        self.facts |= facts

    def end(self, error: str = "") -> None:
        self.error = error


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Measured]]:
    """Give the spans that are recorded."""
    found: list[Measured] = []

    def begin(name: str, kind: str, headers: Mapping[str, str], facts: Facts) -> Span:
        span = Measured(name, tracing.current.get())
        span.note(**facts)
        found.append(span)
        return span

    monkeypatch.setattr(tracing, "active", False)
    monkeypatch.setattr(tracing, "recorder", None)
    tracing.record(begin)
    yield found
    tracing.record(None)


def within_a_request(call: Callable[[], object]) -> Measured:
    """Do something as an RPC's handler would."""
    span = Measured("rpc", None)

    def work() -> None:
        tracing.current.set(span)
        call()

    contextvars.copy_context().run(work)
    return span


class Part:
    """A plugin."""

    def fail(self) -> None:
        raise NotFound("it is not there")

    def who(self) -> Span | None:
        return tracing.current.get()

    async def wait(self) -> Span | None:
        await asyncio.sleep(0)
        return tracing.current.get()


def part(own_loop: bool = False) -> Handle:
    return Handle(Part(), Gate("io.example.v1.part", own_loop=own_loop))


def test_a_call_at_a_gate_is_a_span_below_the_request(spans: list[Measured]) -> None:
    """It is the current one inside the method, and ended afterwards."""
    seen: list[Span | None] = []
    rpc = within_a_request(lambda: seen.append(part().who()))  # type: ignore[operator] # a handle's method
    (span,) = spans
    assert (span.name, span.parent, span.error) == ("io.example.v1.part.who", rpc, "")
    assert seen == [span]


@pytest.mark.parametrize("own_loop", [False, True])
def test_spans_go_to_other_threads_and_loops(spans: list[Measured], own_loop: bool) -> None:
    """Pools and loops of plugins' own are below the same request."""
    handle = part(own_loop)
    seen: list[object] = []

    async def serve() -> None:
        seen.append(await offload(handle.who))  # type: ignore[arg-type] # a handle's method
        seen.append(await handle.wait())  # type: ignore[operator] # as above

    rpc = within_a_request(lambda: asyncio.run(serve()))
    handle.gate.close()
    assert seen == spans
    assert [span.parent for span in spans] == [rpc, rpc]


def test_an_error_ends_the_span_with_its_reason(spans: list[Measured]) -> None:
    """And goes on to the caller."""

    def call() -> None:
        with pytest.raises(NotFound):
            part().fail()  # type: ignore[operator] # a handle's method

    within_a_request(call)
    assert spans[0].error == "NotFound: it is not there"


def test_nothing_is_recorded_outside_of_a_request(spans: list[Measured]) -> None:
    """Nor when no recorder is there."""
    assert part().who() is None  # type: ignore[operator] # a handle's method
    tracing.record(None)
    rpc = within_a_request(lambda: part().who())  # type: ignore[operator] # a handle's method
    assert rpc.error is None and spans == []


def test_a_block_is_a_span(spans: list[Measured]) -> None:
    """With facts; the one around is the current one again afterwards."""

    def call() -> None:
        around = tracing.current.get()
        with tracing.span("step", tracing.CLIENT, size=3) as span:
            assert tracing.current.get() is span
        assert tracing.current.get() is around

    within_a_request(call)
    assert (spans[0].name, spans[0].facts, spans[0].error) == ("step", {"size": 3}, "")


def test_threads_touch_subjects_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins have loops and threads of their own; the oldest subject is forgotten once, not by each of them."""
    monkeypatch.setattr(tracing, "active", True)
    monkeypatch.setattr(tracing, "_last", {})
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(thread: int) -> None:
        tracing.current.set(Span("1" * 32, "2" * 16))
        for number in range(60_000):
            tracing.touch(f"{thread}/{number}")

    try:
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(work, thread) for thread in range(4)]:
                done.result()
    finally:
        sys.setswitchinterval(interval)
    assert len(tracing._last) <= 4096
