"""A shim by its binary: executed and spoken to as a daemon would (docs/containerd 4.3 to 4.7)."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from windlass.contracts.tasks import Status
from windlass.errors import AlreadyExists, Error, FailedPrecondition, from_code
from windlass_api.containerd.runtime.bootstrap.v1 import bootstrap_pb2
from windlass_api.containerd.services.events.ttrpc.v1.events_pb2 import ForwardRequest
from windlass_api.containerd.task.v2 import shim_pb2
from windlass_api.containerd.types.mount_pb2 import Mount
from windlass_api.ttrpc import framing
from windlass_conformance import boxes
from windlass_conformance.daemon_runtime import container_of
from windlass_conformance.runtimes import PATIENCE, State

START_TIMEOUT = 30.0

M = TypeVar("M", bound=Message)


class Connection:
    """A blocking ttrpc client, for one call at a time."""

    def __init__(self, path: str, version: int) -> None:
        """Connect to a shim's socket."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)
        self._decoder = framing.FrameDecoder()
        self._stream = -1
        self._service = f"containerd.task.v{version}.Task"

    def call(self, kind: type[M], method: str, message: Message) -> M:
        """Call and return the answer. Raises the error that it is."""
        self._stream += 2
        request = framing.Request(self._service, method, message.SerializeToString(), int(PATIENCE * 1e9))
        self._socket.sendall(framing.pack_frame(self._stream, framing.REQUEST, 0, framing.encode_request(request)))
        while True:
            data = self._socket.recv(65536)
            if not data:
                raise FailedPrecondition("the shim has closed the connection")
            for frame in self._decoder.feed(data):
                if frame.stream == self._stream:
                    response = framing.decode_response(frame.data)
                    if response.code:
                        raise from_code(response.code, response.message)
                    return kind.FromString(response.payload)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class EventSocket:
    """The socket to which shims forward events, as a daemon has it."""

    def __init__(self, path: Path) -> None:
        """Listen."""
        self.path = path
        self.received: list[tuple[str, str]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """End every connection."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=[connection]))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        decoder = framing.FrameDecoder()
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                for frame in decoder.feed(data):
                    self._take(framing.decode_request(frame.data).payload)
                    connection.sendall(framing.pack_frame(frame.stream, framing.RESPONSE, 0, b""))

    def _take(self, payload: bytes) -> None:
        envelope = ForwardRequest.FromString(payload).envelope
        self.received.append((container_of(envelope.topic, envelope.event.value), envelope.topic))


class ShimRuntime:
    """A `windlass_conformance.runtimes.Runtime`; each container has a shim of its own."""

    def __init__(self, binary: str, directory: Path) -> None:
        """Execute ``binary`` for each container, with everything below ``directory``, whose path is short."""
        self._binary = binary
        self._directory = directory
        self._namespace = f"conformance-{secrets.token_hex(4)}"
        self._events = EventSocket(directory / "e.sock")
        self._connections: dict[str, Connection] = {}
        self._logs: dict[str, int] = {}

    def close(self) -> None:
        """End every container and its shim."""
        for id in list(self._connections):
            steps: tuple[Callable[[], object], ...] = (
                lambda id=id: self.kill(id, 9, "", True),  # type: ignore[misc] # mypy infers no lambda's default
                lambda id=id: self.wait(id),  # type: ignore[misc] # as above
                lambda id=id: self.delete(id),  # type: ignore[misc] # as above
            )
            for step in steps:
                with contextlib.suppress(Error, OSError):
                    step()
            self._end(id)
        self._events.close()
        boxes.remove_group(self._namespace)

    def _bundle(self, id: str) -> Path:
        return self._directory / "b" / self._namespace / id

    def create(self, id: str, argv: Sequence[str], stdout: str = "") -> int:
        """Make a bundle, start a shim in it, and have it create the container."""
        if id in self._connections:
            # A daemon refuses the ID itself; this case asks whether the shim does too.
            return self._create(id, stdout)
        bundle = self._bundle(id)
        (bundle / "rootfs").mkdir(parents=True)
        boxes.make_root(bundle / "root")
        (bundle / "config.json").write_bytes(boxes.spec(argv, "rootfs", f"/{self._namespace}/{id}"))
        self._connections[id] = self._started(id, bundle)
        try:
            return self._create(id, stdout)
        except Error as error:
            if not isinstance(error, AlreadyExists):
                self._end(id)
            raise

    def _create(self, id: str, stdout: str) -> int:
        bundle = self._bundle(id)
        mount = Mount(type="bind", source=str(bundle / "root"), options=["rbind", "rw"])
        request = shim_pb2.CreateTaskRequest(id=id, bundle=str(bundle), rootfs=[mount], stdout=stdout, stderr=stdout)
        return self._connections[id].call(shim_pb2.CreateTaskResponse, "Create", request).pid

    def _started(self, id: str, bundle: Path) -> Connection:
        # Unread, but open as long as the shim lives, which otherwise waits to write to it.
        self._logs[id] = os.open(_fifo(bundle / "log"), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        params = bootstrap_pb2.BootstrapParams(
            instance_id=id,
            namespace=self._namespace,
            containerd_ttrpc_address=str(self._events.path),
            containerd_grpc_address=str(self._directory / "d.sock"),
            socket_dir=str(self._directory),
        )
        done = self._start(id, bundle, params.SerializeToString())
        if done.returncode:  # older shims read options there, or nothing
            done = self._start(id, bundle, b"")
        if done.returncode:
            raise FailedPrecondition(f"shim {self._binary} start: {done.stderr.decode(errors='replace').strip()[:500]}")
        address, version = _address(done.stdout)
        return Connection(address, version)

    def _start(self, id: str, bundle: Path, data: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self._binary, *self._flags(id), "start"],
            cwd=bundle,
            env={**os.environ, "TTRPC_ADDRESS": str(self._events.path), "MAX_SHIM_VERSION": "2"},
            input=data,
            capture_output=True,
            timeout=START_TIMEOUT,
            check=False,
        )

    def _flags(self, id: str) -> list[str]:
        where = ["-address", str(self._directory / "d.sock"), "-publish-binary", sys.executable]
        return ["-namespace", self._namespace, "-id", id, *where]

    def _end(self, id: str) -> None:
        connection = self._connections.pop(id)
        with contextlib.suppress(Error, OSError):
            connection.call(Empty, "Shutdown", shim_pb2.ShutdownRequest(id=id, now=True))
        connection.close()
        flags = [*self._flags(id), "-bundle", str(self._bundle(id))]
        subprocess.run(
            [self._binary, *flags, "delete"],
            cwd=self._bundle(id),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=START_TIMEOUT,
            check=False,
        )
        os.close(self._logs.pop(id))

    def start(self, id: str, exec_id: str = "") -> int:
        """Start a process."""
        return self._call(id, shim_pb2.StartResponse, "Start", shim_pb2.StartRequest(id=id, exec_id=exec_id)).pid

    def exec(self, id: str, exec_id: str, argv: Sequence[str]) -> None:
        """Add a process."""
        process = AnyMessage(type_url=boxes.PROCESS, value=boxes.process_json(argv))
        self._call(id, Empty, "Exec", shim_pb2.ExecProcessRequest(id=id, exec_id=exec_id, spec=process))

    def wait(self, id: str, exec_id: str = "") -> int:
        """Wait for a process."""
        request = shim_pb2.WaitRequest(id=id, exec_id=exec_id)
        return self._call(id, shim_pb2.WaitResponse, "Wait", request).exit_status

    def kill(self, id: str, number: int, exec_id: str = "", all: bool = False) -> None:
        """Send a signal."""
        self._call(id, Empty, "Kill", shim_pb2.KillRequest(id=id, exec_id=exec_id, signal=number, all=all))

    def delete(self, id: str, exec_id: str = "") -> int:
        """Delete a process."""
        request = shim_pb2.DeleteRequest(id=id, exec_id=exec_id)
        return self._call(id, shim_pb2.DeleteResponse, "Delete", request).exit_status

    def state(self, id: str, exec_id: str = "") -> State:
        """Describe a process."""
        found = self._call(id, shim_pb2.StateResponse, "State", shim_pb2.StateRequest(id=id, exec_id=exec_id))
        return State(Status(found.status), found.pid, found.exit_status)

    def pids(self, id: str) -> list[int]:
        """Return the processes."""
        answer = self._call(id, shim_pb2.PidsResponse, "Pids", shim_pb2.PidsRequest(id=id))
        return [each.pid for each in answer.processes]

    def pause(self, id: str) -> None:
        """Freeze a container."""
        self._call(id, Empty, "Pause", shim_pb2.PauseRequest(id=id))

    def resume(self, id: str) -> None:
        """Thaw it."""
        self._call(id, Empty, "Resume", shim_pb2.ResumeRequest(id=id))

    def topics(self, id: str) -> list[str]:
        """Return the topics so far."""
        return [topic for container, topic in self._events.received if container == id]

    def file(self, name: str) -> str:
        """Return a path."""
        return str(self._directory / name)

    def _call(self, id: str, kind: type[M], method: str, message: Message) -> M:
        if id not in self._connections:
            raise FailedPrecondition(f"there is no shim of {id}")
        return self._connections[id].call(kind, method, message)


def _fifo(path: Path) -> Path:
    os.mkfifo(path, 0o600)
    return path


def _address(output: bytes) -> tuple[str, int]:
    """Read what ``start`` printed: a message, or a bare address (docs/containerd 4.3)."""
    try:
        result = bootstrap_pb2.BootstrapResult.FromString(output)
        if result.version and result.address:
            return result.address.removeprefix("unix://"), result.version
    except DecodeError:
        pass
    return output.decode().strip().removeprefix("unix://"), 2
