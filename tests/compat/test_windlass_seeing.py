"""What a daemon does, seen from outside: traces at a collector, lines in the log, `windlass plugins top`."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from compat.conftest import IMAGE
from compat.images import Archive
from compat.machines import Machine, Result, eventually

from windlass_api.containerd.services.tasks.v1.tasks_pb2 import KillRequest
from windlass_api.containerd.services.tasks.v1.tasks_pb2_grpc import TasksStub

if importlib.util.find_spec("opentelemetry") is None:
    pytest.skip("OpenTelemetry is not installed; pip install 'windlass-tracing[otlp]'", allow_module_level=True)

from tracing.collector import Collector, collecting

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, busy: Archive, collector: Collector) -> Iterator[Machine]:
    """A daemon that sends traces and logs on level debug."""
    machine = Machine("windlass", tmp_path_factory.mktemp("t"))
    machine.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    machine.configure('[debug]\nlevel = "debug"\nformat = "json"')
    try:
        machine.start()
        machine.ctr("images", "import", str(busy.path))
        yield machine
    finally:
        machine.close()


def log_lines(machine: Machine, message: str) -> list[dict[str, str]]:
    """Return the lines of a log whose message begins so."""
    lines = [json.loads(line) for line in machine.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if str(line["msg"]).startswith(message)]


def windlass(machine: Machine, *arguments: str) -> Result:
    """Run `windlass` against a daemon."""
    program = "import sys; from windlass_client.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "--address", machine.address, "-n", machine.namespace, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_run_is_followed_to_the_shim(traced: Machine, collector: Collector) -> None:
    """The RPC is above the gate of the runtime, and that above the call of the shim."""
    name = traced.new_id()
    traced.ctr("run", "--rm", IMAGE, name, "/bin/true")
    rpc, gate, shim = (
        "containerd.services.tasks.v1.Tasks/Start",
        "io.containerd.runtime.v2.task.start",
        "containerd.task.v3.Task/Start",
    )
    found = collector.wait_for(rpc, gate, shim)
    assert found[gate].parent == found[rpc].id and found[shim].parent == found[gate].id
    assert len({found[each].trace for each in (rpc, gate, shim)}) == 1
    assert found[rpc].facts["containerd.container.id"] == name
    assert found[rpc].facts["containerd.namespace"] == traced.namespace
    assert found[rpc].resource["service.name"] == "windlass"


def test_a_failed_call_has_a_line_with_trace_and_container(traced: Machine, collector: Collector) -> None:
    """The trace is the client's, by its traceparent."""
    metadata = (("containerd-namespace", traced.namespace), ("traceparent", PARENT))
    with grpc.insecure_channel(f"unix:{traced.address}") as channel, pytest.raises(grpc.RpcError):
        TasksStub(channel).Kill(KillRequest(container_id="nobody", signal=9), metadata=metadata, timeout=20)
    eventually(lambda: log_lines(traced, "/containerd.services.tasks.v1.Tasks/Kill failed"))
    (line,) = log_lines(traced, "/containerd.services.tasks.v1.Tasks/Kill failed")
    assert "NotFound" in line["msg"] and line["level"] == "debug"
    assert (line["trace_id"], line["container_id"], line["namespace"]) == (TRACE, "nobody", traced.namespace)
    eventually(lambda: [span for span in list(collector.spans) if span.trace == TRACE])


def test_each_event_of_a_task_has_a_line(traced: Machine) -> None:
    """With the container, and the trace of the request that led to it; those of one request have one trace."""
    name = traced.new_id()
    traced.ctr("run", "--rm", IMAGE, name, "/bin/true")
    topics = ("/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")

    def lines() -> dict[str, dict[str, str]]:
        found = [line for line in log_lines(traced, "event /tasks/") if line.get("container_id") == name]
        return {line["msg"].removeprefix("event "): line for line in found}

    eventually(lambda: set(topics) <= set(lines()))
    assert all(re.fullmatch(r"[0-9a-f]{32}", line["trace_id"]) for line in lines().values())
    assert lines()["/tasks/exit"]["trace_id"] == lines()["/tasks/start"]["trace_id"]
    assert lines()["/tasks/create"]["trace_id"] != lines()["/tasks/start"]["trace_id"]


class _Registry(BaseHTTPRequestHandler):
    seen: list[str]

    def do_HEAD(self) -> None:
        self.seen.append(self.headers.get("traceparent", ""))
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_a_registry_gets_the_trace(traced: Machine, collector: Collector) -> None:
    """Requests are spans, and carry traceparent."""
    _Registry.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Registry) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            done = windlass(traced, "pull", f"127.0.0.1:{server.server_address[1]}/nothing:1")
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == 1, done.stderr
    found = collector.wait_for("HTTP HEAD", "containerd.services.transfer.v1.Transfer/Transfer")
    span = found["HTTP HEAD"]
    assert span.trace == found["containerd.services.transfer.v1.Transfer/Transfer"].trace
    assert span.facts["http.response.status_code"] == "404" and "/nothing/" in span.facts["url.full"]
    assert f"00-{span.trace}-" in " ".join(_Registry.seen)


def test_a_collector_that_hangs_delays_nobody(traced: Machine, collector: Collector) -> None:
    """Containers run meanwhile, and the daemon stops in time."""
    collector.hangs.set()
    try:
        collector.asked.clear()
        name = traced.new_id()
        traced.ctr("run", "--rm", IMAGE, name, "/bin/true")
        assert collector.asked.wait(20)
        traced.ctr("run", "--rm", IMAGE, traced.new_id(), "/bin/true")
        begun = time.monotonic()
        traced.stop()
        assert time.monotonic() - begun < 15
    finally:
        collector.hangs.clear()


def test_top_shows_calls_of_plugins(traced: Machine) -> None:
    """windlassd counts them."""
    if traced.ended() is not None:
        traced.start()
    shown = subprocess.Popen(traced.command("events"), stdout=subprocess.DEVNULL)  # a client that stays
    try:
        done = windlass(traced, "plugins", "top", "--no-stream", "--interval", "0.2", "--all", "--json")
    finally:
        shown.kill()
        shown.wait()
    assert done.returncode == 0, done.stderr
    rows = {row["plugin"]: row for row in json.loads(done.stdout)}
    assert rows["io.containerd.metadata.v1.bolt"]["breaker"] == "closed"
    assert windlass(traced, "plugins", "top", "--no-stream", "--interval", "0.2").stdout.startswith("PLUGIN")


def test_top_of_containerd_says_that_it_does_not_count(containerd: Machine) -> None:
    """One line, and exit code 1."""
    done = windlass(containerd, "plugins", "top", "--no-stream")
    assert done.returncode == 1
    assert done.stderr.startswith("windlass: this daemon does not count the calls between its plugins")
    assert done.stderr.count("\n") == 1
