"""The calls of clients as containerd's metrics show them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from server.grpc_echo import LIMIT, Echo

from windlass.contracts.rpc import Method
from windlass_server.counting import BUCKETS, CallCounts, kind_of
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.server import Server
from windlass_server.metrics import exposition


def same(data: bytes) -> bytes:
    return data


async def counted(path: Path, counting: CallCounts) -> str:
    """Return the metrics of a server after a few calls of each kind."""
    server = Server(Limits(LIMIT, LIMIT))
    server.counting = counting if counting.on else None
    server.add("t.Echo", Echo().methods())
    listener = await asyncio.get_running_loop().create_unix_server(server.connection, str(path))
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        for _ in range(3):
            await channel.unary_unary("/t.Echo/echo", same, same)(b"x")
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/t.Echo/fail", same, same)(b"x")
        chat = channel.stream_stream("/t.Echo/chat", same, same)
        assert [answer async for answer in chat(_words())] == [b"one", b"two"]
    listener.close()
    await server.stop(0.2)
    return exposition(await counting.measure()).decode()


async def _words() -> AsyncIterator[bytes]:
    for word in (b"one", b"two"):
        yield word


def value(text: str, name: str, **labels: str) -> float:
    """Return a value by its name and some of its labels."""
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
        if found and found[1] == name and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', found[2])).items():
            return float(found[3])
    raise AssertionError(f"{name} {labels} is not in\n{text}")


async def test_calls_are_counted_as_containerd_counts_them(tmp_path: Path) -> None:
    """Names and labels are those of go-grpc-prometheus."""
    counting = CallCounts(histogram=True)
    counting.turn_on()
    text = await counted(tmp_path / "s", counting)
    echo = {"grpc_service": "t.Echo", "grpc_method": "echo", "grpc_type": "unary"}
    chat = {"grpc_method": "chat", "grpc_type": "bidi_stream"}
    assert value(text, "grpc_server_started_total", **echo) == 3
    assert value(text, "grpc_server_handled_total", grpc_code="OK", **echo) == 3
    assert value(text, "grpc_server_handled_total", grpc_code="NotFound", **echo) == 0
    assert value(text, "grpc_server_handled_total", grpc_code="OK", grpc_method="fail") == 0
    assert value(text, "grpc_server_msg_received_total", **chat) == 2
    assert value(text, "grpc_server_msg_sent_total", **chat) == 2
    assert value(text, "grpc_server_handling_seconds_count", **echo) == 3
    assert value(text, "grpc_server_handling_seconds_bucket", le="+Inf", **echo) == 3
    assert value(text, "grpc_server_handling_seconds_sum", **echo) > 0
    assert "# TYPE grpc_server_handling_seconds histogram" in text
    bounds = re.findall(r'handling_seconds_bucket\{.*grpc_method="echo".*le="([^"]+)"', text)
    assert bounds == ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"]


async def test_the_histogram_is_there_when_it_is_asked_for(tmp_path: Path) -> None:
    """Its values are many, so the default is without."""
    counting = CallCounts(histogram=False)
    counting.turn_on()
    text = await counted(tmp_path / "s", counting)
    assert "grpc_server_started_total" in text and "handling_seconds" not in text


async def test_nothing_is_counted_if_nobody_reads_it(tmp_path: Path) -> None:
    """A daemon without a listener for metrics does not count."""
    assert 'grpc_method="echo"' not in await counted(tmp_path / "s", CallCounts(histogram=True))


def test_a_time_is_in_the_bucket_of_its_bound() -> None:
    """As in Prometheus, a bound belongs to the bucket below it."""
    counts = CallCounts(histogram=True).counter("/t.Echo/echo", "unary")
    assert len(counts.buckets) == len(BUCKETS) + 1
    counts.end(0, counts.begin() - 7)
    assert counts.buckets[-2] == 1
    counts.end(99, counts.begin())
    assert counts.handled[2] == 1, "a status that gRPC does not have is Unknown"


@pytest.mark.parametrize(
    ("takes", "gives", "kind"),
    [
        (False, False, "unary"),
        (True, False, "client_stream"),
        (False, True, "server_stream"),
        (True, True, "bidi_stream"),
    ],
)
def test_kinds(takes: bool, gives: bool, kind: str) -> None:
    """A method is of one of four kinds."""

    async def handle(request: object, call: object) -> object:
        return request

    assert kind_of(Method("/a.B/C", handle, bytes, bytes, takes, gives)) == kind
