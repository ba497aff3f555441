"""A streaming server whose backend executes programs of this machine, and a small SPDY client."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Mapping

import pytest

from windlass.errors import NotFound
from windlass_streaming.backend import Attach, Exec, Pipe, Session, Size
from windlass_streaming.server import Listen, StreamingServer
from windlass_streaming.spdy import DICTIONARY


class Machine:
    """Executes commands, connects ports of the loopback, and remembers sizes of terminals and what was cancelled."""

    def __init__(self) -> None:
        self.sizes: list[Size] = []
        self.running: list[str] = []
        self.cancelled: list[str] = []
        self.ending: list[asyncio.Future[None]] = []

    async def exec(self, request: Exec, session: Session) -> int:
        if request.container == "gone":
            raise NotFound("container gone does not exist")
        pipe = asyncio.subprocess.PIPE
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(*request.command, stdin=pipe, stdout=pipe, stderr=pipe)
        )
        try:
            process = await asyncio.shield(starting)
            self.running.append(request.command[0])
            return await self._talk(process, session)
        except asyncio.CancelledError:
            self.cancelled.append(request.command[0])
            raise
        finally:
            self.ending.append(asyncio.ensure_future(self._end(starting)))

    async def _talk(self, process: asyncio.subprocess.Process, session: Session) -> int:
        assert process.stdin and process.stdout and process.stderr
        watching = asyncio.gather(self._watch(session), self._feed(session, process.stdin))
        try:
            await asyncio.gather(
                self._pump(process.stdout, session, error=False),
                self._pump(process.stderr, session, error=True),
            )
            return await process.wait()
        finally:
            watching.cancel()

    async def _end(self, starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
        """Kill what still runs; its pipes close when they have been read."""
        process = await starting
        if process.returncode is None:
            process.kill()
        await process.communicate()

    async def attach(self, request: Attach, session: Session) -> None:
        while data := await session.read():
            await session.write(data.upper())

    async def forward(self, sandbox: str, port: int, pipe: Pipe) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            raise NotFound(f"port {port} of pod {sandbox} cannot be reached: {error.strerror}") from None

        async def out() -> None:
            while data := await reader.read(1 << 16):
                await pipe.write(data)
            await pipe.write_end()

        async def into() -> None:
            while data := await pipe.read():
                writer.write(data)
                await writer.drain()
            writer.write_eof()

        try:
            await asyncio.gather(out(), into())
        finally:
            writer.close()

    async def _watch(self, session: Session) -> None:
        async for size in session.sizes():
            self.sizes.append(size)

    async def _feed(self, session: Session, stdin: asyncio.StreamWriter) -> None:
        try:
            while data := await session.read():
                stdin.write(data)
                await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass
        stdin.close()

    async def _pump(self, source: asyncio.StreamReader, session: Session, *, error: bool) -> None:
        while data := await source.read(1 << 16):
            await session.write(data, error=error)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def server(machine: Machine) -> AsyncIterator[StreamingServer]:
    made = StreamingServer(machine, Listen())
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
        await asyncio.gather(*machine.ending)


class SpdyClient:
    """A client of SPDY/3.1 on a blocking socket; frames are made and read as the draft says."""

    def __init__(self, url: str, *protocols: str, extra: bytes = b"") -> None:
        place, _, path = url.removeprefix("http://").partition("/")
        host, _, port = place.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        headers = "".join(f"X-Stream-Protocol-Version: {each}\r\n" for each in protocols)
        head = f"POST /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{headers}\r\n"
        self.socket.sendall(head.encode() + extra)
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self._more()
        self.head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.deflate = zlib.compressobj(zdict=DICTIONARY)
        self.next = 1

    def _more(self) -> bytes:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError
        return data

    def open(self, headers: Mapping[str, str], fin: bool = False) -> int:
        """Open a stream and return its number."""
        plain = struct.pack(">I", len(headers))
        for name, value in headers.items():
            plain += struct.pack(">I", len(name)) + name.encode() + struct.pack(">I", len(value)) + value.encode()
        block = self.deflate.compress(plain) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        stream, self.next = self.next, self.next + 2
        self.control(1, struct.pack(">IIH", stream, 0, 0) + block, int(fin))
        return stream

    def control(self, kind: int, payload: bytes, flags: int = 0) -> None:
        self.socket.sendall(struct.pack(">HHB", 0x8003, kind, flags) + len(payload).to_bytes(3, "big") + payload)

    def send(self, stream: int, data: bytes, fin: bool = False) -> None:
        self.socket.sendall(struct.pack(">IB", stream, int(fin)) + len(data).to_bytes(3, "big") + data)

    def frame(self) -> tuple[int, int, bytes]:
        """Return the next frame's first word, flags and payload. Raises EOFError at the end."""
        while len(self.buffer) < 8 or len(self.buffer) < 8 + int.from_bytes(self.buffer[5:8], "big"):
            self.buffer += self._more()
        first, flags = struct.unpack_from(">IB", self.buffer)
        end = 8 + int.from_bytes(self.buffer[5:8], "big")
        payload, self.buffer = self.buffer[8:end], self.buffer[end:]
        return first, flags, payload

    def until_end(self) -> dict[int, bytes]:
        """Return what each stream got until the server ends the connection."""
        found: dict[int, bytes] = {}
        try:
            while True:
                first, _, payload = self.frame()
                if not first >> 31:
                    found[first] = found.get(first, b"") + payload
        except (EOFError, ConnectionError):
            return found
        finally:
            self.socket.close()
