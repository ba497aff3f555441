"""Measures the runtime under load: many starts at once, cycles through the API, exec, and starts in a crowd.

python bench/runtime.py [--crowd N] [--only NAME…] [--json FILE]     (as root; Debian packages as for start.py)

Windlass with runc, Windlass with its own OCI runtime and the containerd of the PATH take turns; the image, the spec
and `ctr` are the same, so read the ratios. Processor time is that of daemon, shims, OCI runtimes and containers, of a
control group that each daemon has to itself (cgroup v1).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import grpc
from daemons import IMAGE, Daemon, both, containerd, remove_cgroups, windlassd, windlassd_own
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from start import RawRunc, memory, milliseconds

from windlass_api.containerd.services.containers.v1 import containers_pb2, containers_pb2_grpc
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2, snapshots_pb2_grpc
from windlass_api.containerd.services.tasks.v1 import tasks_pb2, tasks_pb2_grpc

RESULTS = Path(__file__).parent / "results" / "runtime.json"
AT_ONCE = 8
PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"
SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
RUNTIME = "io.containerd.runc.v2"
TIMEOUT = 60.0

CPUACCT = Path("/sys/fs/cgroup/cpuacct")

WHAT = {
    "run": "ctr run --rm, one after the other, milliseconds; processor time without ctr's",
    "parallel": f"ctr run --rm, {AT_ONCE} at a time, containers per second",
    "rate": f"a container's life through the API, {AT_ONCE} at a time, containers per second",
    "cycle": "a container's life through the API, milliseconds",
    "exec": "ctr tasks exec in a running container, milliseconds",
    "enter": "Exec, Start, Wait and Delete through the API, milliseconds",
    "crowd": "a start alone and with a crowd running, milliseconds; what shim and daemon weigh at 100, megabytes",
}

Figures = dict[str, float]
M = TypeVar("M")


class Api:
    """One daemon's API, with a container's whole life as one call."""

    def __init__(self, daemon: Daemon) -> None:
        self._channel = grpc.insecure_channel(f"unix:{daemon.address}")
        self._metadata = (("containerd-namespace", daemon.namespace),)
        self._snapshots = snapshots_pb2_grpc.SnapshotsStub(self._channel)
        self._containers = containers_pb2_grpc.ContainersStub(self._channel)
        self._tasks = tasks_pb2_grpc.TasksStub(self._channel)
        daemon.run("containers", "create", IMAGE, "model", "/bin/true")
        info = json.loads(daemon.run("containers", "info", "model"))
        self._spec = info["Spec"]
        rows = (line.split() for line in daemon.run("snapshots", "ls").splitlines())
        self._parent = next(row[0] for row in rows if row[-1] == "Committed")
        daemon.run("containers", "rm", "model")

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def cycle(self, id: str) -> None:
        """Prepare, create, start, wait for and delete one container."""
        ask = self._ask
        prepare = snapshots_pb2.PrepareSnapshotRequest(snapshotter="overlayfs", key=id, parent=self._parent)
        # A label, or garbage collection may take what no lease and no container holds yet.
        prepare.labels["containerd.io/gc.root"] = "bench"
        mounts = ask(self._snapshots.Prepare, prepare).mounts
        container = self._container(id, {})
        ask(self._containers.Create, containers_pb2.CreateContainerRequest(container=container))
        ask(self._tasks.Create, tasks_pb2.CreateTaskRequest(container_id=id, rootfs=mounts))
        ended = ask(self._tasks.Wait.future, tasks_pb2.WaitRequest(container_id=id))
        ask(self._tasks.Start, tasks_pb2.StartRequest(container_id=id))
        if ended.result().exit_status:
            raise RuntimeError(f"{id} ended with {ended.result().exit_status}")
        ask(self._tasks.Delete, tasks_pb2.DeleteTaskRequest(container_id=id))
        ask(self._containers.Delete, containers_pb2.DeleteContainerRequest(id=id))
        ask(self._snapshots.Remove, snapshots_pb2.RemoveSnapshotRequest(snapshotter="overlayfs", key=id))

    def hold(self, id: str) -> None:
        """Start a container that sleeps, for `enter`; the daemon's end removes it."""
        ask, request = self._ask, snapshots_pb2.PrepareSnapshotRequest(snapshotter="overlayfs", key=id)
        request.parent = self._parent
        request.labels["containerd.io/gc.root"] = "bench"
        mounts = ask(self._snapshots.Prepare, request).mounts
        process = {**self._spec["process"], "args": ["/bin/sleep", "3600"]}
        container = self._container(id, {"process": process})
        ask(self._containers.Create, containers_pb2.CreateContainerRequest(container=container))
        ask(self._tasks.Create, tasks_pb2.CreateTaskRequest(container_id=id, rootfs=mounts))
        ask(self._tasks.Start, tasks_pb2.StartRequest(container_id=id))

    def enter(self, id: str, exec_id: str) -> None:
        """Run /bin/true in a container that runs."""
        ask, process = self._ask, json.dumps(self._spec["process"]).encode()
        request = tasks_pb2.ExecProcessRequest(container_id=id, exec_id=exec_id)
        request.spec.CopyFrom(AnyMessage(type_url=PROCESS, value=process))
        ask(self._tasks.Exec, request)
        ask(self._tasks.Start, tasks_pb2.StartRequest(container_id=id, exec_id=exec_id))
        status = ask(self._tasks.Wait, tasks_pb2.WaitRequest(container_id=id, exec_id=exec_id)).exit_status
        if status:
            raise RuntimeError(f"exec {exec_id} ended with {status}")
        ask(self._tasks.DeleteProcess, tasks_pb2.DeleteProcessRequest(container_id=id, exec_id=exec_id))

    def _container(self, id: str, changes: dict[str, object]) -> containers_pb2.Container:
        spec = json.dumps({**self._spec, **changes, "linux": {**self._spec["linux"], "cgroupsPath": self._cgroup(id)}})
        container = containers_pb2.Container(
            id=id,
            image=IMAGE,
            runtime=containers_pb2.Container.Runtime(name=RUNTIME),
            snapshotter="overlayfs",
            snapshot_key=id,
        )
        container.spec.CopyFrom(AnyMessage(type_url=SPEC, value=spec.encode()))
        return container

    def _ask(self, method: Callable[..., M], request: Message) -> M:
        return method(request, metadata=self._metadata, timeout=TIMEOUT)

    def _cgroup(self, id: str) -> str:
        return f"/{self._metadata[0][1]}/{id}"


def run_command(daemon: Daemon, id: str) -> Sequence[str]:
    """Return the `ctr run` of all benchmarks."""
    return daemon.ctr("run", "--rm", "--fifo-dir", str(daemon.scratch / "fifo"), IMAGE, id, "/bin/true")


@contextmanager
def accounted(daemons: Sequence[Daemon]) -> Iterator[None]:
    """Put each daemon into a group whose processor time is counted; its containers' groups are below that."""
    for daemon in daemons:
        group = CPUACCT / daemon.namespace
        if CPUACCT.is_dir():
            group.mkdir(exist_ok=True)
            for pid in (daemon.pid, *children_of(daemon.pid)):
                (group / "cgroup.procs").write_text(str(pid))
    yield


def children_of(pid: int) -> Iterator[int]:
    """Yield a process's children, and theirs."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from children_of(child)


def processor_time(daemon: Daemon) -> float:
    """Return the milliseconds that a daemon and all that it has begun have used."""
    usage = CPUACCT / daemon.namespace / "cpuacct.usage"
    return int(usage.read_text()) / 1e6 if usage.exists() else 0.0


def with_processor_time(
    daemons: Sequence[Daemon], rounds: int, action: Callable[[Daemon, int], float]
) -> dict[str, Figures]:
    """Let an action take its turns, and return the spread of its times and its processor time."""
    used = dict.fromkeys((daemon.name for daemon in daemons), 0.0)

    def counted(daemon: Daemon, round: int) -> float:
        before = processor_time(daemon)
        took = action(daemon, round)
        # What goes on when the client has its answer is work for it, too.
        time.sleep(0.05)
        used[daemon.name] += processor_time(daemon) - before
        return took

    in_turns(daemons, 3, lambda daemon, round: counted(daemon, -round - 1))
    used = dict.fromkeys(used, 0.0)
    times = in_turns(daemons, rounds, counted)
    return {name: {**spread(values), "cpu": used[name] / rounds} for name, values in times.items()}


def runs(daemons: Sequence[Daemon], rounds: int = 25) -> dict[str, Figures]:
    """Return the milliseconds of `ctr run --rm`."""
    return with_processor_time(
        daemons, rounds, lambda daemon, round: milliseconds(run_command(daemon, f"r{round + 9}"))
    )


def in_turns(daemons: Sequence[Daemon], rounds: int, action: Callable[[Daemon, int], float]) -> dict[str, list[float]]:
    """Let an action's turns go round the daemons, the first of a round being the second of the next."""
    found: dict[str, list[float]] = {daemon.name: [] for daemon in daemons}
    order = list(daemons)
    for round in range(rounds):
        order.append(order.pop(0))
        for daemon in order:
            found[daemon.name].append(action(daemon, round))
    return found


def parallel(daemons: Sequence[Daemon], rounds: int = 4, each: int = 5) -> dict[str, Figures]:
    """Return containers per second with `AT_ONCE` clients."""

    def batch(daemon: Daemon, round: int) -> float:
        begin = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            ids = [f"p{round}-{number}" for number in range(AT_ONCE * each)]
            list(pool.map(lambda id: milliseconds(run_command(daemon, id)), ids))
        return AT_ONCE * each / (time.perf_counter() - begin)

    times = in_turns(daemons, rounds, batch)
    return {name: {"per_second": statistics.median(values)} for name, values in times.items()}


def cycles(daemons: Sequence[Daemon], rounds: int = 100) -> dict[str, Figures]:
    """Return the milliseconds of a container's life through the API, and of runc alone."""
    with apis_of(daemons) as apis:
        times = with_processor_time(
            daemons, rounds, lambda daemon, round: took(lambda: apis[daemon.name].cycle(f"c{round + 9}"))
        )
        with raw_runc(daemons[-1]) as raw:
            times["runc"] = spread([milliseconds(raw.command(f"raw{round}")) for round in range(20)])
    return times


def rates(daemons: Sequence[Daemon], rounds: int = 4, each: int = 10) -> dict[str, Figures]:
    """Return the containers per second that live through the API."""
    with apis_of(daemons) as apis, ThreadPoolExecutor(AT_ONCE) as pool:

        def batch(daemon: Daemon, round: int) -> float:
            ids = [f"a{round}-{number}" for number in range(AT_ONCE * each)]
            return len(ids) * 1000 / took(lambda: list(pool.map(apis[daemon.name].cycle, ids)))

        times = in_turns(daemons, rounds, batch)
    return {name: {"per_second": statistics.median(values)} for name, values in times.items()}


def enters(daemons: Sequence[Daemon], rounds: int = 100) -> dict[str, Figures]:
    """Return the milliseconds of an exec through the API."""
    with apis_of(daemons) as apis:
        for api in apis.values():
            api.hold("held")
        return with_processor_time(
            daemons, rounds, lambda daemon, round: took(lambda: apis[daemon.name].enter("held", f"n{round + 9}"))
        )


def execs(daemons: Sequence[Daemon], rounds: int = 25) -> dict[str, Figures]:
    """Return the milliseconds of `ctr tasks exec` in a running container."""
    for daemon in daemons:
        sleep(daemon, "exec")

    def once(daemon: Daemon, round: int) -> float:
        fifos = str(daemon.scratch / "fifo")
        exec_id = f"e{round + 9}"
        return milliseconds(daemon.ctr("tasks", "exec", "--fifo-dir", fifos, "--exec-id", exec_id, "exec", "/bin/true"))

    try:
        return with_processor_time(daemons, rounds, once)
    finally:
        for daemon in daemons:
            end(daemon, "exec")


@contextmanager
def apis_of(daemons: Sequence[Daemon]) -> Iterator[dict[str, Api]]:
    """Yield each daemon's API by the daemon's name."""
    apis = {daemon.name: Api(daemon) for daemon in daemons}
    try:
        yield apis
    finally:
        for api in apis.values():
            api.close()


def took(action: Callable[[], object]) -> float:
    """Return how many milliseconds an action takes."""
    begin = time.perf_counter()
    action()
    return (time.perf_counter() - begin) * 1000


def crowd(daemons: Sequence[Daemon], size: int, rounds: int = 15) -> dict[str, Figures]:
    """Return the milliseconds of a start alone and with ``size`` containers running, and what these weigh at 100."""

    def once(daemon: Daemon, round: int) -> float:
        return milliseconds(run_command(daemon, f"s{round}"))

    alone = in_turns(daemons, rounds, once)
    found: dict[str, Figures] = {}
    for daemon in daemons:  # one after the other: both crowds at once would be a crowd of twice the size
        figures = found[daemon.name] = {"alone": statistics.median(alone[daemon.name])}
        ids = [f"m{number}" for number in range(size)]
        try:
            for number, id in enumerate(ids):
                sleep(daemon, id)
                if number == 99:
                    time.sleep(1)
                    figures |= weigh(daemon)
            times = [once(daemon, round + rounds) for round in range(rounds)]
            figures["crowded"] = statistics.median(times)
            figures["ratio"] = figures["crowded"] / figures["alone"]
        finally:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda id, daemon=daemon: end(daemon, id), ids))
    return found


def weigh(daemon: Daemon) -> Figures:
    """Return what a daemon and the median of its shims weigh, in megabytes."""
    shims = [memory(pid) for pid in daemon.shims()]
    middle = {key: statistics.median(shim[key] for shim in shims) for key in ("pss", "private")}
    return {"shim_pss": middle["pss"], "shim_private": middle["private"], "daemon_rss": memory(daemon.pid)["rss"]}


def sleep(daemon: Daemon, id: str) -> None:
    """Start a container that sleeps."""
    daemon.run("run", "-d", "--fifo-dir", str(daemon.scratch / "fifo"), IMAGE, id, "/bin/sleep", "3600")


def end(daemon: Daemon, id: str) -> None:
    """Remove a container that sleeps."""
    daemon.run("tasks", "rm", "--force", id)
    daemon.run("containers", "rm", id)


@contextmanager
def raw_runc(daemon: Daemon) -> Iterator[RawRunc]:
    """Yield the floor, whose cgroups are gone afterwards."""
    raw = RawRunc(daemon, daemon.scratch.parent)
    try:
        yield raw
    finally:
        remove_cgroups(raw.name)


def spread(times: Sequence[float]) -> Figures:
    """Return median and 99th percentile."""
    ordered = sorted(times)
    return {"p50": statistics.median(ordered), "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]}


def measure(only: Sequence[str], size: int) -> dict[str, object]:
    """Measure what is asked for; the scratch directory, and all that runs in it, is gone afterwards."""
    parts: dict[str, Callable[[Sequence[Daemon]], dict[str, Figures]]] = {
        "run": runs,
        "parallel": parallel,
        "rate": rates,
        "cycle": cycles,
        "exec": execs,
        "enter": enters,
        "crowd": functools.partial(crowd, size=size),
    }
    found: dict[str, object] = {
        "machine": {"linux": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "load": os.getloadavg()[0],
        "crowd_size": size,
    }
    with tempfile.TemporaryDirectory(prefix="windlass-bench.", ignore_cleanup_errors=True) as name:
        with both(Path(name), (windlassd, windlassd_own, containerd)) as daemons, accounted(daemons):
            for part, function in parts.items():
                if not only or part in only:
                    found[part] = function(daemons)
                    show(part, found[part])  # type: ignore[arg-type] # just made of figures
        Path(name).mkdir(exist_ok=True)  # for TemporaryDirectory to remove
    return found


def show(part: str, rows: dict[str, Figures]) -> None:
    """Print one part's figures and their ratios."""
    print(f"\n{part}: {WHAT[part]}")
    for name, row in rows.items():
        print(f"  {name:<12} " + "  ".join(f"{key} {value:.2f}" for key, value in row.items()))
    theirs = rows["containerd"]
    for name in ("windlass", "windlass-oci"):
        ratios = "  ".join(f"{key} {value / theirs[key]:.2f}" for key, value in rows[name].items() if theirs.get(key))
        print(f"  {name} / containerd: {ratios}")


def main() -> int:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--crowd", type=int, default=300, help="containers of the crowd (default 300)")
    parser.add_argument("--only", nargs="*", default=(), help=f"of {', '.join(WHAT)}")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (default %(default)s)")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("containers need root")
    report = measure(options.only, options.crowd)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
