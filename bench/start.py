"""Measures how fast containers start and what a shim weighs: Windlass, Debian's containerd and runc, side by side.

python bench/start.py [--rounds N] [--json FILE]        (as root; Debian packages: containerd runc busybox-static)

The three take turns, the order changes every round, and `ctr`, runc, image and
command are the same; so read the ratios, which a busy machine hardly moves.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from daemons import COMMAND_TIMEOUT, IMAGE, Daemon, both, remove_cgroups, remove_tree, windlassd

RESULTS = Path(__file__).parent / "results" / "start.json"
ROLLUP = re.compile(rb"^(Pss|Private_Clean|Private_Dirty|Rss): +(\d+) kB", re.MULTILINE)
IMPORT_LINE = re.compile(r"^import time: +(\d+) \| +(\d+) \| (.*)$")

Action = Callable[[str], Sequence[str]]


class RawRunc:
    """The same spec and files run by runc alone: the floor that no daemon can go below."""

    def __init__(self, daemon: Daemon, scratch: Path) -> None:
        self.name = f"bench-runc-{os.getpid()}"
        self.bundle = scratch / "raw"
        self._root = scratch / "raw-state"
        rootfs = self.bundle / "rootfs"
        rootfs.mkdir(parents=True)
        with tarfile.open(scratch / "image.tar") as image:
            layer = max(image.getmembers(), key=lambda member: member.size)
            with tarfile.open(fileobj=image.extractfile(layer)) as files:
                files.extractall(rootfs)
        daemon.run("containers", "create", IMAGE, "raw", "/bin/true")
        spec = json.loads(daemon.run("containers", "info", "raw"))["Spec"]
        daemon.run("containers", "rm", "raw")
        spec["linux"]["cgroupsPath"] = f"/{self.name}/raw"
        (self.bundle / "config.json").write_text(json.dumps(spec))

    def command(self, id: str) -> list[str]:
        """Return the command that runs a container to its end."""
        return ["runc", "--root", str(self._root), "run", "--bundle", str(self.bundle), id]


def milliseconds(command: Sequence[str]) -> float:
    """Run a command, which must succeed, and return how long it took."""
    begin = time.perf_counter()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=COMMAND_TIMEOUT
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.decode().strip()}")
    return (time.perf_counter() - begin) * 1000


def race(actions: dict[str, Action], rounds: int, warmup: int) -> dict[str, list[float]]:
    """Let the actions take turns and return the milliseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    names = list(actions)
    for round in range(rounds + warmup):
        names.append(names.pop(0))
        for name in names:
            took = milliseconds(actions[name](f"r{round}"))
            if round >= warmup:
                times[name].append(took)
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    """Return median, 90th percentile and minimum."""
    ordered = sorted(times)
    tenth = ordered[min(len(ordered) - 1, int(len(ordered) * 0.9))]
    return {"median": statistics.median(ordered), "p90": tenth, "min": ordered[0]}


def memory(pid: int) -> dict[str, float]:
    """Return what a process weighs, in megabytes."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    sizes = {key.decode(): int(value) / 1024 for key, value in ROLLUP.findall(rollup)}
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return {"pss": sizes["Pss"], "private": private, "rss": sizes["Rss"]}


def weigh(daemons: Iterable[Daemon], count: int) -> dict[str, dict[str, float]]:
    """Run ``count`` sleeping containers on each daemon and weigh its processes."""
    found: dict[str, dict[str, float]] = {}
    for daemon in daemons:
        fifos = str(daemon.scratch / "fifo")
        ids = [f"m{number}" for number in range(count)]
        for id in ids:
            milliseconds(daemon.ctr("run", "-d", "--fifo-dir", fifos, IMAGE, id, "/bin/sleep", "3600"))
        time.sleep(1)
        shims = [memory(pid) for pid in daemon.shims()]
        found[f"{daemon.name} shim"] = {
            key: statistics.median(shim[key] for shim in shims) for key in ("pss", "private", "rss")
        }
        found[daemon.name] = memory(daemon.pid)
        for zygote in children(daemon.pid, "windlass-zygote"):
            found["windlass zygote"] = memory(zygote)
        for id in ids:
            daemon.run("tasks", "rm", "--force", id)
            daemon.run("containers", "rm", id)
    return found


def children(parent: int, name: str) -> list[int]:
    """Return a process's children of a name."""
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        for pid in (task / "children").read_text().split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(int(pid))
    return found


def imports(scratch: Path) -> dict[str, float]:
    """Start windlassd once more under `python -X importtime` and return the costliest imports in milliseconds."""
    place = scratch / "imports"
    place.mkdir()
    daemon = windlassd(place, {"PYTHONPROFILEIMPORTTIME": "1"})
    daemon.stop()
    own: dict[str, float] = {}
    for line in (place / "log").read_text(errors="replace").splitlines():
        if match := IMPORT_LINE.match(line):
            package = match[3].strip().partition(".")[0]
            own[package] = own.get(package, 0) + int(match[1]) / 1000
    costly = sorted(own.items(), key=lambda item: -item[1])[:12]
    return {"all": sum(own.values()), **dict(costly)}


def measure(rounds: int, warmup: int, shims: int) -> dict[str, object]:
    """Measure everything; the scratch directory, and all that runs in it, is gone afterwards."""
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="windlass-bench.", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        with both(scratch) as (ours, theirs):
            raw = RawRunc(theirs, scratch)

            def through(daemon: Daemon) -> Action:
                fifos = str(daemon.scratch / "fifo")
                return lambda id: daemon.ctr("run", "--rm", "--fifo-dir", fifos, IMAGE, id, "/bin/true")

            actions: dict[str, Action] = {
                "windlass": through(ours),
                "containerd": through(theirs),
                "runc": raw.command,
            }
            try:
                times = race(actions, rounds, warmup)
            finally:
                remove_cgroups(raw.name)
            weights = weigh((ours, theirs), shims)
            ready = {daemon.name: {"answers": daemon.answers, "ready": daemon.ready} for daemon in (ours, theirs)}
        scratch.mkdir()
        try:
            costs = imports(scratch)
        finally:
            remove_tree(scratch)
            scratch.mkdir()  # for TemporaryDirectory to remove
    return {
        "machine": {"linux": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "load": {"before": before, "after": os.getloadavg()[0]},
        "rounds": rounds,
        "run": {name: summary(values) for name, values in times.items()},
        "samples": times,
        "memory": weights,
        "shims": shims,
        "start": ready,
        "imports": costs,
    }


# Any would say no more than object: what `measure` returns is JSON, printed here and read by people.
def show(report: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the report."""
    load, machine = report["load"], report["machine"]
    print(f"load average {load['before']:.2f} before, {load['after']:.2f} after, {machine['cpus']} CPUs")
    print(f"\nctr run --rm IMAGE /bin/true, {report['rounds']} rounds in turns    median      p90      min  (ms)")
    for name, row in report["run"].items():
        print(f"  {name:<46} {row['median']:>8.1f} {row['p90']:>8.1f} {row['min']:>8.1f}")
    ours, theirs, raw = (report["run"][name] for name in ("windlass", "containerd", "runc"))
    print(f"  windlass / containerd: {ours['median'] / theirs['median']:.2f}   windlass / runc: ", end="")
    print(f"{ours['median'] / raw['median']:.2f}   containerd / runc: {theirs['median'] / raw['median']:.2f}")
    print(f"\nmemory with {report['shims']} containers sleeping                 PSS  private      RSS  (MB)")
    for name, row in report["memory"].items():
        print(f"  {name:<46} {row['pss']:>8.2f} {row['private']:>8.2f} {row['rss']:>8.2f}")
    print("\nfrom execution                             first answer  READY=1  (s)")
    for name, row in report["start"].items():
        print(f"  {name:<46} {row['answers']:>8.3f} {row['ready']:>8.3f}")
    print("\nimports of windlassd (python -X importtime, which slows them), ms by package")
    print("  " + "  ".join(f"{name} {cost:.0f}" for name, cost in report["imports"].items()))


def main() -> int:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30, help="measured rounds (default 30)")
    parser.add_argument("--warm-up", type=int, default=3, help="rounds before them (default 3)")
    parser.add_argument("--shims", type=int, default=100, help="sleeping containers to weigh (default 100)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (default %(default)s)")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("containers need root")
    report = measure(options.rounds, options.warm_up, options.shims)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    show(report)  # type: ignore[arg-type] # the parts differ; show knows them
    print(f"\n{options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
