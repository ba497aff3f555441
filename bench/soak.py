"""Measures whether the daemon ends where it began: memory, descriptors and threads before and after many of everything.

python bench/soak.py [--scale F] [--only NAME…] [--json FILE]     (as root; Debian packages as for start.py, and
docker-registry)

Each load runs once at a tenth of its size first, so that what is imported and started once does not count. Then
the daemon is looked at, the load runs at full size, and the daemon is looked at again: at once, and when it has had
time to settle. ``--scale 0.1`` makes every load a tenth.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pull
from daemons import DEMO_IMAGE, IMAGE, Daemon, remove_tree, windlassd
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from runtime import end, sleep

from windlass_api.containerd.services.containers.v1 import containers_pb2 as containers
from windlass_api.containerd.services.containers.v1.containers_pb2_grpc import ContainersStub
from windlass_api.containerd.services.content.v1 import content_pb2 as content
from windlass_api.containerd.services.content.v1.content_pb2_grpc import ContentStub
from windlass_api.containerd.services.events.v1 import events_pb2 as events
from windlass_api.containerd.services.events.v1.events_pb2_grpc import EventsStub
from windlass_api.containerd.services.images.v1 import images_pb2 as images
from windlass_api.containerd.services.images.v1.images_pb2_grpc import ImagesStub
from windlass_api.containerd.services.leases.v1 import leases_pb2 as leases
from windlass_api.containerd.services.leases.v1.leases_pb2_grpc import LeasesStub
from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2 as namespaces
from windlass_api.containerd.services.namespaces.v1.namespaces_pb2_grpc import NamespacesStub
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2 as snapshots
from windlass_api.containerd.services.snapshots.v1.snapshots_pb2_grpc import SnapshotsStub
from windlass_api.containerd.services.tasks.v1 import tasks_pb2 as tasks
from windlass_api.containerd.services.tasks.v1.tasks_pb2_grpc import TasksStub
from windlass_api.containerd.services.version.v1.version_pb2_grpc import VersionStub

RESULTS = Path(__file__).parent / "results" / "soak.json"
WARM_UP = 0.1
SETTLE = 5.0
"""Seconds after a load; threads and connections that are let go of end in that time."""
AT_ONCE = 8
IN_FLIGHT = 64
SUBSCRIBERS_EACH = 100
"""Subscriptions on one connection."""
LARGE = 15 << 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2 says first, with empty SETTINGS."""
TIMEOUT = 120.0
UNANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
ABSENT = "sha256:" + "0" * 64

Load = Callable[[Daemon, int], None]
# Any: answers are of many types, and only whether there is one matters.
Begun: TypeAlias = "grpc.Future[Any]"


@dataclass(frozen=True)
class State:
    """What the daemon's process has."""

    rss_mb: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, daemon: Daemon) -> State:
        """Look at a daemon."""
        process = Path(f"/proc/{daemon.pid}")
        lines = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        resident = int(lines["VmRSS"].split()[0]) / 1024
        return cls(resident, len(list((process / "fd").iterdir())), int(lines["Threads"]))


# Loads


def cheap_calls(daemon: Daemon, count: int) -> None:
    """Make ``count`` of each call that touches at most one row, most of which fail."""
    with connection(daemon) as channel:
        wanted: list[tuple[Callable[..., Begun], Message]] = [
            (VersionStub(channel).Version.future, Empty()),
            (ContainersStub(channel).Get.future, containers.GetContainerRequest(id="absent")),
            (ContainersStub(channel).Delete.future, containers.DeleteContainerRequest(id="absent")),
            (ContainersStub(channel).Create.future, containers.CreateContainerRequest()),
            (ImagesStub(channel).Get.future, images.GetImageRequest(name="absent")),
            (ContentStub(channel).Info.future, content.InfoRequest(digest=ABSENT)),
            (ContentStub(channel).Info.future, content.InfoRequest(digest="no digest")),
            (SnapshotsStub(channel).Stat.future, snapshots.StatSnapshotRequest(snapshotter="overlayfs", key="absent")),
            (SnapshotsStub(channel).Stat.future, snapshots.StatSnapshotRequest(snapshotter="absent", key="absent")),
            (TasksStub(channel).Get.future, tasks.GetRequest(container_id="absent")),
            (TasksStub(channel).Wait.future, tasks.WaitRequest(container_id="absent")),
            (LeasesStub(channel).List.future, leases.ListRequest()),
            (NamespacesStub(channel).Get.future, namespaces.GetNamespaceRequest(name="absent")),
            (channel.unary_unary("/none.None/None", Empty.SerializeToString).future, Empty()),
        ]
        for call, request in wanted:
            many(partial(call, request, metadata=namespace(daemon), timeout=TIMEOUT), count)


def many(begin: Callable[[], Begun], count: int) -> None:
    """Make calls, so many of them at a time; how they end does not matter as long as there is an answer."""
    under_way: deque[Begun] = deque()
    for _ in range(count):
        under_way.append(begin())
        if len(under_way) == IN_FLIGHT:
            answered(under_way.popleft())
    for call in under_way:
        answered(call)


def answered(call: Begun) -> None:
    """Wait for a call. Raises RpcError when no server answered it."""
    error: object = call.exception()
    if isinstance(error, grpc.Call) and error.code() in UNANSWERED:
        call.result()


def large_errors(daemon: Daemon, count: int) -> None:
    """Have requests of 15 MiB refused."""
    request = containers.CreateContainerRequest(container=containers.Container(id="/refused/"))
    request.container.spec.value = bytes(LARGE)
    with connection(daemon) as channel:
        create = ContainersStub(channel).Create
        for _ in range(count):
            answered(create.future(request, metadata=namespace(daemon), timeout=TIMEOUT))


def crowds(daemon: Daemon, count: int) -> None:
    """Run ``count`` containers at once, and remove them."""
    in_parallel(lambda number: sleep(daemon, f"m{number}"), count)
    in_parallel(lambda number: end(daemon, f"m{number}"), count)


def execs(daemon: Daemon, count: int) -> None:
    """Run further processes in one container."""
    fifos = str(daemon.scratch / "fifo")
    sleep(daemon, "execs")
    in_parallel(
        lambda number: daemon.run(
            "tasks", "exec", "--fifo-dir", fifos, "--exec-id", f"e{number}", "execs", "/bin/true"
        ),
        count,
    )
    end(daemon, "execs")


def pulls(daemon: Daemon, count: int, reference: str) -> None:
    """Pull an image, and remove it with all that came with it."""
    for _ in range(count):
        pull.transfer(daemon, reference)
        daemon.run("images", "rm", "--sync", reference)


def subscribers(daemon: Daemon, count: int) -> None:
    """Subscribe, see an event, and leave."""
    with contextlib.ExitStack() as stack:
        streams = []
        for number in range(count):
            if number % SUBSCRIBERS_EACH == 0:
                channel = stack.enter_context(connection(daemon))
            stream = EventsStub(channel).Subscribe(events.SubscribeRequest(), metadata=namespace(daemon))
            stack.callback(stream.cancel)
            streams.append(stream)
        time.sleep(1 + count / 1000)  # nothing says when a subscription has begun
        image = images.Image(name="example.org/event:1")
        image.target.digest, image.target.size, image.target.media_type = ABSENT, 1, "application/octet-stream"
        stub = ImagesStub(stack.enter_context(connection(daemon)))
        stub.Create(images.CreateImageRequest(image=image), metadata=namespace(daemon), timeout=TIMEOUT)
        for stream in streams:
            next(stream)
        stub.Delete(images.DeleteImageRequest(name=image.name), metadata=namespace(daemon), timeout=TIMEOUT)


def idle_connections(daemon: Daemon, count: int) -> None:
    """Connect, say no more than that it is HTTP/2, and leave."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.connect(daemon.address)
            peer.sendall(PREFACE)
            peer.recv(1024)  # the daemon's settings: it has taken the connection
        print(f"{count:>20} open: {shown(State.of(daemon))}")


@contextlib.contextmanager
def connection(daemon: Daemon) -> Iterator[grpc.Channel]:
    """Connect to a daemon, by a connection of one's own."""
    with grpc.insecure_channel(
        f"unix:{daemon.address}", [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    ) as channel:
        yield channel


def namespace(daemon: Daemon) -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata of a call."""
    return (("containerd-namespace", daemon.namespace),)


def in_parallel(action: Callable[[int], object], count: int) -> None:
    """Do something ``count`` times, a few at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(action, range(count)))


# Measuring


def measure(only: Sequence[str], scale: float) -> dict[str, object]:
    """Run the loads one after the other on one daemon."""
    with tempfile.TemporaryDirectory(prefix="windlass-soak.") as name, contextlib.ExitStack() as stack:
        scratch = Path(name)
        stack.callback(clean, scratch)
        reference = stack.enter_context(served_image(scratch)) if not only or "pulls" in only else ""
        archive = scratch / "image.tar"
        busybox = shutil.which("busybox") or "/bin/busybox"
        subprocess.run([sys.executable, str(DEMO_IMAGE), str(archive), IMAGE, busybox], check=True)
        (scratch / "daemon").mkdir()
        daemon = windlassd(scratch / "daemon")
        stack.callback(daemon.stop)
        daemon.run("images", "import", str(archive))
        loads: dict[str, tuple[Load, int]] = {
            "calls": (cheap_calls, 50_000),
            "large errors": (large_errors, 200),
            "containers": (crowds, 500),
            "execs": (execs, 1_000),
            "pulls": (partial(pulls, reference=reference), 200),
            "subscribers": (subscribers, 2_000),
            "connections": (idle_connections, 5_000),
        }
        found = {}
        for name, (load, count) in loads.items():
            if not only or name in only:
                found[name] = soak(daemon, name, load, max(1, round(count * scale)))
        return {
            "machine": {"linux": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()},
            "scale": scale,
            "loads": found,
        }


def soak(daemon: Daemon, name: str, load: Load, count: int) -> dict[str, object]:
    """Run one load and print what it leaves."""
    load(daemon, max(1, round(count * WARM_UP)))
    time.sleep(SETTLE)
    before, begin = State.of(daemon), time.perf_counter()
    load(daemon, count)
    took, at_once = time.perf_counter() - begin, State.of(daemon)
    time.sleep(SETTLE)
    after = State.of(daemon)
    states = {"before": before, "at_once": at_once, "after": after}
    print(f"{name:<13} {count:>6}, {took:>5.0f} s  " + "  ".join(map(shown, states.values())), flush=True)
    return {"count": count, "seconds": took, **{when: asdict(state) for when, state in states.items()}}


def shown(state: State) -> str:
    """Return a state as a part of a line."""
    return f"{state.rss_mb:>7.1f} MB {state.descriptors:>5} fds {state.threads:>4} threads"


@contextlib.contextmanager
def served_image(scratch: Path) -> Iterator[str]:
    """Serve an image of 5 MB from a registry on this machine."""
    layers = pull.build(scratch, "5 MB")
    with pull.registry(scratch / "registry") as address:
        yield pull.push(address, "5 MB", layers)


def clean(scratch: Path) -> None:
    """Remove everything but the directory, which is its maker's."""
    remove_tree(scratch)
    scratch.mkdir()


def main() -> int:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="the size of every load (default 1)")
    loads = "calls, large errors, containers, execs, pulls, subscribers, connections"
    parser.add_argument("--only", nargs="*", default=(), help=f"of {loads}")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (default %(default)s)")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("containers need root")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(f"{'load':<30} {'before':<32} {'at once':<32} after {SETTLE:.0f} s")
    report = measure(options.only, options.scale)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
