"""Measures what a sick snapshotter costs the callers of another: the latency of prepare and remove next to it.

python bench/sick.py [--rounds N] [--calls N] [--json FILE]     (as root)

One windlassd whose snapshotter native hangs for five seconds in every prepare; rounds in which
a crowd waits for it take turns with rounds in which none does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import grpc
from daemons import Daemon, remove_tree, windlassd

from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2 as pb
from windlass_api.containerd.services.snapshots.v1.snapshots_pb2_grpc import SnapshotsStub

RESULTS = Path(__file__).parent / "results" / "sick.json"
FAULTS = "io.containerd.snapshotter.v1.native.prepare=100000*delay(5000)"
CROWD = 24
TIMEOUT = 30.0


class Caller:
    """A client with a connection of its own."""

    def __init__(self, daemon: Daemon) -> None:
        self._channel = grpc.insecure_channel(f"unix:{daemon.address}", [("grpc.use_local_subchannel_pool", 1)])
        self._stub = SnapshotsStub(self._channel)
        self._metadata = (("containerd-namespace", daemon.namespace),)

    def prepare(self, snapshotter: str, key: str) -> None:
        """Make an active snapshot."""
        # Held, or garbage collection may take it before it is removed.
        labels = {"containerd.io/gc.root": "bench"}
        request = pb.PrepareSnapshotRequest(snapshotter=snapshotter, key=key, labels=labels)
        self._stub.Prepare(request, metadata=self._metadata, timeout=TIMEOUT)

    def remove(self, snapshotter: str, key: str) -> None:
        """Remove a snapshot."""
        request = pb.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
        self._stub.Remove(request, metadata=self._metadata, timeout=TIMEOUT)

    def close(self) -> None:
        """End the connection; a call under way fails."""
        self._channel.close()


def measure(daemon: Daemon, calls: int, round: int) -> list[float]:
    """Return the milliseconds of each prepare and remove on overlayfs."""
    caller, found = Caller(daemon), []
    for number in range(calls):
        begin = time.perf_counter()
        caller.prepare("overlayfs", f"{round}-{number}")
        caller.remove("overlayfs", f"{round}-{number}")
        found.append((time.perf_counter() - begin) * 1000)
    caller.close()
    return found


def crowd(daemon: Daemon, stop: threading.Event, round: int) -> list[threading.Thread]:
    """Have a crowd wait for the sick one until ``stop``."""

    def wait(number: int) -> None:
        caller, count = Caller(daemon), 0
        while not stop.is_set():
            count += 1
            try:
                caller.prepare("native", f"sick-{round}-{number}-{count}")
            except grpc.RpcError:
                time.sleep(0.2)  # it is parked by now, and says so at once
        caller.close()

    threads = [threading.Thread(target=wait, args=(number,), daemon=True) for number in range(CROWD)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    return threads


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="windlass-sick-"))
    (scratch / "w").mkdir()
    daemon = windlassd(scratch / "w", {"WINDLASS_FAULTS": FAULTS})
    times: dict[str, list[float]] = {"well": [], "sick": []}
    try:
        measure(daemon, 100, -1)
        for round in range(options.rounds):
            times["well"] += measure(daemon, options.calls, 2 * round)
            stop = threading.Event()
            threads = crowd(daemon, stop, round)
            times["sick"] += measure(daemon, options.calls, 2 * round + 1)
            stop.set()
            for thread in threads:
                thread.join(TIMEOUT)
    finally:
        daemon.stop()
        remove_tree(scratch)
    figures = {
        name: {"p50": statistics.median(values), "p99": statistics.quantiles(values, n=100)[98]}
        for name, values in times.items()
    }
    ratios = {each: figures["sick"][each] / figures["well"][each] for each in ("p50", "p99")}
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(
        json.dumps({"load": os.getloadavg(), "figures": figures, "ratios": ratios}, indent=2) + "\n"
    )
    for name, found in figures.items():
        print(f"native {name}: prepare and remove on overlayfs p50 {found['p50']:.2f} ms, p99 {found['p99']:.2f} ms")
    print(f"ratio p50 {ratios['p50']:.2f}, p99 {ratios['p99']:.2f}")


if __name__ == "__main__":
    main()
