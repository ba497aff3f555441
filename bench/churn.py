"""Makes and removes many containers with our own OCI runtime, runs many execs, and says what is left or has grown.

python bench/churn.py [--containers 10000] [--execs 100000]        (as root; Debian packages: containerd busybox-static)

The exit status is 1 when anything is left: processes, mounts, control groups, files of state, or memory that grew by
more than a quarter between the first tenth and the end.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from daemons import Daemon, both, windlassd_own
from runtime import AT_ONCE, Api, children_of, end
from start import memory

GROWTH = 1.25
HELD = 8
"""Containers in which execs run."""


def weigh(daemon: Daemon) -> dict[str, float]:
    """Return what grows in a leak: memory of the daemon and its zygote, and their descriptors."""
    pids = [daemon.pid, *(pid for pid in children_of(daemon.pid) if name(pid) == "windlass-zygote")]
    found = {f"{name(pid)} private": memory(pid)["private"] for pid in pids}
    return found | {f"{name(pid)} descriptors": float(len([*Path(f"/proc/{pid}/fd").iterdir()])) for pid in pids}


def name(pid: int) -> str:
    """Return what a process is called."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def left(daemon: Daemon) -> list[str]:
    """Return what there is of containers that have been removed."""
    found = [f"process {pid} {name(pid)}" for pid in daemon.shims() if name(pid).startswith("windlass-s")]
    mounts = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    found += [f"mount {place}" for place in mounts if place.startswith(f"{daemon.scratch}/state")]
    for group in Path("/sys/fs/cgroup").glob(f"*/{daemon.namespace}/*/"):
        found.append(f"control group {group}")
    for pattern in ("io.containerd.runtime.v2.task/*/*", "runc/*/*"):
        found += [f"directory {path}" for path in (daemon.scratch / "state").glob(pattern)]
    return found


def through(count: int, action: Callable[[int], None], what: str, daemon: Daemon) -> dict[str, float]:
    """Do something so often, some at a time, and return what the daemon weighs after a tenth."""
    began, first = time.monotonic(), max(AT_ONCE, count // 10)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(action, range(first)))
        before = weigh(daemon)
        list(pool.map(action, range(first, count)))
    print(f"{count} {what} in {time.monotonic() - began:.0f} s", flush=True)
    return before


def churn(daemon: Daemon, containers: int, execs: int) -> list[str]:
    """Do it all, and return what is wrong afterwards."""
    api = Api(daemon)
    before = through(containers, lambda number: api.cycle(f"c{number}"), "containers", daemon)
    problems = settled(daemon, before)
    for number in range(HELD):
        api.hold(f"held{number}")
    before = through(execs, lambda number: api.enter(f"held{number % HELD}", f"e{number}"), "execs", daemon)
    for number in range(HELD):
        end(daemon, f"held{number}")
    api.close()
    return [*problems, *settled(daemon, before)]


def settled(daemon: Daemon, before: dict[str, float]) -> list[str]:
    """Give what ends by itself its time, and return what is left or has grown since ``before``."""
    deadline = time.monotonic() + 10
    while (found := left(daemon)) and time.monotonic() < deadline:
        time.sleep(0.2)
    after = weigh(daemon)
    for key, value in after.items():
        print(f"  {key}: {before[key]:.1f}, then {value:.1f}", flush=True)
        if value > before[key] * GROWTH + 2:
            found.append(f"{key} grew from {before[key]:.1f} to {value:.1f}")
    return found


def main() -> int:
    """Churn, and print what is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--containers", type=int, default=10_000)
    parser.add_argument("--execs", type=int, default=100_000)
    options = parser.parse_args()
    if os.geteuid():
        parser.error("containers need root")
    with tempfile.TemporaryDirectory(prefix="windlass-churn.", ignore_cleanup_errors=True) as scratch:
        with both(Path(scratch), (windlassd_own,)) as (daemon,):
            problems = churn(daemon, options.containers, options.execs)
        Path(scratch).mkdir(exist_ok=True)  # for TemporaryDirectory to remove
    for problem in problems[:50]:
        print(f"left: {problem}")
    print(f"{len(problems)} problems")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
