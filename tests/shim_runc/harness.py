"""A daemon in miniature for the shim's tests: makes bundles, spawns shims, calls them, collects their events."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import groups
from polling import is_readable

from windlass.contracts.zygote import Child
from windlass.errors import from_code
from windlass_api.ttrpc import framing as ttrpc
from windlass_conformance.boxes import BUSYBOX
from windlass_shim_runc import messages
from windlass_shim_runc.messages import Message, decode
from windlass_zygote.spawner import ForkingZygote

M = TypeVar("M", bound=Message)
TASK = "containerd.task.v3.Task"


class Client:
    """A blocking ttrpc client; one call at a time and thread."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self.decoder = ttrpc.FrameDecoder()
        self.stream = 1

    def send(self, method: str, message: Message, service: str = TASK, timeout: float = 0.0) -> int:
        """Send a request, with a deadline if one is given, and return its stream."""
        stream, self.stream = self.stream, self.stream + 2
        request = ttrpc.Request(service, method, message.encode(), int(timeout * 1e9))
        self.socket.sendall(ttrpc.pack_frame(stream, ttrpc.REQUEST, 0, ttrpc.encode_request(request)))
        return stream

    def receive(self, stream: int) -> ttrpc.Response:
        """Return the answer of a stream."""
        while True:
            data = self.socket.recv(65536)
            assert data, "the shim closed the connection"
            for frame in self.decoder.feed(data):
                if frame.stream == stream:
                    return ttrpc.decode_response(frame.data)

    def call(self, kind: type[M], method: str, message: Message, service: str = TASK, timeout: float = 0.0) -> M:
        """Call and return the answer; raises the error that it was."""
        response = self.receive(self.send(method, message, service, timeout))
        if response.code:
            raise from_code(response.code, response.message)
        return decode(kind, response.payload)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


class EventSink:
    """The daemon's event service: takes what shims forward."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: list[tuple[str, bytes]] = []
        self.start()

    def start(self) -> None:
        """Listen, also again after `stop`."""
        self.path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, args=[self.listener], daemon=True).start()

    def stop(self) -> None:
        """Die like a daemon: connections break, the socket's file stays."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        decoder = ttrpc.FrameDecoder()
        with connection:
            while True:
                try:
                    data = connection.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                for frame in decoder.feed(data):
                    request = ttrpc.decode_request(frame.data)
                    assert request.metadata["containerd-namespace-ttrpc"]
                    envelope = decode(messages.ForwardRequest, request.payload).envelope
                    try:
                        connection.sendall(ttrpc.pack_frame(frame.stream, ttrpc.RESPONSE, 0, b""))
                    except OSError:
                        return
                    # Now only: one whose answer is lost arrives twice.
                    self.received.append((envelope.topic, envelope.event.value))

    def wait_for(self, topic: str, count: int = 1, timeout: float = 10.0) -> None:
        """Return when so many events of a topic have come."""
        deadline = time.monotonic() + timeout
        while sum(t == topic for t, _ in self.received) < count:
            assert time.monotonic() < deadline, f"no {topic} among {[t for t, _ in self.received]}"
            time.sleep(0.005)

    @property
    def topics(self) -> list[str]:
        """The topics so far, without their prefix."""
        return [topic.removeprefix("/tasks/") for topic, _ in self.received]


def spec(args: list[str], terminal: bool = False, **more: Any) -> dict[str, Any]:
    """Return a spec that runs busybox from the bundle's rootfs."""
    caps = ["CAP_KILL", "CAP_CHOWN"]
    process = {
        "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps),
    }
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
            },
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": {"devices": [{"allow": True, "access": "rwm"}]},
        },
        **more,
    }


class Shim:
    """One shim and the container of its bundle."""

    def __init__(
        self, state: Path, zygote: ForkingZygote, sink: EventSink, entry: str, id: str, namespace: str = "test"
    ) -> None:
        self.id, self.namespace, self.sink, self.state = id, namespace, sink, state
        self.bundle = state / "io.containerd.runtime.v2.task" / namespace / id
        self.bundle.mkdir(parents=True)
        self.socket_path = state / f"{id}.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self.socket_path))
            listener.listen()
            self.child: Child = zygote.spawn(
                entry,
                [str(self.bundle), namespace, id, "/grpc", str(sink.path), "info"],
                [listener.fileno()],
            )
        self.client = Client(str(self.socket_path))

    def make_bundle(self, args: list[str], terminal: bool = False, **more: Any) -> None:
        """Write config.json and a rootfs with busybox."""
        document = spec(args, terminal, **more)
        document["linux"].setdefault("cgroupsPath", groups.path_of(f"{self.state.name}-{self.id}"))
        (self.bundle / "config.json").write_text(json.dumps(document))
        binaries = self.bundle / "rootfs" / "bin"
        binaries.mkdir(parents=True, exist_ok=True)
        for name in ("proc", "dev"):
            (self.bundle / "rootfs" / name).mkdir(exist_ok=True)
        if not (binaries / "busybox").exists():
            os.link(BUSYBOX, binaries / "busybox") if same_device(BUSYBOX.parent, binaries) else copy(binaries)
            for name in ("sh", "cat", "true", "sleep", "echo", "stty", "tty", "yes", "head", "seq", "sha256sum"):
                (binaries / name).symlink_to("busybox")

    def call(self, kind: type[M], method: str, message: Message) -> M:
        """Call the shim."""
        return self.client.call(kind, method, message)

    def create(self, args: list[str], terminal: bool = False, **fields: Any) -> int:
        """Make the bundle and create the container; returns the pid."""
        self.make_bundle(args, terminal)
        request = messages.CreateTaskRequest(id=self.id, bundle=str(self.bundle), terminal=terminal, **fields)
        return self.call(messages.PidResponse, "Create", request).pid

    def start(self, exec_id: str = "") -> int:
        """Start a process."""
        request = messages.ProcessRequest(id=self.id, exec_id=exec_id)
        return self.call(messages.PidResponse, "Start", request).pid

    def wait(self, exec_id: str = "") -> int:
        """Wait for a process and return its exit status."""
        request = messages.ProcessRequest(id=self.id, exec_id=exec_id)
        return self.call(messages.WaitResponse, "Wait", request).exit_status

    def delete(self, exec_id: str = "") -> messages.DeleteResponse:
        """Delete a process."""
        return self.call(messages.DeleteResponse, "Delete", messages.ProcessRequest(id=self.id, exec_id=exec_id))

    def kill(self, signal: int, exec_id: str = "", all: bool = False) -> None:
        """Send a signal."""
        self.call(Message, "Kill", messages.KillRequest(id=self.id, exec_id=exec_id, signal=signal, all=all))

    def exec(self, exec_id: str, args: list[str], terminal: bool = False, **fields: Any) -> None:
        """Add an exec."""
        process = json.dumps(spec(args, terminal)["process"]).encode()
        any_spec = messages.AnyMessage(type_url="types.containerd.io/…/Process", value=process)
        request = messages.ExecProcessRequest(id=self.id, exec_id=exec_id, terminal=terminal, spec=any_spec, **fields)
        self.call(Message, "Exec", request)

    def status(self, exec_id: str = "") -> messages.StateResponse:
        """Describe a process."""
        return self.call(messages.StateResponse, "State", messages.ProcessRequest(id=self.id, exec_id=exec_id))

    def fifo(self, name: str) -> str:
        """Make a FIFO and return its path."""
        path = self.state / f"{self.id}-{name}"
        os.mkfifo(path)
        return str(path)

    def workers(self) -> list[int]:
        """Return the process that serves, none when all rests."""
        found = []
        for pid in Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{pid}/comm").read_text() == "windlass-serves\n":
                    found.append(int(pid))
        return found

    def rest(self) -> None:
        """Return when nobody serves."""
        deadline = time.monotonic() + 10
        while self.workers():
            assert time.monotonic() < deadline, "the worker does not rest"
            time.sleep(0.01)

    def shutdown(self) -> bool:
        """Ask the shim to end, and tell whether it did."""
        self.call(Message, "Shutdown", messages.ShutdownRequest(id=self.id))
        return is_readable(self.child.pidfd, 5)

    def close(self) -> None:
        """Remove whatever is left, by force."""
        if not is_readable(self.child.pidfd, 0):
            try:
                self.client.close()
                self.client = Client(str(self.socket_path))
                for clean in (lambda: self.kill(9), self.wait, self.delete, self.shutdown):
                    try:
                        clean()
                    except Exception as error:
                        _ = error
            except OSError:
                pass
        try:
            os.kill(self.child.pid, 9)
        except ProcessLookupError:
            pass
        self.client.close()
        os.close(self.child.pidfd)


def same_device(one: Path, other: Path) -> bool:
    """Whether a hard link is possible."""
    return one.stat().st_dev == other.stat().st_dev


def copy(binaries: Path) -> None:
    """Copy busybox."""
    (binaries / "busybox").write_bytes(BUSYBOX.read_bytes())
    (binaries / "busybox").chmod(0o755)


OWN = "windlass-oci"
IS_OWN = os.environ.get("WINDLASS_TEST_RUNTIME", "") == OWN
"""Whether the tests run once more with our own OCI runtime instead of runc: all of them, by hand."""

OWN_ENTRY = "windlass_shim_runc.entry:serve_own"
ENTRY = OWN_ENTRY if IS_OWN else "windlass_shim_runc.entry:serve"
ALWAYS_RESTING = "shim_runc.always_resting:serve"
"""One whose workers end whenever nothing is under way for a moment."""


@contextmanager
def shims(state: Path, entry: str = ENTRY) -> Iterator[Any]:
    """Yield a function that makes shims; all are gone afterwards."""
    zygote = ForkingZygote()
    zygote.preload([entry.partition(":")[0]])
    sink = EventSink(state / "events.sock")
    made: list[Shim] = []

    def make(id: str = "one", namespace: str = "test") -> Shim:
        shim = Shim(state, zygote, sink, entry, id, namespace)
        made.append(shim)
        return shim

    try:
        yield make
    finally:
        for shim in made:
            shim.close()
        zygote.close()
        sink.stop()
