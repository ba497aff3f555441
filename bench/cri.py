"""Measures CRI: pods, containers and a kubelet's questions; Windlass and containerd 2.x with CRI by turns.

python bench/cri.py [--containerd DIRECTORY] [--rounds N] [--pods N] [--only NAME…] [--json FILE]
(as root; Debian packages runc, busybox-static, containernetworking-plugins, iptables, containerd for its ctr)

Both have the same runc, CNI plugins, network, image and requests, so read the
ratios. Without a containerd of 2.x only Windlass and the floor are measured:
what runc and the CNI plugins take when no daemon executes them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from daemons import remove_cgroups
from nodes import PLUGINS, TIMEOUT, Node, each_in_turn, network, nodes
from start import RawRunc, memory, milliseconds

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_linux import netns

RESULTS = Path(__file__).parent / "results" / "cri.json"
AT_ONCE = 20
SETTLE = 0.1
"""Seconds for what a daemon does after its answer."""
IDLE = 30.0
CROWD = 200
"""Containers of a daemon that crashes."""
LOST_AFTER = 60.0

WHAT = {
    "host": ("RunPodSandbox, host network, ms", 0.20),
    "bridge": ("RunPodSandbox, bridge, host-local, portmap, ms", 0.55),
    "port": ("... with a port of the host, ms", None),
    "container": ("CreateContainer + StartContainer, ms", 0.60),
    "exec": ("ExecSync, ms", 0.75),
    "remove": ("StopPodSandbox + RemovePodSandbox, bridge, ms", 0.60),
    "life": ("a pod's whole life, ms", None),
    "host cpu": ("RunPodSandbox, host network, processor ms", None),
    "bridge cpu": ("RunPodSandbox, bridge, processor ms", None),
    "port cpu": ("... with a port of the host, processor ms", None),
    "container cpu": ("CreateContainer + StartContainer, processor ms", None),
    "exec cpu": ("ExecSync, processor ms", None),
    "remove cpu": ("StopPodSandbox + RemovePodSandbox, processor ms", None),
    "life cpu": ("a pod's whole life, processor ms", 0.50),
    "parallel": (f"{AT_ONCE} pods at once, pods a second", 2.0),
    "parallel with containers": ("... each with a container", None),
    "memory": ("memory of a pod beyond the workload, PSS, MB", 0.30),
    "kubelet": ("what a kubelet asks in a minute, processor ms", 1.0),
    "restart": ("Ready after kill -9 with 200 containers, s", 1.0),
    "idle": ("idle, per cent of a processor", None),
    "resident": ("idle, the daemon's resident memory, MB", None),
}
"""What is measured, and at most how much of containerd's it may take: at least for the figure that counts pods."""

Samples = dict[str, dict[str, list[float]]]


class Record:
    """The samples of each node."""

    def __init__(self) -> None:
        self.samples: Samples = {}

    def add(self, node: Node, what: str, value: float) -> None:
        """Note one."""
        self.samples.setdefault(what, {}).setdefault(node.name, []).append(value)

    @contextlib.contextmanager
    def timed(self, node: Node, what: str) -> Iterator[None]:
        """Note the milliseconds of the block, and those of processor time."""
        used, began = node.processor(), time.perf_counter()
        yield
        self.add(node, what, (time.perf_counter() - began) * 1000)
        time.sleep(SETTLE)
        self.add(node, f"{what} cpu", (node.processor() - used) * 1000)


def steps(record: Record, wanted: Sequence[Node], rounds: int) -> None:
    """Time each step of a pod's life, and then a whole one."""
    for node in wanted:  # the first pod imports, and makes the bridge
        _life(node, "first")
    for number, node in each_in_turn(wanted, rounds):
        time.sleep(SETTLE)
        with record.timed(node, "host"):
            pod = node.run_pod(f"h{number}", host=True)
        node.remove_pod(pod)
        time.sleep(SETTLE)
        with record.timed(node, "port"):
            pod = node.run_pod(f"p{number}", port=20000 + number)
        node.remove_pod(pod)
        time.sleep(SETTLE)
        with record.timed(node, "bridge"):
            pod = node.run_pod(f"b{number}")
        with record.timed(node, "container"):
            container = node.run_container(pod)
        with record.timed(node, "exec"):
            request = cri.ExecSyncRequest(container_id=container, cmd=["/bin/true"], timeout=60)
            if node.runtime.ExecSync(request, timeout=TIMEOUT).exit_code:
                raise RuntimeError(f"{node.name}: /bin/true failed")
        with record.timed(node, "remove"):
            node.remove_pod(pod)
        with record.timed(node, "life"):
            _life(node, f"l{number}")


def _life(node: Node, name: str) -> None:
    node.remove_pod(node.run_full_pod(name))


def parallel(record: Record, wanted: Sequence[Node], rounds: int) -> None:
    """Count pods a second when many are asked for at once."""
    for number, node in each_in_turn(wanted, rounds):
        names = [f"a{number}-{each}" for each in range(AT_ONCE)]
        for what, make in (("parallel", node.run_pod), ("parallel with containers", node.run_full_pod)):
            with ThreadPoolExecutor(AT_ONCE) as pool:
                began = time.perf_counter()
                pods = list(pool.map(make, names))
                record.add(node, what, AT_ONCE / (time.perf_counter() - began))
                list(pool.map(node.remove_pod, pods))
            time.sleep(SETTLE)


class Crowd:
    """A node full of pods with a container each."""

    def __init__(self, node: Node, count: int) -> None:
        self.node = node
        empty = node.weight()
        self._idle_at: tuple[float, float] = (0, 0)
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(self._make, range(count)))
        self._pods, self._containers = [pod for pod, _ in made], [container for _, container in made]
        self._empty = empty

    def _make(self, number: int) -> tuple[str, str]:
        pod = self.node.run_pod(f"c{number}", group=f"pod{number}")
        return pod, self.node.run_container(pod)

    def weight(self) -> float:
        """Return the megabytes that a pod takes, without its workload."""
        return (self.node.weight() - self._empty) / len(self._pods)

    def minute(self) -> float:
        """Ask what a kubelet asks in a minute, and return the seconds of processor time that the answers took.

        The lists are as often as a kubelet of 1.36 was seen to ask, the statuses once for each pod and container.
        """
        node, used = self.node, self.node.processor()
        events = node.runtime.GetContainerEvents(cri.GetEventsRequest())
        reading = threading.Thread(target=_read, args=(events,))
        reading.start()
        for number in range(112):
            node.runtime.ListContainers(cri.ListContainersRequest(), timeout=TIMEOUT)
            node.runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=TIMEOUT)
            if number % 7 == 0:
                node.ready()
            if number % 9 == 0:
                node.images.ImageFsInfo(cri.ImageFsInfoRequest(), timeout=TIMEOUT)
            if number % 18 == 0:
                node.runtime.ListContainerStats(cri.ListContainerStatsRequest(), timeout=TIMEOUT)
                node.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest(), timeout=TIMEOUT)
        for pod, container in zip(self._pods, self._containers, strict=True):
            node.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=pod), timeout=TIMEOUT)
            node.runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=container), timeout=TIMEOUT)
        events.cancel()
        reading.join()
        return node.processor() - used

    def grow(self, containers: int) -> None:
        """Run further containers in the pods, until there are so many."""
        wanted = max(0, containers - len(self._pods))
        chosen = [(self._pods[number % len(self._pods)], f"more{number}") for number in range(wanted)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda each: self.node.run_container(*each), chosen))

    def crash(self) -> float:
        """Let the daemon crash and come back; return the seconds until it is ready and has all containers running."""
        node, before = self.node, self.node.running()
        node.disconnect()
        node.daemon.crash()
        node.daemon.start()
        node.connect()
        while not (node.ready() and node.running() == before):
            if time.perf_counter() - node.daemon.began > LOST_AFTER:
                raise RuntimeError(f"{node.name}: {node.running()} of {before} containers run after a crash")
            time.sleep(0.005)
        return time.perf_counter() - node.daemon.began


def _read(events: Iterator[cri.ContainerEventResponse]) -> None:
    with contextlib.suppress(grpc.RpcError):
        for _ in events:
            pass


def crowds(record: Record, wanted: Sequence[Node], pods: int, rounds: int) -> None:
    """Fill the nodes; then weigh them, ask what a kubelet asks, and let the daemons crash."""
    full = {node.name: Crowd(node, pods) for node in wanted}
    time.sleep(IDLE)  # what has just run is let go of
    used, began = {node.name: node.processor() for node in wanted}, time.perf_counter()
    time.sleep(IDLE)
    for node in wanted:
        share = (node.processor() - used[node.name]) / (time.perf_counter() - began)
        record.add(node, "idle", share * 100)
        record.add(node, "resident", memory(node.daemon.pid)["rss"])
        record.add(node, "memory", full[node.name].weight())
    for _, node in each_in_turn(wanted, rounds):
        record.add(node, "kubelet", full[node.name].minute() * 1000)
    for crowd in full.values():
        crowd.grow(CROWD)
    for _, node in each_in_turn(wanted, rounds):
        record.add(node, "restart", full[node.name].crash())


def floor(node: Node, scratch: Path, rounds: int) -> dict[str, float]:
    """Return the milliseconds of runc and of the CNI plugins when no daemon is between."""
    node.daemon.run("images", "import", str(scratch / "image.tar"))
    raw, plugins = RawRunc(node.daemon, scratch), Plugins(scratch / "floor")
    runs = [milliseconds(raw.command(f"f{number}")) for number in range(rounds)]
    remove_cgroups(raw.name)
    added, removed = zip(*(plugins.attach_and_detach() for _ in range(rounds)), strict=True)
    found = {"runc run": runs, "bridge and portmap, ADD": added, "portmap and bridge, DEL": removed}
    return {what: statistics.median(values) for what, values in found.items()}


class Plugins:
    """The CNI plugins of the nodes' network, executed one after the other."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self._place = place
        self._head, self._plugins = network(place)

    def attach_and_detach(self) -> tuple[float, float]:
        """Return the milliseconds of both."""
        host, pod = self._place / "host", self._place / "pod"
        for path in (host, pod):
            netns.create(path)
        try:
            began = time.perf_counter()
            result = None
            for plugin in self._plugins:
                result = self._run("ADD", plugin, result)
            between = time.perf_counter()
            for plugin in reversed(self._plugins):
                self._run("DEL", plugin, result)
            return (between - began) * 1000, (time.perf_counter() - between) * 1000
        finally:
            for path in (pod, host):
                netns.remove(path)

    def _run(self, command: str, plugin: dict[str, object], previous: object) -> object:
        conf = {**self._head, **plugin, **({"prevResult": previous} if previous else {})}
        names = {"CNI_COMMAND": command, "CNI_CONTAINERID": "floor", "CNI_IFNAME": "eth0", "CNI_PATH": str(PLUGINS)}
        done = subprocess.run(
            ["nsenter", f"--net={self._place}/host", str(PLUGINS / str(plugin["type"]))],
            input=json.dumps(conf).encode(),
            stdout=subprocess.PIPE,
            check=True,
            timeout=TIMEOUT,
            env={**os.environ, **names, "CNI_NETNS": str(self._place / "pod")},
        )
        return json.loads(done.stdout) if done.stdout else None


def measure(containerd: Path | None, only: Sequence[str], rounds: int, pods: int) -> dict[str, object]:
    """Measure; the scratch directory, and all that runs in it, is gone afterwards."""
    record, before = Record(), os.getloadavg()[0]
    parts: dict[str, Callable[[Sequence[Node]], None]] = {
        "steps": lambda wanted: steps(record, wanted, rounds),
        "parallel": lambda wanted: parallel(record, wanted, 4),
        "crowd": lambda wanted: crowds(record, wanted, pods, 5),
    }
    loads = {"before": before}
    with tempfile.TemporaryDirectory(prefix="windlass-bench.", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        with nodes(scratch, containerd) as wanted:
            bare = floor(wanted[0], scratch, rounds)
            for part in only or parts:
                parts[part](wanted)
                loads[part] = os.getloadavg()[0]
        scratch.mkdir()  # for TemporaryDirectory to remove
    return {
        "machine": {"linux": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "load": loads,
        "rounds": rounds,
        "pods": pods,
        "floor": bare,
        "samples": record.samples,
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of what each round says, which a change of the machine's load moves least."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True) if other)


def show(loads: dict[str, float], floors: dict[str, float], samples: Samples) -> None:
    """Print the figures and their ratios."""
    print("load average: " + ", ".join(f"{load:.2f} {when}" for when, load in loads.items()))
    print("floor, ms: " + ", ".join(f"{what} {value:.1f}" for what, value in floors.items()))
    print(f"{'medians':<58} {'windlass':>9} {'containerd':>11} {'ratio':>6} {'required':>9}")
    for what, (text, limit) in WHAT.items():
        if (row := samples.get(what)) is None:
            continue
        line = f"{text:<58} {statistics.median(row['windlass']):>9.2f}"
        if "containerd" in row:
            found = ratio(row["windlass"], row["containerd"])
            line += f" {statistics.median(row['containerd']):>11.2f} {found:>6.2f} {limit or '':>9}"
        print(line)


def main() -> int:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--containerd", type=Path, help="directory of containerd 2.x and its shim (default: none)")
    parser.add_argument("--only", nargs="+", default=[], choices=["steps", "parallel", "crowd"], help="parts to run")
    parser.add_argument("--rounds", type=int, default=25, help="of each step (default %(default)s)")
    parser.add_argument("--pods", type=int, default=110, help="of the crowd (default %(default)s)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (default %(default)s)")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("containers need root")
    report = measure(options.containerd, options.only, options.rounds, options.pods)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    show(report["load"], report["floor"], report["samples"])  # type: ignore[arg-type] # the parts differ; show knows them
    print(f"\n{options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
