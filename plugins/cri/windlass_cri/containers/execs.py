"""Exec, attach and port-forward: the work behind ExecSync and the streaming server (docs/containerd 5.8)."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from windlass.contracts.tasks import Exit
from windlass.errors import DeadlineExceeded, Error, FailedPrecondition, NotFound, Unknown
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.containers.containers import Containers
from windlass_cri.containers.processio import chunks, write_all
from windlass_cri.pods.pods import Pods
from windlass_cri.record import Container
from windlass_linux import netns
from windlass_local import fifos
from windlass_local.waiting import give_up, settled, unless_gone
from windlass_oci.payloads import PROCESS, to_payload
from windlass_oci.process import set_terminal
from windlass_streaming.backend import Attach, Backend, Exec, Pipe, Session

logger = logging.getLogger(__name__)

OUTPUT_LIMIT = 16 << 20
"""Bytes of each stream that ExecSync returns; what is more is read and dropped."""
KILL_TIMEOUT = 10.0
PORT_BUFFER = 64 << 10


@dataclass
class Output:
    """What a process wrote."""

    stdout: bytearray
    stderr: bytearray
    code: int = 0


class Execs(Backend):
    """Executes in containers, attaches to them, and reaches ports of pods."""

    def __init__(self, containers: Containers, pods: Pods) -> None:
        """Work on these."""
        self._containers = containers
        self._pods = pods

    def running(self, id: str) -> Container:
        """Return a container that runs. Raises NotFound, Unknown."""
        container = self._containers.index.find(id)
        if container is None:
            raise NotFound(f'failed to find container "{id[:100]}" in store: not found')
        if container.status.state != cri.CONTAINER_RUNNING:
            state = cri.ContainerState.Name(container.status.state)
            raise Unknown(f"container is in {state} state, not running")
        return container

    async def exec_sync(self, id: str, command: Sequence[str], timeout: float) -> Output:
        """Execute a command and return what it wrote. Raises DeadlineExceeded after ``timeout`` seconds, 0 is never."""
        output = Output(bytearray(), bytearray())
        process = await self._begin(self.running(id), command, stdin=False, tty=False)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(process.end)

            async def keep(stream: str, kept: bytearray) -> None:
                async for data in process.output(stream):
                    kept.extend(data[: OUTPUT_LIMIT - len(kept)])

            reading = asyncio.gather(keep("stdout", output.stdout), keep("stderr", output.stderr))
            stack.callback(give_up, reading)
            try:
                async with asyncio.timeout(timeout or None):
                    output.code = (await process.run()).status
                    await reading
            except TimeoutError:
                reason = f"timeout {timeout:g}s exceeded: context deadline exceeded"
                raise DeadlineExceeded(f"failed to exec in container: {reason}") from None
        return output

    async def _begin(self, container: Container, command: Sequence[str], *, stdin: bool, tty: bool) -> ExecProcess:
        if not command:
            raise Unknown("args must not be empty")
        spec = (await self._containers.spec(container))["process"]
        spec["args"] = list(command)
        spec.pop("terminal", None)  # not false: a shim then has to change the document, for which it imports json
        if tty:
            set_terminal(spec)
        exec_id = secrets.token_hex(32)
        streams = await _made(self._containers.io_directory(container.id), exec_id, stdin=stdin, tty=tty)
        process = ExecProcess(self._containers, container.id, exec_id, streams)
        try:
            await self._containers.namespace.tasks.exec(container.id, exec_id, to_payload(PROCESS, spec), streams.io)
        except BaseException:
            await settled(process.end())
            raise
        return process

    async def exec(self, request: Exec, session: Session) -> int:
        """Execute with a client's streams, and return the exit status."""
        wanted = request.wanted
        container = self.running(request.container)
        process = await self._begin(container, request.command, stdin=wanted.stdin, tty=wanted.tty)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(process.end)
            feeding = asyncio.gather(process.feed(session), process.follow(session))
            stack.callback(give_up, feeding)

            async def send(stream: str) -> None:
                async for data in process.output(stream):
                    await session.write(data, error=stream == "stderr")

            sending = asyncio.gather(send("stdout"), send("stderr"))
            stack.callback(give_up, sending)
            ended = await process.run()
            await sending
            return ended.status

    async def attach(self, request: Attach, session: Session) -> None:
        """Show a client what a container's main process writes, and write for it."""
        container = self.running(request.container)
        io = self._containers.io(container)
        client = io.attach()

        async def feed() -> None:
            while request.wanted.stdin and io.stdin >= 0 and (data := await session.read()):
                await write_all(io.stdin, data)
            if request.wanted.stdin and container.config.stdin_once and not container.config.tty:
                io.close_stdin()
                await self._containers.namespace.tasks.close_stdin(container.id)

        async def follow() -> None:
            async for size in session.sizes():
                await self._containers.namespace.tasks.resize(container.id, "", size.width, size.height)

        async def send(stream: str) -> None:
            channel = client.stderr if stream == "stderr" else client.stdout
            while data := await channel.get():
                await session.write(data, error=stream == "stderr")

        feeding = asyncio.gather(feed(), follow())
        try:
            await asyncio.gather(send("stdout"), send("stderr"))
        finally:
            give_up(feeding)
            io.detach(client)

    async def forward(self, sandbox: str, port: int, pipe: Pipe) -> None:
        """Connect a client with a port of a pod, until both directions have ended."""
        pod = self._pods.index.get(sandbox)
        if not pod.ready:
            raise Unknown(f"sandbox {pod.id} is not running")
        connection = await asyncio.to_thread(_connect, pod.namespaces.get("net", ""), port)
        reader, writer = await asyncio.open_connection(sock=connection)

        async def out() -> None:
            while data := await reader.read(PORT_BUFFER):
                await pipe.write(data)
            await pipe.write_end()

        async def into() -> None:
            while data := await pipe.read():
                writer.write(data)
                await writer.drain()
            writer.write_eof()

        ways = {asyncio.create_task(out()), asyncio.create_task(into())}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.close()


def _connect(namespace: str, port: int) -> socket.socket:
    """Connect to a port of a namespace's loopback, by IPv4 or else IPv6. Raises Unknown."""

    def connect() -> socket.socket:
        return socket.create_connection(("localhost", port), timeout=10)

    try:
        found = netns.within(Path(namespace), connect) if namespace else connect()
    except OSError as error:
        raise Unknown(f"port {port} of the pod cannot be reached: {error.strerror or error}") from None
    found.setblocking(False)
    return found


async def _made(parent: Path, exec_id: str, *, stdin: bool, tty: bool) -> fifos.Fifos:
    """Make the FIFOs of an exec; of a caller that is cancelled meanwhile none are left."""
    making = asyncio.ensure_future(
        asyncio.to_thread(fifos.make, exec_id, stdin=stdin, terminal=tty, parent=str(parent))
    )
    try:
        return await settled(making)
    except asyncio.CancelledError:
        if making.exception() is None:
            making.result().close()
        raise


class ExecProcess:
    """One further process of a container. Owns its FIFOs."""

    def __init__(self, containers: Containers, container: str, id: str, streams: fifos.Fifos) -> None:
        """Be a process that was created and not started."""
        self._tasks = containers.namespace.tasks
        self._container = container
        self._id = id
        self._streams = streams
        self._started = asyncio.Event()
        self._has_ended = False

    async def run(self) -> Exit:
        """Start it and return how it ended."""
        waiting = asyncio.create_task(self._tasks.wait(self._container, self._id))
        try:
            try:
                await self._tasks.start(self._container, self._id)
            except Error as error:
                text = f'failed to exec in container: failed to start exec "{self._id}": {error}'
                raise Unknown(text) from error
            self._started.set()
            ended = await waiting
            self._has_ended = True
            return ended
        finally:
            give_up(waiting)

    async def output(self, stream: str) -> AsyncIterator[bytes]:
        """Yield what it writes to a stream."""
        if stream in self._streams.descriptors:
            async for data in chunks(self._streams.descriptors[stream]):
                yield data

    async def feed(self, session: Session) -> None:
        """Write for it what the client sends, then end its input."""
        fd = self._streams.descriptors.get("stdin", -1)
        if fd < 0:
            return
        # Not before: what is in a FIFO is lost when its last end is closed, and the shim opens its own at the start.
        await self._started.wait()
        while data := await session.read():
            await write_all(fd, data)
        os.close(self._streams.take("stdin"))
        await unless_gone(self._tasks.close_stdin(self._container, self._id))

    async def follow(self, session: Session) -> None:
        """Give its terminal the sizes of the client's."""
        async for size in session.sizes():
            await unless_gone(self._tasks.resize(self._container, self._id, size.width, size.height))

    async def end(self) -> None:
        """Kill it if it runs, and remove what is kept of it."""
        try:
            if not self._has_ended:
                await unless_gone(self._tasks.kill(self._container, signal.SIGKILL, self._id))
        except Error:
            pass  # it has ended
        try:
            await unless_gone(self._delete())
        except (Error, TimeoutError) as error:
            # What its client has to know is how it ended, or why it did not begin.
            reason = str(error) or "it does not end"
            logger.warning("exec %s of container %s stays: %s", self._id, self._container, reason)
        finally:
            self._streams.close()

    async def _delete(self) -> None:
        async with asyncio.timeout(KILL_TIMEOUT):
            if self._started.is_set() and not self._has_ended:
                await self._tasks.wait(self._container, self._id)
            try:
                await self._tasks.delete_exec(self._container, self._id)
            except FailedPrecondition:
                # It runs although its start failed, or was given up.
                await self._tasks.wait(self._container, self._id)
                await self._tasks.delete_exec(self._container, self._id)
