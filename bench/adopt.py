"""Measures how long a restarted daemon takes to list the containers that ran on: Windlass and containerd, in turns.

python bench/adopt.py [--containers N] [--rounds N] [--json FILE]
(as root; Debian packages: containerd runc busybox-static)

Each round ends the daemon by `kill -9` and executes it again; the clock runs from
there until one Tasks.List has all containers as RUNNING with the pids of before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from daemons import IMAGE, Daemon, both

from windlass_api.containerd.services.tasks.v1 import tasks_pb2 as pb
from windlass_api.containerd.services.tasks.v1.tasks_pb2_grpc import TasksStub
from windlass_api.containerd.v1.types.task_pb2 import RUNNING

RESULTS = Path(__file__).parent / "results" / "adopt.json"
LIST_TIMEOUT = 60.0
LOST_AFTER = 60.0
AT_ONCE = 4


class Crowd:
    """A daemon and its running containers."""

    def __init__(self, daemon: Daemon, count: int) -> None:
        self.daemon = daemon
        self.times: dict[str, list[float]] = {"answers": [], "listed": []}

        def run(number: int) -> None:
            fifos = str(daemon.scratch / "fifo")
            daemon.run("run", "-d", "--fifo-dir", fifos, IMAGE, f"c{number}", "/bin/sleep", "3600")

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(run, range(count)))
        self._pids = self._listed()
        if len(self._pids) != count:
            raise RuntimeError(f"{daemon.name}: {len(self._pids)} of {count} containers run")

    def crash(self) -> None:
        """Let the daemon crash and come back, and note when it answered and when all were listed."""
        self.daemon.crash()
        self.daemon.start(wait=False)
        while self._listed() != self._pids:
            if time.perf_counter() - self.daemon.began > LOST_AFTER:
                raise RuntimeError(
                    f"{self.daemon.name}: not all containers are listed {LOST_AFTER:.0f} s after a crash"
                )
            time.sleep(0.005)
        self.times["listed"].append(time.perf_counter() - self.daemon.began)
        self.times["answers"].append(self.daemon.answers)

    def _listed(self) -> dict[str, int]:
        options = (("grpc.default_authority", "localhost"),)
        with grpc.insecure_channel(f"unix:{self.daemon.address}", options=options) as channel:
            metadata = (("containerd-namespace", self.daemon.namespace),)
            answer = TasksStub(channel).List(pb.ListTasksRequest(), timeout=LIST_TIMEOUT, metadata=metadata)
        return {each.id: each.pid for each in answer.tasks if each.status == RUNNING}


def measure(containers: int, rounds: int) -> dict[str, object]:
    """Let the daemons take turns; the scratch directory, and all that runs in it, is gone afterwards."""
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="windlass-bench.", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        with both(scratch) as daemons:
            crowds = [Crowd(daemon, containers) for daemon in daemons]
            for _ in range(rounds):
                crowds.append(crowds.pop(0))
                for crowd in crowds:
                    crowd.crash()
        scratch.mkdir()  # for TemporaryDirectory to remove
    return {
        "machine": {"linux": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "load": {"before": before, "after": os.getloadavg()[0]},
        "containers": containers,
        "rounds": rounds,
        "adopt": {
            crowd.daemon.name: {what: statistics.median(times) for what, times in crowd.times.items()}
            for crowd in crowds
        },
        "samples": {crowd.daemon.name: crowd.times for crowd in crowds},
    }


def show(containers: object, found: dict[str, dict[str, float]]) -> None:
    """Print the figures and their ratios."""
    print(f"seconds from execution after `kill -9`, {containers} containers running     first answer  all RUNNING")
    for name, row in sorted(found.items()):
        print(f"  {name:<66} {row['answers']:>10.3f} {row['listed']:>12.3f}")
    ours, theirs = found["windlass"], found["containerd"]
    print(f"  windlass / containerd: {ours['listed'] / theirs['listed']:.2f}")


def main() -> int:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--containers", type=int, default=200, help="running on each (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="crashes of each (default %(default)s)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (default %(default)s)")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("containers need root")
    report = measure(options.containers, options.rounds)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    show(report["containers"], report["adopt"])  # type: ignore[arg-type] # the parts differ; show knows this one
    print(f"\n{options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
