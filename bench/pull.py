"""Measures pulls from a registry on this machine: three images, on an empty ext4 and on tmpfs.

python bench/pull.py [--rounds N] [--only NAME] [--images DIRECTORY] [--json FILE]   (as root; packages as for
start.py, and docker-registry, isal)

Windlass, by its transfer service and driven by `ctr`, and Debian's containerd take turns, each time with an empty
root. Wall time is that of the client's command; processor time is the client's and that of the daemon's tree, whose
memory (proportional set size) is sampled. Their trees are compared, and single programs do the same work on the same
bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import grpc
import large_image
from daemons import Daemon, containerd, remove_tree, windlassd
from unpack import Tree, check_equal, facts, fresh_disk, seconds

from windlass.contracts.values import Descriptor
from windlass_api.containerd.services.transfer.v1.transfer_pb2 import TransferRequest
from windlass_api.containerd.services.transfer.v1.transfer_pb2_grpc import TransferStub
from windlass_api.containerd.types.platform_pb2 import Platform
from windlass_api.containerd.types.transfer.imagestore_pb2 import ImageStore
from windlass_api.containerd.types.transfer.registry_pb2 import OCIRegistry, RegistryResolver
from windlass_registry.client import Client

RESULTS = Path(__file__).parent / "results" / "pull.json"
IMAGES = {"5 MB": (1, 300, 5), "200 MB": (5, 20_000, 200), "800 MB": (12, 8_000, 800)}
"""Layers, files and megabytes before compression."""
WAYS = ("windlass", "windlass, cli", "windlass, ctr", "containerd")
"""By its transfer service alone, as a client in Go calls it; by its own command, which takes time to start; by ctr."""
TMPFS = 4 << 30
TIMEOUT = 300.0
SAMPLE = 0.05
CPUACCT = Path("/sys/fs/cgroup/cpuacct")


@dataclass
class Cost:
    """What one pull took: seconds of time and of processors, and bytes of memory at most."""

    wall: float
    cpu: float
    peak: int


def build(place: Path, name: str) -> list[Path]:
    """Write the packed layers of an image to ``place``, unless they are there."""
    count, files, size = IMAGES[name]
    layers = [place / f"{name.replace(' ', '')}-{number}.tar.gz" for number in range(count)]
    for number, path in enumerate(layers):
        if path.exists():
            continue
        with (
            path.open("wb") as sink,
            gzip.GzipFile("", "wb", 6, sink, mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for entry, data in large_image.members(number, files // count, size * 10**6 // count):
                tar.addfile(entry, BytesIO(data))
    return layers


def push(address: str, name: str, layers: list[Path]) -> str:
    """Push an image, and return its reference."""
    reference = f"{address}/bench/{name.replace(' ', '').lower()}:1"
    client = Client([])
    pusher = client.repository(reference, scheme="http").pusher()

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        pusher.push_blob(Descriptor("", digest, len(data)), lambda: data)
        return {"mediaType": f"{large_image.KIND}.{kind}", "digest": digest, "size": len(data)}

    described = [blob("layer.v1.tar+gzip", path.read_bytes()) for path in layers]
    diff_ids = []
    for path in layers:
        with gzip.open(path) as plain:
            diff_ids.append(f"sha256:{hashlib.file_digest(plain, 'sha256').hexdigest()}")
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    kind = f"{large_image.KIND}.manifest.v1+json"
    document = {"schemaVersion": 2, "mediaType": kind, "config": blob("config.v1+json", json.dumps(config).encode())}
    data = json.dumps({**document, "layers": described}).encode()
    pusher.push_manifest(Descriptor(kind, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)), data, "1")
    client.close()
    return reference


@contextlib.contextmanager
def registry(place: Path) -> Iterator[str]:
    """Run a docker-registry."""
    place.mkdir()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(place / "data")}},
        "http": {"addr": address},
    }
    (place / "config.yml").write_text(json.dumps(config))
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(place / "config.yml")], stdout=log, stderr=log)
    try:
        time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def on_tmpfs(place: Path) -> Iterator[Path]:
    """Mount an empty tmpfs."""
    mounted = place / "tmpfs"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS}", "none", str(mounted)], check=True)
    try:
        yield mounted
    finally:
        remove_tree(mounted / "daemon")
        subprocess.run(["umount", str(mounted)], check=True)
        mounted.rmdir()


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


@contextlib.contextmanager
def accounted(pid: int) -> Iterator[Path]:
    """Account for a tree of processes, also for those that it starts later. Workers may end meanwhile."""
    group = CPUACCT / f"windlass-bench-{os.getpid()}"
    group.mkdir()
    for each in family(pid):
        # some end at once, such as a runc that is asked for its version
        with contextlib.suppress(ProcessLookupError):
            (group / "cgroup.procs").write_text(str(each))
    try:
        yield group / "cpuacct.usage"
    finally:
        for left in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (CPUACCT / "cgroup.procs").write_text(left)
        group.rmdir()


def cpu_of(usage: Path) -> float:
    """Return the processor seconds so far."""
    return int(usage.read_text()) / 1e9


def memory_of(pid: int) -> int:
    """Return the proportional set size of a tree of processes, in bytes."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(OSError, ValueError):
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


@contextlib.contextmanager
def peak(pid: int) -> Iterator[list[int]]:
    """Sample memory as long as the context lasts; the list holds the most."""
    most = [0]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE):
            most[0] = max(most[0], memory_of(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def command(way: str, daemon: Daemon, reference: str) -> list[str]:
    """Return what a user types."""
    if way == "windlass, cli":
        program = str(Path(sys.executable).parent / "windlass")
        where = ["--address", daemon.address, "--namespace", daemon.namespace]
        return [program, *where, "image", "pull", "--plain-http", reference]
    return daemon.ctr("images", "pull", "--plain-http", reference)


def pull(way: str, daemon: Daemon, reference: str) -> Cost:
    """Pull once."""
    with accounted(daemon.pid) as usage, peak(daemon.pid) as most:
        os.sync()
        before, begin = cpu_of(usage), time.perf_counter()
        client = transfer(daemon, reference) if way == "windlass" else typed(command(way, daemon, reference))
        wall = time.perf_counter() - begin
        return Cost(wall, cpu_of(usage) - before + client, most[0])


def typed(argv: list[str]) -> float:
    """Run a command and return its processor seconds."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{argv}: {output.read().decode()[-500:]}")
        return usage.ru_utime + usage.ru_stime


def transfer(daemon: Daemon, reference: str) -> float:
    """Pull by one call, as `ctr` 2.x makes it; the client's own time is nothing."""
    platform = Platform(os="linux", architecture="amd64")
    source = OCIRegistry(reference=reference, resolver=RegistryResolver(default_scheme="http"))
    destination = ImageStore(name=reference, platforms=[platform])
    destination.unpacks.add(platform=platform, snapshotter="overlayfs")
    request = TransferRequest()
    for end, message in ((request.source, source), (request.destination, destination)):
        end.type_url, end.value = message.DESCRIPTOR.full_name, message.SerializeToString()
    metadata = (("containerd-namespace", daemon.namespace),)
    with grpc.insecure_channel(f"unix:{daemon.address}") as channel:
        TransferStub(channel).Transfer(request, metadata=metadata, timeout=TIMEOUT)
    return 0.0


def run(way: str, place: Path, reference: str) -> tuple[Cost, Tree]:
    """Pull with an empty root, and return also the tree."""
    scratch = place / "daemon"
    scratch.mkdir()
    environment = {"CONTAINERD_DISABLE_PIGZ": "1"}
    daemon = containerd(scratch, environment) if way == "containerd" else windlassd(scratch)
    try:
        cost = pull(way, daemon, reference)
        target = scratch / "mounted"
        target.mkdir()
        daemon.run("images", "mount", reference, str(target))
        try:
            return cost, facts(target)
        finally:
            daemon.run("images", "unmount", str(target))
    finally:
        daemon.stop()


def floors(layers: list[Path], scratch: Path) -> dict[str, float]:
    """Return the seconds of single programs over the layers, one after the other."""
    packed = [str(path) for path in layers]
    target = scratch / "floor"
    target.mkdir()

    def program(*argv: str) -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=TIMEOUT)

    def extract() -> None:
        for path in packed:
            program("tar", "-xzp", "--xattrs", "--xattrs-include=*", "-f", path, "-C", str(target))

    try:
        return {
            "sha256sum": seconds(lambda: program("sha256sum", *packed)),
            "gzip -t": seconds(lambda: program("gzip", "-t", *packed)),
            "igzip -t": seconds(lambda: program("igzip", "-t", *packed)),
            "tar -xz": seconds(extract),
        }
    finally:
        shutil.rmtree(target)


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(IMAGES), help="measure this image alone")
    parser.add_argument("--images", type=Path, help="where layers are kept for the next run")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    scratch = Path(tempfile.mkdtemp(prefix="windlass-pull-"))
    place = options.images or scratch / "layers"
    place.mkdir(exist_ok=True, parents=True)
    report: dict[str, object] = {"load before": os.getloadavg()}
    try:
        with registry(scratch / "registry") as address:
            for name in [options.only] if options.only else IMAGES:
                layers = build(place, name)
                reference = push(address, name, layers)
                report[name] = measure(name, reference, scratch, options.rounds) | {"floors": floors(layers, scratch)}
                for what, value in report[name]["floors"].items():  # type: ignore[index] # made a line above
                    print(f"{name:8} {what:30} {value:6.2f} s")
    finally:
        remove_tree(scratch)
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")


def measure(name: str, reference: str, scratch: Path, rounds: int) -> dict[str, object]:
    """Print and return the figures of one image."""
    found: dict[str, dict[str, list[Cost]]] = {}
    tree: Tree = {}
    for _ in range(rounds):
        for where, disk in (("ext4", fresh_disk), ("tmpfs", on_tmpfs)):
            for way in WAYS:
                with disk(scratch) as mounted:
                    cost, other = run(way, mounted, reference)
                found.setdefault(where, {}).setdefault(way, []).append(cost)
                check_equal(way, tree or other, other)
                tree = other
    result: dict[str, object] = {"paths": len(tree)}
    for where, ways in found.items():
        base = ways["containerd"]
        for way, costs in ways.items():
            wall, cpu = (statistics.median(getattr(cost, key) for cost in costs) for key in ("wall", "cpu"))
            walls, cpus = (statistics.median(getattr(cost, key) for cost in base) for key in ("wall", "cpu"))
            most = max(cost.peak for cost in costs)
            result[f"{where} {way}"] = [vars(cost) for cost in costs]
            print(
                f"{name:8} {where:6} {way:14} {wall:6.2f} s ({wall / walls:.2f})   processors {cpu:6.2f} s"
                f" ({cpu / cpus:.2f})   peak {most >> 20} MB"
            )
    return result


if __name__ == "__main__":
    main()
