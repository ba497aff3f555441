"""One line in the log for each failed RPC and each event of a task, with the client's trace and the container."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from windlass import tracing
from windlass.contracts.values import Payload
from windlass.process import logs
from windlass_api.containerd.events.task_pb2 import TaskExit
from windlass_events.exchange import LocalExchange
from windlass_server.subjects import subject

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the log and the tracing of this process as they were."""
    root = logging.getLogger()
    handlers, level, raises = list(root.handlers), root.level, logging.raiseExceptions
    monkeypatch.setattr(tracing, "active", False)
    token = tracing.current.set(None)
    yield
    tracing.current.reset(token)
    root.handlers[:], logging.raiseExceptions = handlers, raises
    root.setLevel(level)


def lines_of(monkeypatch: pytest.MonkeyPatch, level: str, trace_ids: bool = False) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    logs.set_up(level, "json", ("tests",), trace_ids)
    return written


def test_a_clients_trace_is_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ID that a client sent as traceparent is a field of each line about its request."""
    written = lines_of(monkeypatch, "debug")
    tracing.current.set(tracing.begin("a.B/C", tracing.SERVER, PARENT, {}))
    logging.getLogger("windlass.test").debug("hello")
    assert json.loads(written.getvalue())["trace_id"] == TRACE


@pytest.mark.parametrize(
    "header", ["", "nonsense", f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}\n-x-01"]
)
def test_a_request_without_a_valid_trace_has_one_of_its_own(header: str) -> None:
    """Lines of one request belong together, whatever its client sends."""
    span = tracing.begin("a.B/C", tracing.SERVER, {"traceparent": header} if header else {}, {})
    assert len(bytes.fromhex(span.trace)) == 16 and span.trace not in (TRACE, "0" * 32)
    assert span.headers()["traceparent"].split("-")[1] == span.trace


def test_traces_are_read_on_level_debug_or_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`debug.log_trace_id` adds the ID on other levels; without it they cost nothing."""
    found = []
    for level, trace_ids in (("info", False), ("debug", False), ("info", True)):
        lines_of(monkeypatch, level, trace_ids)
        found.append(tracing.active)
    assert found == [False, True, True]


def test_what_a_request_is_about() -> None:
    """Requests name containers and processes in a few ways."""
    task = SimpleNamespace(container_id="box", exec_id="shell")
    made = SimpleNamespace(container=SimpleNamespace(id="box"))
    got = SimpleNamespace(id="box")
    pod = SimpleNamespace(pod_sandbox_id="p1")
    assert subject("/containerd.services.tasks.v1.Tasks/Kill", task) == {"container_id": "box", "exec_id": "shell"}
    assert subject("/containerd.services.containers.v1.Containers/Create", made) == {"container_id": "box"}
    assert subject("/containerd.services.containers.v1.Containers/Get", got) == {"container_id": "box"}
    assert subject("/containerd.services.leases.v1.Leases/Delete", got) == {}
    assert subject("/runtime.v1.RuntimeService/StopPodSandbox", pod) == {"pod_sandbox_id": "p1"}


def test_an_event_has_the_trace_of_the_request_that_led_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shim reports an exit by itself; the line has the trace of the last request about the container."""
    written = lines_of(monkeypatch, "debug")
    tracing.current.set(tracing.begin("containerd.services.tasks.v1.Tasks/Kill", tracing.SERVER, PARENT, {}))
    tracing.touch("default/box")
    tracing.current.set(None)
    event = TaskExit(container_id="box", id="box", pid=7, exit_status=137)
    LocalExchange().publish("default", "/tasks/exit", Payload(event.DESCRIPTOR.full_name, event.SerializeToString()))
    line = json.loads(written.getvalue())
    assert (line["msg"], line["namespace"], line["container_id"]) == ("event /tasks/exit", "default", "box")
    assert line["trace_id"] == TRACE


def test_traces_of_many_containers_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last few thousand are remembered."""
    monkeypatch.setattr(tracing, "active", True)
    monkeypatch.setattr(tracing, "_last", {})
    tracing.current.set(tracing.begin("a.B/C", tracing.SERVER, {}, {}))
    for number in range(5000):
        tracing.touch(f"default/{number}")
    assert tracing.last("default/4999") is not None
    assert tracing.last("default/1") is None
