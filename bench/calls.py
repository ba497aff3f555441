"""Measures single calls and lists: everything that a client can ask of the API of containerd, and events.

python bench/calls.py [--theirs ADDRESS] [--rounds N] [--records N] [--only NAME …] [--json FILE]      (as root)

What is asked besides containers and images is in questions.py; of CRI in kubelet.py.

windlassd and Debian's containerd, or the daemon that listens on ADDRESS and has process --pid, take turns. The
client is this process, which sends bytes that it has prepared and looks only for the end of each answer: it takes
some 10 µs of a call. Processor time is the daemon's own, all threads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
from daemons import DEMO_IMAGE, IMAGE, Daemon, containerd, remove_tree, windlassd
from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from questions import SERVICES, fill_more, questions
from questions import image as image_name

from windlass_api.containerd.services.containers.v1 import containers_pb2, containers_pb2_grpc
from windlass_api.containerd.services.events.v1 import events_pb2, events_pb2_grpc
from windlass_api.containerd.services.images.v1 import images_pb2, images_pb2_grpc

RESULTS = Path(__file__).parent / "results" / "calls.json"
NAMESPACE = "bench-calls"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WHOLE = (1 << 31) - 1
DATA, HEADERS, SETTINGS, PING, GOAWAY, UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CONNECTIONS = 4
FIELDS = 7
"""Headers of a call."""
TIMEOUT = 60.0
TASKS = 20
"""Containers that run."""
SPEC = 4 << 10
"""Bytes of a container's spec, such as ctr writes."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header that the peer keeps in its table; both parts are shorter than 127 bytes."""
    return b"\x40" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Wire:
    """One connection that makes one call, always the same, again and again."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(address)
        settings = struct.pack(">HIHI", 4, WHOLE, 5, 1 << 20)
        self.socket.sendall(
            PREFACE + frame(SETTINGS, 0, 0, settings) + frame(UPDATE, 0, 0, struct.pack(">I", WHOLE - 65535))
        )
        self._stream = -1
        self._rest = b""
        self.received = 0

    def prepare(self, path: str, message: Message, namespace: str = NAMESPACE) -> tuple[bytes, bytes]:
        """Return the payloads of a call's two frames."""
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"localhost"),
        ]
        fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
        fields += [(b"containerd-namespace", namespace.encode())]
        data = message.SerializeToString()
        return b"".join(literal(*each) for each in fields), struct.pack(">BI", 0, len(data)) + data

    def send(self, call: tuple[bytes, bytes]) -> None:
        """Begin a call."""
        self._stream += 2
        headers, data = call
        if self._stream > 1:  # by their numbers in the table, as every client does
            headers = bytes(0x80 | 61 + number for number in range(FIELDS, 0, -1))
        stream = self._stream
        self.socket.sendall(frame(HEADERS, END_HEADERS, stream, headers) + frame(DATA, END_STREAM, stream, data))

    def take(self) -> bool:
        """Read once; return whether the call has ended."""
        data = self._rest + self.socket.recv(1 << 20) if self._rest else self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the daemon has closed the connection")
        at, ended = 0, False
        while len(data) - at >= 9:
            size = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            if len(data) - at < 9 + size:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == DATA:
                self.received += size
            if kind in (DATA, HEADERS):
                ended = ended or bool(flags & END_STREAM)
            elif kind == SETTINGS and not flags & ACK:
                self.socket.sendall(frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                self.socket.sendall(frame(PING, ACK, 0, data[at + 9 : at + 9 + size]))
            elif kind not in (SETTINGS, PING, UPDATE):
                raise ConnectionError(f"frame {kind}: {data[at + 9 : at + 9 + size]!r}")
            at += 9 + size
        self._rest = data[at:]
        if self.received > WHOLE // 2:
            self.socket.sendall(frame(UPDATE, 0, 0, struct.pack(">I", self.received)))
            self.received = 0
        return ended

    def call(self, call: tuple[bytes, bytes]) -> None:
        """Make a call."""
        self.send(call)
        while not self.take():
            pass


@dataclass
class Contender:
    """A daemon and what was measured of it."""

    name: str
    address: str
    pid: int
    namespace: str = NAMESPACE
    figures: dict[str, list[float]] = field(default_factory=dict)

    def used(self) -> float:
        """Return the daemon's processor time in microseconds."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1000

    def note(self, name: str, value: float) -> None:
        """Keep a figure of this round."""
        self.figures.setdefault(name, []).append(value)

    def channel(self) -> grpc.Channel:
        """Return a connection of grpc's."""
        options = (("grpc.default_authority", "localhost"),)
        return grpc.insecure_channel(f"unix:{self.address}", options=options)


def one_by_one(daemon: Contender, name: str, path: str, message: Message, calls: int) -> None:
    """Measure calls that wait for each other, then those of several connections at once."""
    wires = [Wire(daemon.address) for _ in range(CONNECTIONS)]
    call = wires[0].prepare(path, message, daemon.namespace)
    for wire in wires:
        wire.call(call)
    times = []
    before = daemon.used()
    for _ in range(calls):
        begin = time.perf_counter()
        wires[0].call(call)
        times.append((time.perf_counter() - begin) * 1e6)
    daemon.note(f"{name}: p50 µs", statistics.median(times))
    daemon.note(f"{name}: processor µs", (daemon.used() - before) / calls)
    daemon.note(f"{name}: calls/s of {CONNECTIONS}", rate(wires, call, 2 * calls))
    for wire in wires:
        wire.socket.close()


def rate(wires: list[Wire], call: tuple[bytes, bytes], calls: int) -> float:
    """Return how many calls a second several connections get."""
    by_number = {wire.socket.fileno(): wire for wire in wires}
    poll = select.poll()
    for number in by_number:
        poll.register(number, select.POLLIN)
    begin, done = time.perf_counter(), 0
    for wire in wires:
        wire.send(call)
    while done < calls:
        for number, _ in poll.poll(30_000):
            if by_number[number].take():
                done += 1
                by_number[number].send(call)
    took = time.perf_counter() - begin
    for wire in wires:
        while not wire.take():
            pass
    return done / took


CONTAINERS = "/containerd.services.containers.v1.Containers"
IMAGES = "/containerd.services.images.v1.Images"
MEASURES: dict[str, Callable[[Contender], None]] = {
    "version": lambda one: one_by_one(one, "Version", "/containerd.services.version.v1.Version/Version", Empty(), 2000),
    "get": lambda one: one_by_one(
        one, "Containers.Get", f"{CONTAINERS}/Get", containers_pb2.GetContainerRequest(id="box-7"), 2000
    ),
    "containers": lambda one: one_by_one(
        one, "list of containers", f"{CONTAINERS}/List", containers_pb2.ListContainersRequest(), 20
    ),
    "filtered": lambda one: one_by_one(
        one,
        "list of containers, by a label that a tenth has",
        f"{CONTAINERS}/List",
        containers_pb2.ListContainersRequest(filters=['labels."tenth"==yes']),
        20,
    ),
    "images": lambda one: one_by_one(one, "list of images", f"{IMAGES}/List", images_pb2.ListImagesRequest(), 20),
    "events": lambda one: events(one),
}
MEASURES |= {
    name: partial(one_by_one, name=name, path=f"{SERVICES}{path}", message=message, calls=calls)
    for name, path, message, calls in questions()
}


def events(daemon: Contender, count: int = 300) -> None:
    """Measure events by the calls that cause them: containers that are made and deleted, and events of clients."""
    metadata = (("containerd-namespace", daemon.namespace),)
    with daemon.channel() as channel, daemon.channel() as other:
        stub = events_pb2_grpc.EventsStub(channel)
        containers = containers_pb2_grpc.ContainersStub(other)
        for name, topic in (("containers", "/containers/create"), ("published", "/bench")):
            stream = stub.Subscribe(
                events_pb2.SubscribeRequest(filters=[f'topic=="{topic}"']), metadata=metadata, timeout=TIMEOUT
            )
            time.sleep(0.2)
            futures: list[Callable[[], object]]
            before, begin = daemon.used(), time.perf_counter()
            if name == "containers":
                futures = [
                    containers.Create.future(
                        containers_pb2.CreateContainerRequest(container=container(f"event-{begin:.6f}-{number}")),
                        metadata=metadata,
                    ).result
                    for number in range(count)
                ]
            else:
                request = events_pb2.PublishRequest(topic=topic, event=Any(type_url="bench", value=b"x" * 64))
                publisher = events_pb2_grpc.EventsStub(other)
                futures = [publisher.Publish.future(request, metadata=metadata).result for _ in range(count)]
            for _ in zip(range(count), stream, strict=False):
                pass
            daemon.note(f"{name} events/s", count / (time.perf_counter() - begin))
            for result in futures:
                result()
            daemon.note(f"{name} events: processor µs", (daemon.used() - before) / count)
            stream.cancel()
        for each in containers.List(
            containers_pb2.ListContainersRequest(filters=["id~=event-"]), metadata=metadata
        ).containers:
            containers.Delete(containers_pb2.DeleteContainerRequest(id=each.id), metadata=metadata)


def container(id: str) -> containers_pb2.Container:
    """Return a container such as ctr makes."""
    made = containers_pb2.Container(id=id, image="docker.io/library/busybox:latest", snapshotter="overlayfs")
    made.snapshot_key = id
    made.labels.update({"io.containerd.image.config.stop-signal": "SIGTERM", "app": "bench"})
    if id.endswith("7"):
        made.labels["tenth"] = "yes"
    made.runtime.name = "io.containerd.runc.v2"
    made.runtime.options.type_url = "containerd.runc.v1.Options"
    made.spec.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
    made.spec.value = b'{"ociVersion":"1.2.0","process":{' + b"x" * SPEC + b"}}"
    return made


def fill(daemon: Contender, records: int) -> None:
    """Make containers and images."""
    metadata = (("containerd-namespace", daemon.namespace),)
    with daemon.channel() as channel:
        containers, images = containers_pb2_grpc.ContainersStub(channel), images_pb2_grpc.ImagesStub(channel)
        for number in range(records):
            request = containers_pb2.CreateContainerRequest(container=container(f"box-{number}"))
            image = images_pb2.Image(name=image_name(number), labels={"app": "bench"})
            image.target.media_type = "application/vnd.oci.image.index.v1+json"
            image.target.digest, image.target.size = "sha256:" + f"{number:064x}", 1234
            with contextlib.suppress(grpc.RpcError):  # a daemon that was here before
                containers.Create(request, metadata=metadata)
            with contextlib.suppress(grpc.RpcError):
                images.Create(images_pb2.CreateImageRequest(image=image), metadata=metadata)
        fill_more(channel, metadata, records)


def run(daemon: Daemon, scratch: Path) -> None:
    """Run containers."""
    archive = scratch / "image.tar"
    if not archive.exists():
        subprocess.run([sys.executable, str(DEMO_IMAGE), str(archive), IMAGE], check=True)
    daemon.run("images", "import", str(archive))
    for number in range(TASKS):
        daemon.run("run", "-d", IMAGE, f"run-{number}", "/bin/sleep", "86399")


@contextlib.contextmanager
def contenders(options: argparse.Namespace) -> Iterator[list[Contender]]:
    """Run the daemons that take part."""
    scratch = Path(tempfile.mkdtemp(prefix="windlass-calls-", dir=options.directory))
    with contextlib.ExitStack() as stack:
        stack.callback(remove_tree, scratch)
        found = []
        for start in (windlassd,) if options.theirs else (windlassd, containerd):
            (scratch / start.__name__).mkdir()
            daemon = start(scratch / start.__name__)
            stack.callback(daemon.stop)
            run(daemon, scratch)
            found.append(Contender(daemon.name, daemon.address, daemon.pid, daemon.namespace))
        for number, theirs in enumerate(options.theirs):
            address, _, pid = theirs.rpartition(":")
            found.append(Contender(f"other {number + 1}", address, int(pid)))
        yield found


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--theirs", nargs="*", default=[], metavar="ADDRESS:PID", help="daemons that run already")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--only", nargs="*", default=[*MEASURES])
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with contenders(options) as daemons:
        for daemon in daemons:
            fill(daemon, options.records)
        for _ in range(options.rounds):
            daemons.append(daemons.pop(0))
            for name in options.only:
                for daemon in daemons:
                    MEASURES[name](daemon)
    found = {one.name: {name: statistics.median(each) for name, each in one.figures.items()} for one in daemons}
    ours = found["windlass"]
    for name, value in ours.items():
        others = "".join(
            f"   {other} {row[name]:10.0f} ratio {value / row[name]:5.2f}"
            for other, row in found.items()
            if other != "windlass"
        )
        print(f"{name:62} windlass {value:10.0f}{others}")
    print(f"load before {load:.1f}, after {os.getloadavg()[0]:.1f}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"load": load, "daemons": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
