"""What the ttrpc client promises, against a server that does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from windlass import errors
from windlass_api.ttrpc import framing
from windlass_runtime_v2.ttrpc import Client, connect

Answer = Callable[[framing.Frame, framing.Request], bytes | None]


def respond(frame: framing.Frame, response: framing.Response) -> bytes:
    return framing.pack_frame(frame.stream, framing.RESPONSE, 0, framing.encode_response(response))


def echo(frame: framing.Frame, request: framing.Request) -> bytes | None:
    return respond(frame, framing.Response(payload=request.payload))


@contextlib.asynccontextmanager
async def serving(path: Path, answer: Answer) -> AsyncIterator[Client]:
    """A client of a server that answers each request with the bytes of ``answer``, b"" hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = framing.FrameDecoder()
        try:
            while data := await reader.read(1 << 16):
                for frame in decoder.feed(data):
                    answered = answer(frame, framing.decode_request(frame.data))
                    if answered == b"":
                        return
                    writer.write(answered or b"")
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    client = await connect(f"unix://{path}")
    try:
        yield client
    finally:
        client.close()
        await client.gone
        server.close()
        await server.wait_closed()


async def test_a_call_carries_service_method_namespace_and_time_left(tmp_path: Path) -> None:
    """The request says everything that the caller said."""
    seen: list[framing.Request] = []

    def note(frame: framing.Frame, request: framing.Request) -> bytes | None:
        seen.append(request)
        return echo(frame, request)

    async with serving(tmp_path / "s", note) as client:
        assert await client.call("a.B", "C", b"x", "tenant", 2.0) == b"x"
        await client.call("a.B", "C", b"", "tenant", None)

    assert (seen[0].service, seen[0].method, seen[0].timeout_nano) == ("a.B", "C", 2_000_000_000)
    assert dict(seen[0].metadata) == {"containerd-namespace-ttrpc": ["tenant"]}
    assert seen[1].timeout_nano == 0


async def test_calls_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Many calls share a connection, and each gets its own answer, in whatever order they come."""
    held: list[bytes] = []

    def backwards(frame: framing.Frame, request: framing.Request) -> bytes | None:
        held.insert(0, respond(frame, framing.Response(payload=request.payload)))
        return b"".join(held) if len(held) == 50 else None

    async with serving(tmp_path / "s", backwards) as client:
        answers = await asyncio.gather(*(client.call("s", "m", b"%d" % i, "n", 5) for i in range(50)))

    assert answers == [b"%d" % i for i in range(50)]


async def test_an_error_answer_is_raised_as_its_class(tmp_path: Path) -> None:
    """The peer's code decides the class, its message is kept."""

    def refuse(frame: framing.Frame, request: framing.Request) -> bytes | None:
        return respond(frame, framing.Response(code=5, message="no such thing"))

    async with serving(tmp_path / "s", refuse) as client:
        with pytest.raises(errors.NotFound, match=r"^no such thing$"):
            await client.call("s", "m", b"", "n", 5)


async def test_a_deadline_ends_the_call_and_not_the_connection(tmp_path: Path) -> None:
    """After the deadline the answer is ignored, and other calls work."""
    late: list[bytes] = []

    def slowly(frame: framing.Frame, request: framing.Request) -> bytes | None:
        if request.method == "hang":
            late.append(respond(frame, framing.Response(payload=b"late")))
            return None
        return late.pop() + echo(frame, request)  # type: ignore[operator] # echo always answers

    async with serving(tmp_path / "s", slowly) as client:
        with pytest.raises(errors.DeadlineExceeded, match=r"hang within 0\.05 s"):
            await client.call("s", "hang", b"", "n", 0.05)
        assert await client.call("s", "m", b"y", "n", 5) == b"y"


async def test_a_cancelled_call_is_dropped(tmp_path: Path) -> None:
    """Whoever gives up leaves nothing behind in the client."""
    async with serving(tmp_path / "s", lambda frame, request: None) as client:
        call = asyncio.create_task(client.call("s", "m", b"", "n", None))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not client._pending


async def test_when_the_peer_goes_every_call_fails(tmp_path: Path) -> None:
    """Pending and later calls are Unavailable, and `gone` is done."""
    count = 0

    def hang_up(frame: framing.Frame, request: framing.Request) -> bytes | None:
        nonlocal count
        count += 1
        return b"" if count == 3 else None

    async with serving(tmp_path / "s", hang_up) as client:
        calls = [client.call("s", "m", b"", "n", None) for _ in range(3)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, errors.Unavailable) for result in results)
        assert client.gone.done()
        with pytest.raises(errors.Unavailable):
            await client.call("s", "m", b"", "n", None)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            framing.HEADER.pack(framing.MAX_DATA + 1, 1, framing.RESPONSE, 0) + bytes(framing.MAX_DATA + 1),
            errors.ResourceExhausted,
        ),
        (framing.pack_frame(1, framing.RESPONSE, 0, b"\xff\xff\xff"), errors.Internal),
    ],
    ids=["oversized", "garbage"],
)
async def test_a_bad_answer_fails_its_call_only(tmp_path: Path, answer: bytes, error: type[errors.Error]) -> None:
    """The connection lives on, as wire/README.md wants it."""

    def bad(frame: framing.Frame, request: framing.Request) -> bytes | None:
        return answer if frame.stream == 1 else echo(frame, request)

    async with serving(tmp_path / "s", bad) as client:
        with pytest.raises(error):
            await client.call("s", "m", b"", "n", 5)
        assert await client.call("s", "m", b"z", "n", 5) == b"z"


async def test_frames_of_other_types_and_streams_are_ignored(tmp_path: Path) -> None:
    """What is not an answer to a call of ours changes nothing."""

    def chatty(frame: framing.Frame, request: framing.Request) -> bytes | None:
        noise = framing.pack_frame(99, framing.RESPONSE, 0, b"") + framing.pack_frame(frame.stream, 77, 0, b"?")
        return noise + (echo(frame, request) or b"")

    async with serving(tmp_path / "s", chatty) as client:
        assert await client.call("s", "m", b"q", "n", 5) == b"q"


async def test_a_request_over_the_limit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    """A peer would only throw it away."""
    async with serving(tmp_path / "s", echo) as client:
        with pytest.raises(errors.ResourceExhausted, match="exceeds the limit of 4194304"):
            await client.call("s", "m", bytes(framing.MAX_DATA + 1), "n", 5)


async def test_nobody_listens(tmp_path: Path) -> None:
    """A dead socket fails fast, whether its file is there or not."""
    with pytest.raises(errors.Unavailable, match="cannot connect to unix://"):
        await connect(f"unix://{tmp_path}/missing")
    with pytest.raises(errors.InvalidArgument, match="not a unix socket"):
        await connect("vsock://3:1024")


async def test_without_room_for_a_descriptor_a_shim_is_unavailable(tmp_path: Path) -> None:
    """Which whoever starts one undoes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = next(fd for fd in itertools.count() if not Path(f"/proc/self/fd/{fd}").exists())
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(errors.Unavailable, match="Too many open files"):
            await connect(f"unix://{tmp_path}/shim.sock")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
