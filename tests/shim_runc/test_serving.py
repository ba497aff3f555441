"""A shim that serves without any OCI runtime: bad frames, bad requests, events, and its end."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim_runc.harness import Client, Shim, shims

from windlass import errors
from windlass_api.ttrpc import framing as ttrpc
from windlass_shim_runc import messages, publisher
from windlass_shim_runc.kept import default_root
from windlass_shim_runc.loop import Loop
from windlass_shim_runc.messages import Message
from windlass_shim_runc.server import Server

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="a shim needs root on Linux to become one"
)


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Shim]:
    """A shim without container."""
    with shims(tmp_path) as make:
        yield make()


def raw(client: Client, stream: int, body: bytes, type: int = ttrpc.REQUEST) -> ttrpc.Response:
    """Send a frame as it is and return the answer."""
    client.socket.sendall(ttrpc.pack_frame(stream, type, 0, body))
    return client.receive(stream)


def test_bad_frames_are_answered_and_the_connection_lives_on(shim: Shim) -> None:
    """Even, reused and unknown streams, garbage, an oversized body: each its status, then an ordinary call."""
    good = ttrpc.encode_request(ttrpc.Request("containerd.task.v3.Task", "Connect"))
    bad_payload = ttrpc.encode_request(ttrpc.Request("containerd.task.v3.Task", "Connect", b"\x0a\x7f"))
    client = shim.client

    assert raw(client, 2, good).code == errors.Code.INVALID_ARGUMENT
    assert raw(client, 3, good).code == 0
    assert raw(client, 3, good).code == errors.Code.INVALID_ARGUMENT
    assert raw(client, 5, b"", ttrpc.DATA).code == errors.Code.INVALID_ARGUMENT
    assert raw(client, 7, b"\xff\xff").code == errors.Code.INVALID_ARGUMENT
    assert raw(client, 9, bad_payload).code == errors.Code.INTERNAL
    client.socket.sendall(ttrpc.HEADER.pack(5 << 20, 11, ttrpc.REQUEST, 0) + bytes(5 << 20))
    assert client.receive(11).code == errors.Code.RESOURCE_EXHAUSTED
    client.socket.sendall(ttrpc.pack_frame(13, 99, 0, b"ignored"))
    assert raw(client, 15, good).code == 0


def test_a_truncated_frame_ends_only_its_connection(shim: Shim) -> None:
    """A client that leaves in the middle of a frame disturbs nobody."""
    other = Client(str(shim.socket_path))
    other.socket.sendall(ttrpc.HEADER.pack(100, 1, 1, 0) + b"half")
    other.close()
    assert shim.call(messages.ConnectResponse, "Connect", messages.TaskRequest(id="x")).shim_pid == shim.child.pid


@pytest.mark.parametrize("id", ["", "../up", "a/b", ".hidden", "x" * 77])
def test_identifiers_that_could_be_paths_are_refused(shim: Shim, id: str) -> None:
    """Create checks what becomes part of file names."""
    with pytest.raises(errors.InvalidArgument, match="container"):
        shim.call(Message, "Create", messages.CreateTaskRequest(id=id, bundle=str(shim.bundle)))


def test_a_failed_create_leaves_nothing_open(shim: Shim) -> None:
    """Missing bundle, wrong scheme, a stdin that is no FIFO, options of another runtime."""
    shim.call(messages.ConnectResponse, "Connect", messages.TaskRequest(id="x"))
    before = len(os.listdir(f"/proc/{shim.child.pid}/fd"))
    plain = shim.state / "plain"
    plain.touch()
    bundle = str(shim.bundle)
    for request, words in (
        (messages.CreateTaskRequest(id="a", bundle="relative"), "bundle"),
        (messages.CreateTaskRequest(id="a", bundle=bundle, stdout="http://x"), "scheme http"),
        (messages.CreateTaskRequest(id="a", bundle=bundle, stdin=str(plain)), "is not a FIFO"),
        (messages.CreateTaskRequest(id="a", bundle=bundle, stdout="/dev/null"), "neither a FIFO"),
        (messages.CreateTaskRequest(id="a", bundle=bundle, checkpoint="/x"), "checkpoint"),
        (
            messages.CreateTaskRequest(id="a", bundle=bundle, options=messages.AnyMessage(type_url="x.Y")),
            "options of type x.Y",
        ),
        (messages.CreateTaskRequest(id="a", bundle=bundle, stdout="/a\0b"), "field stdout has a zero byte"),
        (messages.CreateTaskRequest(id="a", bundle=bundle, stdout="binary:///bin/cat?a=%00"), "zero byte"),
        (
            messages.CreateTaskRequest(id="a", bundle=bundle, stdout="binary:///no/logger"),
            "logger /no/logger cannot be",
        ),
    ):
        with pytest.raises(errors.Error, match=words):
            shim.call(Message, "Create", request)
    assert len(os.listdir(f"/proc/{shim.child.pid}/fd")) == before


class Defective:
    """A service with a defect."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    async def fail(self, _: Message) -> None:
        raise KeyError("lost")

    async def stop(self, _: Message) -> None:
        self._loop.stop()


def test_a_defect_is_told_to_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who would wait for ever otherwise; and to the log, and the next call is served."""
    logged: list[object] = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: logged.append(error[1]))
    loop, listener = Loop(), socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    methods = {name: (Message, name.lower()) for name in ("Fail", "Stop")}
    loop.spawn(Server(loop, listener, {"containerd.task.v3.Task": (methods, Defective(loop))}).run())
    thread = threading.Thread(target=loop.run)
    thread.start()
    client = Client(str(tmp_path / "s"))
    with pytest.raises(errors.Error, match="unexpected KeyError: 'lost'"):
        client.call(Message, "Fail", Message())
    client.call(Message, "Stop", Message())
    thread.join()
    client.close()
    listener.close()
    loop.close()
    assert [type(error) for error in logged] == [KeyError]


def test_shutdown_ends_an_empty_shim(shim: Shim) -> None:
    """The answer still arrives."""
    assert shim.shutdown()


def test_a_hanging_runtime_does_not_stop_the_shim(shim: Shim) -> None:
    """While one create hangs in the OCI runtime, other calls are answered."""
    script = shim.state / "slow"
    script.write_text("#!/bin/sh\nsleep 1\nexit 1\n")
    script.chmod(0o755)
    options = messages.pack(messages.Options(binary_name=str(script)))
    other = Client(str(shim.socket_path))
    stream = other.send("Create", messages.CreateTaskRequest(id="a", bundle=str(shim.bundle), options=options))

    started = time.monotonic()
    shim.call(messages.ConnectResponse, "Connect", messages.TaskRequest(id="a"))

    assert time.monotonic() - started < 0.5
    assert "exited with status 1" in other.receive(stream).message
    other.close()


NOTING = """#!/bin/sh
{{ grep SigIgn /proc/self/status; pwd; readlink /proc/self/fd/2; }} >{seen}.new
mv {seen}.new {seen}
exit 1
"""


@pytest.mark.parametrize("kind", ["runtime", "logger"])
def test_programs_begin_with_nothing_of_the_shims_own(shim: Shim, kind: str) -> None:
    """No signal is ignored, glibc's own 32 and 33 included; the bundle is where they work; no output is the daemon's.

    Ignored signals stay ignored across exec, for an OCI runtime down to the container's own processes.
    """
    program, seen = shim.state / "program", shim.state / "seen"
    program.write_text(NOTING.format(seen=seen))
    program.chmod(0o755)
    options = messages.Options(binary_name=str(program) if kind == "runtime" else "/bin/false")
    request = messages.CreateTaskRequest(
        id=shim.id,
        bundle=str(shim.bundle),
        stdout=f"binary://{program}" if kind == "logger" else "",
        options=messages.pack(options),
    )
    with pytest.raises(errors.Error, match="OCI runtime create failed"):
        shim.call(Message, "Create", request)
    ignored, directory, output = seen.read_text().splitlines()
    assert int(ignored.split()[1], 16) == 0
    assert directory == str(shim.bundle)
    assert output == "/dev/null"


def test_a_full_event_queue_drops_anything_but_exits() -> None:
    """2048 events wait; what goes first is what nobody's state depends on."""
    loop = Loop()
    queue = publisher.Publisher(loop, "/nowhere", "ns")
    for _ in range(1500):
        queue.publish("/tasks/exec-added", messages.TaskExecAdded(container_id="c", exec_id="e"))
        queue.publish("/tasks/exit", messages.TaskExit(container_id="c", id="e"))

    topics = [topic for topic, _ in queue._queue]
    assert len(topics) == publisher.MAX_QUEUE
    assert topics.count("/tasks/exit") == 1500
    loop.close()


@pytest.mark.parametrize(
    ("bundle", "root"),
    [
        ("/run/windlass/io.containerd.runtime.v2.task/ns/id", "/run/windlass/runc"),
        ("/run/containerd/io.containerd.runtime.v2.task/ns/id", "/run/containerd/runc"),
        ("/anywhere/else", "/run/containerd/runc"),
    ],
)
def test_the_runtimes_root_is_beside_the_bundles(bundle: str, root: str) -> None:
    """Two daemons with states of their own never share one."""
    assert default_root(bundle) == root
