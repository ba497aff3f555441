"""Clients execute, attach and forward ports by SPDY and by WebSocket; one URL is good for one client."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
import websocket
from streaming.conftest import Machine, SpdyClient

from windlass.errors import ResourceExhausted
from windlass_streaming.backend import Attach, Exec, PortForward, Size, Wanted
from windlass_streaming.server import Listen, StreamingServer
from windlass_streaming.tokens import LIFETIME, MOST, Tokens

R = TypeVar("R")

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
ALL = Wanted(stdin=True, stdout=True, stderr=True, tty=False)
OUT = Wanted(stdin=False, stdout=True, stderr=True, tty=False)
TTY = Wanted(stdin=True, stdout=True, stderr=False, tty=True)


def sh(script: str, wanted: Wanted = OUT) -> Exec:
    return Exec("c1", ("/bin/sh", "-c", script), wanted)


def spdy_exec(url: str, wanted: Wanted, stdin: bytes = b"", protocol: str = V4) -> dict[str, bytes]:
    """What each stream got, by its type."""
    client = SpdyClient(url, protocol)
    assert client.head.startswith(b"HTTP/1.1 101 ")
    kinds = ["error", *(kind for kind in ("stdin", "stdout", "stderr") if getattr(wanted, kind))]
    numbers = {kind: client.open({"streamType": kind}) for kind in kinds}
    if wanted.stdin:
        sending = threading.Thread(target=client.send, args=(numbers["stdin"], stdin, True))
        sending.start()
    found = client.until_end()
    if wanted.stdin:
        sending.join(20)
    return {kind: found.get(number, b"") for kind, number in numbers.items()}


def ws(url: str, *protocols: str) -> websocket.WebSocket:
    return websocket.create_connection(url.replace("http", "ws", 1), subprotocols=list(protocols), timeout=20)


@contextlib.contextmanager
def using(client: websocket.WebSocket) -> Iterator[websocket.WebSocket]:
    """Close the socket at the end; the library's own `close` does not, once the server has."""
    try:
        yield client
    finally:
        client.shutdown()  # type: ignore[no-untyped-call] # the library's


def messages(client: websocket.WebSocket) -> dict[int, bytes]:
    """What each channel got until the server closes."""
    found: dict[int, bytes] = {}
    try:
        while True:
            code, data = client.recv_data()
            if code == websocket.ABNF.OPCODE_CLOSE:
                return found
            found[data[0]] = found.get(data[0], b"") + data[1:]
    finally:
        client.shutdown()  # type: ignore[no-untyped-call] # the library's


async def apart(call: Callable[[], R]) -> R:
    return await asyncio.to_thread(call)


async def test_spdy_exec_has_streams_and_status(server: StreamingServer) -> None:
    url = server.url(sh("cat; echo wrong >&2; exit 3", ALL))
    found = await apart(lambda: spdy_exec(url, ALL, b"hello"))
    assert found["stdout"] == b"hello" and found["stderr"] == b"wrong\n"
    status = json.loads(found["error"])
    assert status["status"] == "Failure" and status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_success_is_told(server: StreamingServer) -> None:
    url = server.url(sh("true"))
    assert json.loads((await apart(lambda: spdy_exec(url, OUT)))["error"])["status"] == "Success"


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (
            "exit 3",
            b"command terminated with non-zero exit code: error executing command [/bin/sh -c exit 3], exit code 3",
        ),
        ("true", b""),
    ],
)
async def test_older_protocols_tell_in_plain_text(server: StreamingServer, script: str, text: bytes) -> None:
    url = server.url(sh(script))
    assert (await apart(lambda: spdy_exec(url, OUT, protocol="v2.channel.k8s.io")))["error"] == text


async def test_an_error_of_ours_is_told(server: StreamingServer) -> None:
    url = server.url(Exec("gone", ("true",), OUT))
    status = json.loads((await apart(lambda: spdy_exec(url, OUT)))["error"])
    assert status["reason"] == "InternalError" and status["message"].endswith(
        "error executing command in container: container gone does not exist"
    )


async def test_a_server_that_stops_ends_a_session_with_an_error(server: StreamingServer, machine: Machine) -> None:
    """Clients take a connection that ends without a status for success (kubectl 1.36)."""
    url, attached = server.url(sh("sleep 8")), server.url(Attach("c1", ALL))
    executing = asyncio.ensure_future(apart(lambda: spdy_exec(url, OUT)))
    with using(await apart(lambda: ws(attached, V5))) as other:
        await apart(lambda: other.send_binary(b"\x00hello"))
        assert await apart(other.recv) == b"\x01" and await apart(other.recv) == b"\x01HELLO"
        while not machine.running:
            await asyncio.sleep(0.01)
        await server.stop()
        assert b"the daemon is stopping" in (await apart(lambda: messages(other)))[3]
    status = json.loads((await executing)["error"])
    assert status["reason"] == "InternalError" and "the daemon is stopping" in status["message"]


async def test_much_passes_both_ways_and_the_loop_turns(server: StreamingServer) -> None:
    """64 MiB through `cat`; meanwhile the loop is never held up for long."""
    size, longest, last = 64 << 20, 0.0, time.monotonic()
    url = server.url(sh("cat", ALL))
    work = asyncio.ensure_future(apart(lambda: spdy_big(url, size)))
    while not work.done():
        await asyncio.sleep(0.005)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    assert await work == size
    assert longest < 5


def spdy_big(url: str, size: int) -> int:
    client = SpdyClient(url, V4)
    numbers = [client.open({"streamType": kind}) for kind in ("error", "stdin", "stdout", "stderr")]

    def send() -> None:
        for _ in range(size >> 20):
            client.send(numbers[1], bytes(1 << 20))
        client.send(numbers[1], b"", True)

    thread = threading.Thread(target=send)
    thread.start()
    got = 0
    try:
        while True:
            first, _, payload = client.frame()
            got += len(payload) if first == numbers[2] else 0
    except EOFError:
        thread.join(20)
        client.socket.close()
        return got


@pytest.mark.parametrize("protocol", [V4, "channel.k8s.io"])
async def test_websocket_exec_has_channels(server: StreamingServer, protocol: str) -> None:
    url = server.url(sh("echo out; echo err >&2; exit 7"))
    found = await apart(lambda: messages(ws(url, protocol)))
    assert found[1] == b"out\n" and found[2] == b"err\n"
    if protocol == V4:
        assert json.loads(found[3])["details"]["causes"][0]["message"] == "7"
    else:
        assert found[3].endswith(b"exit code 7")


async def test_the_first_message_is_an_empty_standard_output(server: StreamingServer) -> None:
    url = server.url(sh("sleep 0.2"))

    def talk() -> str | bytes:
        with using(ws(url, V4)) as client:
            return client.recv()

    assert await apart(talk) == b"\x01"


async def test_v5_can_end_standard_input(server: StreamingServer) -> None:
    def talk() -> dict[int, bytes]:
        client = ws(url, V5, V4)
        assert client.getsubprotocol() == V5
        client.send_binary(b"\x00hello ")
        client.send_binary(b"\x00world")
        client.send_binary(b"\xff\x00")
        return messages(client)

    url = server.url(sh("cat; echo", ALL))
    assert (await apart(talk))[1] == b"hello world\n"


async def test_base64_is_text_with_digits(server: StreamingServer) -> None:
    def talk() -> list[str | bytes]:
        with using(ws(url, "v4.base64.channel.k8s.io")) as client:
            client.send("0aGk=")
            return [client.recv() for _ in range(2)]

    url = server.url(sh("head -c 2", ALL))
    assert await apart(talk) == ["1", "1aGk="]


async def test_sizes_of_the_terminal_reach_the_backend(server: StreamingServer, machine: Machine) -> None:
    """Those of nothing are left out, and so is what is no size."""

    def talk() -> None:
        client = ws(url, V4)
        for text in (b'{"Width":80,"Height":24}', b"nonsense", b'{"Width":0,"Height":3}', b'{"Width":100,"Height":'):
            client.send_binary(b"\x04" + text)
        client.send_binary(b"\x0430}")
        client.send_binary(b"\x00\n")
        messages(client)

    url = server.url(sh("read x; sleep 0.2", TTY))
    await apart(talk)
    assert Size(80, 24) in machine.sizes and all(size.width for size in machine.sizes)


@pytest.mark.parametrize("by", ["spdy", "websocket"])
async def test_a_client_that_goes_away_cancels_its_command(server: StreamingServer, machine: Machine, by: str) -> None:
    """Exec and attach must not outlive their clients (CVE-2025-64329)."""

    def go() -> None:
        if by == "websocket":
            client = ws(url, V4)
            client.recv()
            client.shutdown()  # type: ignore[no-untyped-call] # the library's
        else:
            spdy = SpdyClient(url, V4)
            for kind in ("error", "stdout", "stderr"):
                spdy.open({"streamType": kind})
            spdy.send(1, b"")
            time.sleep(0.2)
            spdy.socket.close()

    url = server.url(sh("echo ready; exec sleep 60"))
    await apart(go)
    async with asyncio.timeout(10):
        while machine.cancelled != ["/bin/sh"]:
            await asyncio.sleep(0.02)


async def test_attach_ends_with_its_input(server: StreamingServer) -> None:
    url = server.url(Attach("c1", ALL))
    found = await apart(lambda: spdy_exec(url, ALL, b"shout"))
    assert found["stdout"] == b"SHOUT"


def echo_server(connections: int) -> int:
    """Answer so many connections with what they say, reversed."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with server:
            for _ in range(connections):
                peer, _ = server.accept()
                with peer:
                    said = b""
                    while data := peer.recv(1 << 16):
                        said += data
                    peer.sendall(said[::-1])

    threading.Thread(target=run).start()
    port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize("named", [True, False], ids=["requestid", "by number"])
async def test_ports_are_forwarded_by_spdy(server: StreamingServer, named: bool) -> None:
    """Several connections, half-closed by the client; streams are paired by ID, or by number without one."""
    port = echo_server(3)
    url = server.url(PortForward("p1"))

    def talk() -> list[bytes]:
        client = SpdyClient(url, "portforward.k8s.io")
        found = []
        for number in range(3):
            headers = {"port": str(port), **({"requestID": str(number)} if named else {})}
            client.open({"streamType": "error", **headers}, fin=True)
            data = client.open({"streamType": "data", **headers})
            client.send(data, b"abc%d" % number, fin=True)
            got = b""
            while True:
                first, flags, payload = client.frame()
                got += payload if first == data else b""
                if first == data and flags & 1:
                    break
            found.append(got)
        client.socket.close()
        return found

    assert await apart(talk) == [b"0cba", b"1cba", b"2cba"]


async def test_a_port_that_nobody_listens_on_is_told_on_the_error_stream(server: StreamingServer) -> None:
    url = server.url(PortForward("p1"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    def talk(port: str) -> bytes:
        client = SpdyClient(url, "portforward.k8s.io")
        error = client.open({"streamType": "error", "port": port, "requestID": "1"}, fin=True)
        client.open({"streamType": "data", "port": port, "requestID": "1"})
        got = b""
        while True:
            first, flags, payload = client.frame()
            got += payload if first == error else b""
            if first == error and flags & 1:
                client.socket.close()
                return got

    assert b"port %d of pod p1 cannot be reached" % port in await apart(lambda: talk(str(port)))
    url = server.url(PortForward("p1"))
    assert b'"99999" is not a port' in await apart(lambda: talk("99999"))


async def test_ports_are_forwarded_by_websocket(server: StreamingServer) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    url = server.url(PortForward("p1", (port,)))

    def answer() -> None:
        with listening:
            peer, _ = listening.accept()
            with peer:
                peer.sendall(peer.recv(100)[::-1])

    def talk() -> tuple[list[bytes], str | bytes]:
        threading.Thread(target=answer).start()
        with using(ws(url, V4)) as client:
            first = [client.recv() for _ in range(2)]
            client.send_binary(b"\x00ping")
            return [each for each in first if isinstance(each, bytes)], client.recv()

    ports, answered = await apart(talk)
    assert ports == [b"\x00" + struct.pack("<H", port), b"\x01" + struct.pack("<H", port)]
    assert answered == b"\x00gnip"


async def test_spdy_is_tunnelled_in_websocket(server: StreamingServer) -> None:
    """As `kubectl port-forward` does since Kubernetes 1.31."""
    port = echo_server(1)
    url = server.url(PortForward("p1"))

    def talk() -> bytes:
        tunnel = ws(url, "SPDY/3.1+portforward.k8s.io")
        ours, theirs = socket.socketpair()
        client = SpdyClient.__new__(SpdyClient)
        client.socket, client.buffer, client.next = theirs, b"", 1
        client.deflate = __import__("zlib").compressobj(
            zdict=__import__("windlass_streaming.spdy", fromlist=["x"]).DICTIONARY
        )
        headers = {"port": str(port), "requestID": "1"}
        client.open({"streamType": "error", **headers}, fin=True)
        data = client.open({"streamType": "data", **headers})
        client.send(data, b"tunnel", fin=True)
        tunnel.send_binary(ours.recv(1 << 16))
        got = b""
        while True:
            while len(client.buffer) < 8 or len(client.buffer) < 8 + int.from_bytes(client.buffer[5:8], "big"):
                received = tunnel.recv()
                assert isinstance(received, bytes)
                client.buffer += received
            first, flags, payload = client.frame()
            got += payload if first == data else b""
            if first == data and flags & 1:
                ours.close()
                theirs.close()
                tunnel.close()
                return got

    assert await apart(talk) == b"lennut"


def get(url: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    place, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(place, timeout=20)
    connection.request(method, f"/{path}")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, dict(answer.getheaders())


async def test_a_token_is_used_up_by_any_request(server: StreamingServer) -> None:
    url = server.url(sh("true"))
    assert (await apart(lambda: get(url)))[0] == 400
    assert (await apart(lambda: get(url)))[0] == 404


async def test_unknown_paths_tokens_and_methods_are_refused(server: StreamingServer) -> None:
    url = server.url(sh("true"))
    assert (await apart(lambda: get(url.replace("/exec/", "/attach/"))))[0] == 404
    assert (await apart(lambda: get(url.rpartition("/")[0] + "/nonsense")))[0] == 404
    status, _, headers = await apart(lambda: get(url, "PUT"))
    assert status == 405 and headers["Allow"] == "GET, POST"


async def test_protocols_that_are_not_served_are_refused_with_those_that_are(server: StreamingServer) -> None:
    url = server.url(sh("true"))
    client = await apart(lambda: SpdyClient(url, "v9.channel.k8s.io"))
    assert client.head.startswith(b"HTTP/1.1 403 ") and b"Versions: v4.channel.k8s.io\r\n" in client.head
    client.socket.close()
    url = server.url(sh("true"))
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        await apart(lambda: ws(url, "v9.channel.k8s.io"))


def test_tokens_end_and_are_not_too_many() -> None:
    now = [0.0]
    tokens: Tokens[int] = Tokens(lambda: now[0])
    kept = [tokens.add(number) for number in range(MOST)]
    assert all(len(token) == 8 for token in kept)
    with pytest.raises(ResourceExhausted):
        tokens.add(0)
    assert tokens.take(kept[5]) == 5 and tokens.take(kept[5]) is None
    now[0] = LIFETIME + 1
    assert tokens.take(kept[6]) is None
    tokens.add(1)


async def test_a_connection_without_traffic_ends(machine: Machine) -> None:
    server = StreamingServer(machine, Listen(idle=0.5))
    await server.start()
    try:
        url = server.url(Exec("c1", ("sleep", "60"), OUT))
        assert await apart(lambda: messages_or_end(ws(url, V4)))
        assert machine.cancelled == ["sleep"]
    finally:
        await server.stop()
        await asyncio.gather(*machine.ending)


def messages_or_end(client: websocket.WebSocket) -> bool:
    try:
        messages(client)
    except (websocket.WebSocketConnectionClosedException, ConnectionError):
        pass
    return True
