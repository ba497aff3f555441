"""Measures what a unary call costs: our gRPC server, grpc.aio's with the same handler, and containerd's Version call.

python bench/rpc.py [--calls N] [--rounds N] [--json FILE]        (as root for containerd, which is left out otherwise)

The servers take turns with blocks of calls by one synchronous grpc client; ratios
are of the medians of one run. CPU time is the server process's own, all threads.
Concurrent calls are made by the same client, many in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
from daemons import containerd
from google.protobuf.empty_pb2 import Empty

from windlass.contracts import rpc
from windlass.typing import override
from windlass_api.containerd.services.version.v1 import version_pb2, version_pb2_grpc
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.server import Server

RESULTS = Path(__file__).parent / "results" / "rpc.json"
LIMIT = 16 << 20
IN_FLIGHT = 64
TIMEOUT = 30.0


class Version:
    """The handler of our server."""

    async def version(self, request: Empty, call: rpc.Call) -> version_pb2.VersionResponse:
        """Answer."""
        return version_pb2.VersionResponse(version="1", revision="bench")


class Servicer(version_pb2_grpc.VersionServicer):
    """The same for grpc.aio."""

    @override
    async def Version(
        self, request: Empty, context: grpc.aio.ServicerContext[Empty, version_pb2.VersionResponse]
    ) -> version_pb2.VersionResponse:
        """Answer."""
        return version_pb2.VersionResponse(version="1", revision="bench")


async def serve(kind: str, path: str) -> None:
    """Serve Version on ``path`` until standard input ends."""
    descriptor = version_pb2.DESCRIPTOR.services_by_name["Version"]
    if kind == "windlass":
        server = Server(Limits(LIMIT, LIMIT))
        rpc.serve(server, descriptor, Version())
        await asyncio.get_running_loop().create_unix_server(server.connection, path)
    else:
        theirs = grpc.aio.server()
        version_pb2_grpc.add_VersionServicer_to_server(Servicer(), theirs)
        theirs.add_insecure_port(f"unix:{path}")
        await theirs.start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)  # neither has anything to lose, and grpc.aio would wait for its clients


@dataclass
class Contender:
    """A server and what was measured of it."""

    name: str
    pid: int
    channel: grpc.Channel
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def used(self) -> float:
        """Return the process's CPU time in microseconds."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1000

    def one_by_one(self, calls: int) -> None:
        """Measure calls that wait for each other."""
        stub = version_pb2_grpc.VersionStub(self.channel)
        before = self.used()
        for _ in range(calls):
            begin = time.perf_counter()
            stub.Version(Empty(), timeout=TIMEOUT)
            self.times.append((time.perf_counter() - begin) * 1e6)
        self.cpu.append((self.used() - before) / calls)

    def at_once(self, calls: int) -> None:
        """Measure calls that do not wait for each other."""
        stub = version_pb2_grpc.VersionStub(self.channel)
        begin = time.perf_counter()
        for _ in range(calls // IN_FLIGHT):
            for call in [stub.Version.future(Empty(), timeout=TIMEOUT) for _ in range(IN_FLIGHT)]:
                call.result()
        self.rates.append(calls // IN_FLIGHT * IN_FLIGHT / (time.perf_counter() - begin))

    def summary(self) -> dict[str, float]:
        """Return microseconds a call, CPU microseconds a call, and calls a second when many are in flight."""
        ordered = sorted(self.times)
        return {
            "median": statistics.median(ordered),
            "p90": ordered[int(len(ordered) * 0.9)],
            "cpu": statistics.median(self.cpu),
            "rate": statistics.median(self.rates),
        }


@contextmanager
def python_server(kind: str, scratch: Path) -> Iterator[Contender]:
    """Run one of the Python servers in a process of its own."""
    path = scratch / f"{kind}.sock"
    argv = [sys.executable, __file__, "--serve", kind, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with grpc.insecure_channel(f"unix:{path}") as channel:
            yield Contender(kind, process.pid, channel)
        process.communicate()


@contextmanager
def real_containerd(scratch: Path) -> Iterator[Contender]:
    """Run Debian's containerd."""
    place = scratch / "containerd"
    place.mkdir()
    daemon = containerd(place)
    try:
        # containerd refuses no authority, but grpc-go wants it to be one
        options = (("grpc.default_authority", "localhost"),)
        with grpc.insecure_channel(f"unix:{daemon.address}", options=options) as channel:
            yield Contender("containerd", daemon.pid, channel)
    finally:
        daemon.stop()


def measure(calls: int, rounds: int) -> dict[str, object]:
    """Let the servers take turns."""
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="windlass-rpc.") as name, ExitStack() as stack:
        scratch = Path(name)
        contenders = [stack.enter_context(python_server(kind, scratch)) for kind in ("windlass", "grpc.aio")]
        if os.geteuid() == 0 and shutil.which("containerd"):
            contenders.append(stack.enter_context(real_containerd(scratch)))
        for each in contenders:
            Contender("warm-up", each.pid, each.channel).one_by_one(200)
        for _ in range(rounds):
            contenders.append(contenders.pop(0))
            for each in contenders:
                each.one_by_one(calls)
                each.at_once(calls)
        found = {each.name: each.summary() for each in contenders}
    return {
        "machine": {"linux": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "load": {"before": before, "after": os.getloadavg()[0]},
        "calls": calls * rounds,
        "servers": found,
    }


def show(servers: dict[str, dict[str, float]]) -> None:
    """Print the figures, and their ratios to our own."""
    print("a unary call of Version          median      p90   CPU of server  (µs)    calls/s, 64 in flight")
    for name, row in servers.items():
        print(f"  {name:<28} {row['median']:>8.0f} {row['p90']:>8.0f} {row['cpu']:>15.0f} {row['rate']:>26.0f}")
    ours = servers["windlass"]
    for name in servers.keys() - {"windlass"}:
        ratios = ", ".join(f"{key} {ours[key] / servers[name][key]:.2f}" for key in ("median", "cpu", "rate"))
        print(f"  windlass / {name}: {ratios}")


def main() -> int:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=500, help="calls of a block (default 500)")
    parser.add_argument("--rounds", type=int, default=10, help="blocks of each server (default 10)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (default %(default)s)")
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(*options.serve))
    report = measure(options.calls, options.rounds)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    show(report["servers"])  # type: ignore[arg-type] # the parts differ; show knows this one
    print(f"\n{options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
