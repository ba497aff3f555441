"""CRI's exec, attach and port-forward, used by clients that are not ours: websocket-client and Kubernetes' package."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
import websocket
from compat.cri_daemon import CriDaemon, require_cri_tools, running_cri
from compat.scratch_daemon import wait_until

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_api.runtime.v1 import api_pb2_grpc
from windlass_linux import netns

V4 = "v4.channel.k8s.io"
STDOUT, STDERR, STATUS, RESIZE = 1, 2, 3, 4
LIMIT = 16 << 20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriDaemon]:
    require_cri_tools()
    with running_cri(tmp_path_factory.mktemp("cri")) as found:
        yield found


@pytest.fixture(scope="module")
def container(daemon: CriDaemon) -> Iterator[str]:
    """A container that sleeps."""
    with daemon.pod() as pod:
        yield daemon.run_container(pod)


def exec_url(daemon: CriDaemon, container: str, *command: str, **wanted: bool) -> str:
    streams = {"stdout": True, "stderr": not wanted.get("tty"), **wanted}
    request = cri.ExecRequest(container_id=container, cmd=command, **streams)
    return daemon.runtime.Exec(request, timeout=20).url


# Any: the library's options of a connection.
def connect(daemon: CriDaemon, url: str, **options: Any) -> websocket.WebSocket:
    """Open a WebSocket to a URL of the streaming server, from the host's network."""
    options = {"subprotocols": [V4], "timeout": 60, **options}
    return netns.within(daemon.host, lambda: websocket.create_connection(url.replace("http", "ws", 1), **options))


def shut(client: websocket.WebSocket) -> None:
    """Close the socket; the library's `close` leaves it open once the server has closed."""
    assert client.sock is not None
    client.sock.close()


def messages(client: websocket.WebSocket) -> dict[int, bytes]:
    """Return what each channel got until the server closed."""
    found: dict[int, bytearray] = {}
    try:
        while True:
            code, data = client.recv_data()
            if code == websocket.ABNF.OPCODE_CLOSE:
                return {channel: bytes(data) for channel, data in found.items()}
            found.setdefault(data[0], bytearray()).extend(data[1:])
    finally:
        shut(client)


def run(daemon: CriDaemon, container: str, script: str, **wanted: bool) -> dict[int, bytes]:
    return messages(connect(daemon, exec_url(daemon, container, "/bin/sh", "-c", script, **wanted)))


def processes(daemon: CriDaemon, container: str, word: str) -> bool:
    """Return whether a process of the container has a word in its command line."""
    return word in daemon.exec(container, "ps")


def raw(daemon: CriDaemon, url: str, method: str = "GET", headers: str = "") -> bytes:
    """Return what a plain HTTP request is answered."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    address = (parts.hostname, parts.port)
    with netns.within(daemon.host, lambda: socket.create_connection(address, timeout=20)) as peer:
        peer.sendall(f"{method} {parts.path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        answer = bytearray()
        while data := peer.recv(65536):
            answer += data
        return bytes(answer)


def test_exec_has_streams_and_a_status_as_containerd_writes_it(daemon: CriDaemon, container: str) -> None:
    found = run(daemon, container, "echo out; echo err >&2; exit 3")
    assert found[STDOUT] == b"out\n" and found[STDERR] == b"err\n"
    message = "error executing command [/bin/sh -c echo out; echo err >&2; exit 3], exit code 3"
    assert json.loads(found[STATUS]) == {
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {message}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }
    assert json.loads(run(daemon, container, "true")[STATUS]) == {"status": "Success"}


def test_an_exec_of_a_missing_program_says_so(daemon: CriDaemon, container: str) -> None:
    status = json.loads(messages(connect(daemon, exec_url(daemon, container, "/nope")))[STATUS])
    assert status["reason"] == "InternalError" and status["code"] == 500 and "/nope" in status["message"]
    with pytest.raises(grpc.RpcError) as failed:
        daemon.exec(container, "/nope")
    assert failed.value.code() == grpc.StatusCode.UNKNOWN and "/nope" in str(failed.value.details())


def test_a_terminal_has_the_size_that_its_client_has(daemon: CriDaemon, container: str) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while true; do sleep 0.1; done"
    client = connect(daemon, exec_url(daemon, container, "/bin/sh", "-c", script, stdin=True, tty=True))
    while b"ready" not in client.recv():
        pass
    client.send_binary(bytes([RESIZE]) + b'{"Width":0,"Height":0}')
    client.send_binary(bytes([RESIZE]) + b'{"Width":77,"Height":33}')
    assert b"33 77" in messages(client)[STDOUT]


def test_a_timeout_ends_the_process(daemon: CriDaemon, container: str) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        request = cri.ExecSyncRequest(container_id=container, cmd=["/bin/sleep", "4321"], timeout=1)
        daemon.runtime.ExecSync(request, timeout=40)
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert failed.value.details() == "failed to exec in container: timeout 1s exceeded: context deadline exceeded"
    assert not processes(daemon, container, "4321")


def test_exec_sync_has_a_signal_s_status_and_refuses_no_command(daemon: CriDaemon, container: str) -> None:
    request = cri.ExecSyncRequest(container_id=container, cmd=["/bin/sh", "-c", "kill -9 $$"])
    assert daemon.runtime.ExecSync(request, timeout=40).exit_code == 137
    with pytest.raises(grpc.RpcError) as failed:
        daemon.runtime.ExecSync(cri.ExecSyncRequest(container_id=container), timeout=40)
    assert failed.value.code() == grpc.StatusCode.UNKNOWN and "args must not be empty" in str(failed.value.details())


def test_exec_sync_is_bounded(daemon: CriDaemon, container: str) -> None:
    """More than 16 MiB is dropped, and what is left does not fit into an answer: containerd's clients see the same."""
    with grpc.insecure_channel(f"unix:{daemon.address}", [("grpc.max_receive_message_length", 64 << 20)]) as channel:
        stub = api_pb2_grpc.RuntimeServiceStub(channel)

        def much(size: int) -> cri.ExecSyncResponse:
            script = f"head -c {size} /dev/zero; echo end >&2"
            return stub.ExecSync(cri.ExecSyncRequest(container_id=container, cmd=["/bin/sh", "-c", script]), timeout=60)

        done = much(LIMIT - 4096)
        assert len(done.stdout) == LIMIT - 4096 and done.stderr == b"end\n"
        with pytest.raises(grpc.RpcError) as failed:
            much(4 * LIMIT)
        assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_much_passes(daemon: CriDaemon, container: str) -> None:
    """256 MiB; meanwhile others are answered."""
    client = connect(daemon, exec_url(daemon, container, "/bin/sh", "-c", f"head -c {256 << 20} /dev/zero"))
    size, slowest = 0, 0.0
    while True:
        code, data = client.recv_data()
        if code == websocket.ABNF.OPCODE_CLOSE:
            break
        if data[0] == STDOUT:
            size += len(data) - 1
        if size // (64 << 20) != (size - len(data)) // (64 << 20):
            start = time.monotonic()
            daemon.container_status(container)
            slowest = max(slowest, time.monotonic() - start)
    shut(client)
    assert size == 256 << 20 and slowest < 5


def test_the_process_ends_with_its_client(daemon: CriDaemon, container: str) -> None:
    client = connect(daemon, exec_url(daemon, container, "/bin/sleep", "5432", stdin=True))
    assert wait_until(lambda: processes(daemon, container, "5432"))
    shut(client)
    assert wait_until(lambda: not processes(daemon, container, "5432"))


def test_a_url_is_good_once_and_answers_as_containerd(daemon: CriDaemon, container: str) -> None:
    url = exec_url(daemon, container, "/bin/true")
    assert raw(daemon, url, "PUT").startswith(b"HTTP/1.1 405 ") and b"Allow: GET, POST" in raw(daemon, url, "PUT")
    first = raw(daemon, url)
    assert first.startswith(b"HTTP/1.1 400 ")
    assert b"unable to upgrade: header X-Stream-Protocol-Version does not exist in request with 0 headers" in first
    assert raw(daemon, url).startswith(b"HTTP/1.1 404 ")


def test_an_unknown_protocol_is_refused_with_those_that_are_served(daemon: CriDaemon, container: str) -> None:
    headers = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v9\r\n"
    answer = raw(daemon, exec_url(daemon, container, "/bin/true"), "POST", headers)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.count(b"X-Accepted-Stream-Protocol-Versions: ") == 4


@pytest.mark.parametrize("wanted", [{"stdout": False, "stderr": False}, {"tty": True, "stderr": True}])
def test_exec_without_streams_or_with_a_terminal_and_errors(
    daemon: CriDaemon, container: str, wanted: dict[str, bool]
) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        exec_url(daemon, container, "/bin/true", **wanted)
    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_attach_shows_what_comes_and_feeds_the_process(daemon: CriDaemon) -> None:
    with daemon.pod() as pod:
        config = daemon.container_config(["/bin/cat"], stdin=True, stdin_once=True)
        id = daemon.run_container(pod, config)
        request = cri.AttachRequest(container_id=id, stdin=True, stdout=True, stderr=True)
        client = connect(daemon, daemon.runtime.Attach(request, timeout=20).url)
        client.send_binary(b"\0hello\n")
        while b"hello" not in client.recv():
            pass
        shut(client)  # the process's input ends with its only client
        assert wait_until(lambda: daemon.container_status(id).state == cri.CONTAINER_EXITED)


def test_a_client_that_detaches_leaves_the_process_alone(daemon: CriDaemon) -> None:
    with daemon.pod() as pod:
        id = daemon.run_container(pod, daemon.container_config(["/bin/cat"], stdin=True))
        for text in (b"one\n", b"two\n"):
            request = cri.AttachRequest(container_id=id, stdin=True, stdout=True, stderr=True)
            client = connect(daemon, daemon.runtime.Attach(request, timeout=20).url)
            client.send_binary(b"\0" + text)
            while text not in client.recv():
                pass
            shut(client)
        assert daemon.container_status(id).state == cri.CONTAINER_RUNNING


def test_a_port_of_a_pod(daemon: CriDaemon) -> None:
    serve = ["/bin/busybox", "nc", "-l", "-p", "8080", "-e", "/bin/cat"]
    with daemon.pod() as pod:
        daemon.run_container(pod, daemon.container_config(serve))
        request = cri.PortForwardRequest(pod_sandbox_id=pod, port=[8080])
        client = connect(daemon, daemon.runtime.PortForward(request, timeout=20).url)
        greetings = {client.recv() for _ in range(2)}
        assert greetings == {b"\0" + (8080).to_bytes(2, "little"), b"\x01" + (8080).to_bytes(2, "little")}
        client.send_binary(b"\0ping")
        assert client.recv() == b"\0ping"
        shut(client)


def test_kubernetes_own_client(daemon: CriDaemon, container: str) -> None:
    ws_client = pytest.importorskip("kubernetes.stream.ws_client", reason="pip install kubernetes")
    client = pytest.importorskip("kubernetes.client")
    url = exec_url(daemon, container, "/bin/sh", "-c", "read line; echo got $line; exit 4", stdin=True)
    url = url.replace("http", "ws", 1)
    opened = netns.within(
        daemon.host, lambda: ws_client.WSClient(client.Configuration(), url, {}, capture_all=True, binary=False)
    )
    opened.write_stdin("this\n")
    try:
        opened.run_forever(timeout=30)
        assert opened.read_stdout() == "got this\n" and opened.returncode == 4
    finally:
        opened.sock.shutdown()


def test_by_tls_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    more = '[plugins."io.containerd.grpc.v1.cri"]\nenable_tls_streaming = true\n'
    with running_cri(tmp_path, more=more) as daemon, daemon.pod() as pod:
        url = exec_url(daemon, daemon.run_container(pod), "/bin/echo", "safe")
        assert url.startswith("https://")
        found = messages(connect(daemon, url, sslopt={"cert_reqs": ssl.CERT_NONE}))
        assert found[STDOUT] == b"safe\n"
