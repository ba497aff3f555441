"""Measures the stores: writes of metadata, one large blob, and what many blobs and images cost.

python bench/stores.py [--only NAME…] [--blobs N] [--json FILE]     (as root; Debian packages as for start.py)

Windlass and Debian's containerd take turns, the client is the same for both. Many blobs are kept in memory (tmpfs):
containerd gets them by its API, which takes two minutes for 100,000, Windlass as files and rows while it is stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from daemons import Daemon, both

from windlass_api.containerd.services.content.v1 import content_pb2
from windlass_api.containerd.services.content.v1.content_pb2_grpc import ContentStub
from windlass_api.containerd.services.images.v1 import images_pb2
from windlass_api.containerd.services.images.v1.images_pb2_grpc import ImagesStub
from windlass_api.containerd.services.leases.v1 import leases_pb2
from windlass_api.containerd.services.leases.v1.leases_pb2_grpc import LeasesStub
from windlass_api.containerd.types.descriptor_pb2 import Descriptor

RESULTS = Path(__file__).parent / "results" / "stores.json"
CLIENTS = (1, 8, 64)
WRITES = 1200
LARGE = 1 << 30
TIMEOUT = 120.0
MANY = "many"
MEMORY = Path("/dev/shm")
"""Where many blobs are written in minutes; what is asked of them afterwards does not wait for a disk."""
ROOT = {"containerd.io/gc.root": "bench"}

Figures = dict[str, float]


class Client:
    """One connection to a daemon, in a namespace of the benchmark's."""

    def __init__(self, daemon: Daemon, namespace: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)]
        self.channel = grpc.insecure_channel(f"unix:{daemon.address}", options)
        self.metadata = (("containerd-namespace", namespace),)
        self.images, self.content = ImagesStub(self.channel), ContentStub(self.channel)
        self.leases = LeasesStub(self.channel)

    def image(self, name: str, digest: str) -> None:
        """Create an image."""
        target = Descriptor(media_type="application/vnd.oci.image.manifest.v1+json", digest=digest, size=1)
        request = images_pb2.CreateImageRequest(image=images_pb2.Image(name=name, target=target))
        self.images.Create(request, metadata=self.metadata, timeout=TIMEOUT)

    def blob(self, data: bytes) -> str:
        """Write a small blob and return its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        request = content_pb2.WriteContentRequest(
            action=content_pb2.COMMIT, ref=digest, total=len(data), expected=digest, data=data, labels=ROOT
        )
        list(self.content.Write(iter([request]), metadata=self.metadata, timeout=TIMEOUT))
        return digest

    def list_blobs(self) -> None:
        """Have all blobs described."""
        list(self.content.List(content_pb2.ListContentRequest(), metadata=self.metadata, timeout=TIMEOUT))

    def list_images(self) -> None:
        """Have all images described."""
        self.images.List(images_pb2.ListImagesRequest(), metadata=self.metadata, timeout=TIMEOUT)

    def info(self, digest: str) -> None:
        """Have a blob described."""
        self.content.Info(content_pb2.InfoRequest(digest=digest), metadata=self.metadata, timeout=TIMEOUT)

    def delete(self, digest: str) -> None:
        """Delete a blob."""
        request = content_pb2.DeleteContentRequest(digest=digest)
        self.content.Delete(request, metadata=self.metadata, timeout=TIMEOUT)

    def collect(self) -> None:
        """Have garbage collected."""
        name = f"gc-{time.monotonic_ns()}"
        self.leases.Create(leases_pb2.CreateRequest(id=name), metadata=self.metadata, timeout=TIMEOUT)
        self.leases.Delete(leases_pb2.DeleteRequest(id=name, sync=True), metadata=self.metadata, timeout=TIMEOUT)

    def close(self) -> None:
        """End the connection."""
        self.channel.close()


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def writes(daemon: Daemon, clients: int, round: int) -> float:
    """Return images created in a second by so many clients at once."""
    connections = [Client(daemon, "writes") for _ in range(clients)]
    digest = "sha256:" + "0" * 64
    each = WRITES // clients

    def work(number: int) -> None:
        for count in range(each):
            connections[number].image(f"image-{round}-{clients}-{number}-{count}", digest)

    for number, connection in enumerate(connections):
        connection.image(f"first-{round}-{clients}-{number}", digest)
    with ThreadPoolExecutor(clients) as pool:
        took = seconds(lambda: list(pool.map(work, range(clients))))
    for connection in connections:
        connection.close()
    return each * clients / took


def metadata(daemons: Sequence[Daemon], rounds: int = 3) -> dict[str, Figures]:
    """Return creations of images in a second, by the number of clients."""
    found: dict[str, dict[str, list[float]]] = {daemon.name: {} for daemon in daemons}
    for round in range(rounds):
        for clients in CLIENTS:
            for daemon in daemons:
                found[daemon.name].setdefault(f"clients_{clients}", []).append(writes(daemon, clients, round))
    return {name: {key: statistics.median(each) for key, each in row.items()} for name, row in found.items()}


def transfer(daemon: Daemon, path: Path, digest: str) -> tuple[float, float]:
    """Return the seconds that a file needs into the daemon and out of it; afterwards it is gone from there."""
    ingest = daemon.ctr("content", "ingest", "--expected-digest", digest, "large")
    begin = time.perf_counter()
    with path.open("rb") as file:
        subprocess.run(ingest, stdin=file, check=True, capture_output=True)
    middle = time.perf_counter()
    subprocess.run(daemon.ctr("content", "get", digest), stdout=subprocess.DEVNULL, check=True)
    end = time.perf_counter()
    daemon.run("content", "rm", digest)
    client = Client(daemon, daemon.namespace)
    client.collect()
    client.close()
    return middle - begin, end - middle


def large(daemons: Sequence[Daemon], rounds: int = 3) -> dict[str, Figures]:
    """Return the seconds that `ctr content ingest` and `get` need for a blob of 1 GiB."""
    found: dict[str, dict[str, list[float]]] = {daemon.name: {"ingest": [], "get": []} for daemon in daemons}
    with tempfile.TemporaryDirectory(prefix="windlass-large-") as directory:
        path = Path(directory) / "large"
        sum = hashlib.sha256()
        with path.open("wb") as file:
            for _ in range(LARGE >> 20):
                piece = os.urandom(1 << 20)
                sum.update(piece)
                file.write(piece)
        digest = f"sha256:{sum.hexdigest()}"
        for _ in range(rounds):
            for daemon in daemons:
                ingest, get = transfer(daemon, path, digest)
                found[daemon.name]["ingest"].append(ingest)
                found[daemon.name]["get"].append(get)
    return {name: {key: statistics.median(each) for key, each in row.items()} for name, row in found.items()}


def fill(daemon: Daemon, have: list[str], size: int) -> None:
    """Write blobs until there are ``size``, and an image for every tenth of the new ones."""
    first = len(have)
    if daemon.name == "windlass":
        have += fill_at_rest(daemon, range(first, size))
        return
    client = Client(daemon, MANY)
    with ThreadPoolExecutor(8) as pool:
        have += pool.map(lambda number: client.blob(b"%d" % number), range(first, size))
        list(pool.map(lambda number: client.image(f"image-{number}", have[number]), range(first, size, 10)))
    client.close()


def fill_at_rest(daemon: Daemon, numbers: range) -> list[str]:
    """Add to a daemon that is stopped for it, by files and rows, what `fill` would by calls."""
    daemon.process.terminate()
    daemon.process.wait(TIMEOUT)
    blobs = daemon.scratch / "root" / "io.containerd.content.v1.content" / "blobs" / "sha256"
    data = [b"%d" % number for number in numbers]
    names = [hashlib.sha256(each).hexdigest() for each in data]
    for name, each in zip(names, data, strict=True):
        (blobs / name).write_bytes(each)
    now, labels = time.time_ns(), json.dumps(ROOT)
    digests = [f"sha256:{name}" for name in names]
    content = [(MANY, digest, len(each), labels, now, now) for digest, each in zip(digests, data, strict=True)]
    kind = "application/vnd.oci.image.manifest.v1+json"
    images = [
        (MANY, f"image-{number}", kind, digests[at], 1, "{}", "{}", now, now)
        for at, number in enumerate(numbers)
        if at % 10 == 0
    ]
    rows = sqlite3.connect(daemon.scratch / "root" / "io.containerd.metadata.v1.bolt" / "meta.db")
    with contextlib.closing(rows), rows:
        rows.execute("INSERT OR IGNORE INTO namespaces (name) VALUES (?)", (MANY,))
        rows.executemany("INSERT INTO content VALUES (?, ?, ?, ?, ?, ?)", content)
        rows.executemany(
            "INSERT INTO images"
            " (namespace, name, media_type, digest, size, annotations, labels, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            images,
        )
    daemon.start()
    return digests


def ask(client: Client, digest: str) -> Figures:
    """Return the milliseconds of some calls."""
    calls: dict[str, Callable[[], object]] = {
        "list_blobs": client.list_blobs,
        "list_images": client.list_images,
        "info": lambda: client.info(digest),
        "collect": client.collect,
    }
    found = {name: statistics.median(seconds(call) * 1000 for _ in range(5)) for name, call in calls.items()}
    found["delete"] = seconds(lambda: client.delete(digest)) * 1000
    return {**found, "collect_after_one_delete": seconds(client.collect) * 1000}


def many(daemons: Sequence[Daemon], blobs: int) -> dict[str, Figures]:
    """Return milliseconds of some calls with a tenth of so many blobs, and with all; a tenth as many images."""
    have: dict[str, list[str]] = {daemon.name: [] for daemon in daemons}
    found: dict[str, Figures] = {daemon.name: {} for daemon in daemons}
    for size in (blobs // 10, blobs):
        for daemon in daemons:
            took = seconds(lambda daemon=daemon, size=size: fill(daemon, have[daemon.name], size))  # type: ignore[misc]  # defaults bind the loop's variables
            print(f"{daemon.name}: filled to {size} blobs in {took:.0f} s", flush=True)
        for daemon in daemons:
            client = Client(daemon, MANY)
            asked = ask(client, have[daemon.name][-5])
            client.close()
            found[daemon.name] |= {f"{what} with {size} blobs": value for what, value in asked.items()}
    return found


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=["metadata", "large", "many"])
    parser.add_argument("--blobs", type=int, default=100_000)
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    report: dict[str, dict[str, Figures]] = {}
    measures: dict[str, Callable[[Sequence[Daemon]], dict[str, Figures]]] = {
        "metadata": metadata,
        "large": large,
        "many": lambda daemons: many(daemons, options.blobs),
    }
    for name in options.only:
        place = MEMORY if name == "many" and MEMORY.is_mount() else None
        with both(Path(tempfile.mkdtemp(prefix="windlass-stores-", dir=place))) as daemons:
            load = os.getloadavg()
            report[name] = {**measures[name](daemons), "load before": dict(zip(("1", "5", "15"), load, strict=True))}
        for key, ours in report[name]["windlass"].items():
            theirs = report[name]["containerd"][key]
            print(f"{key:42} windlass {ours:10.2f}   containerd {theirs:10.2f}   ratio {ours / theirs:.2f}", flush=True)
    options.json.parent.mkdir(exist_ok=True)
    before = json.loads(options.json.read_text()) if options.json.exists() else {}
    options.json.write_text(json.dumps({**before, **report}, indent=2) + "\n")


if __name__ == "__main__":
    main()
