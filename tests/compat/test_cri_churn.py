"""Many pods made and removed by several clients, with kills of the daemon and of shims: nothing is left of them.

WINDLASS_CHURN says how many pods; the figures that it prints are for the release notes.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import groups
import grpc
import pytest
from compat.cri_daemon import CriDaemon, running_cri
from compat.scratch_daemon import mounts_below, processes_of, wait_until
from compat.test_cri_network import assert_nothing_left

from windlass_api.runtime.v1 import api_pb2 as cri

PODS = int(os.environ.get("WINDLASS_CHURN", "0"))
CLIENTS = 8
KILL_EVERY = 25
"""Pods: a busy machine takes its time to start a daemon, and has to get on in between."""
TABLES = ("sandboxes", "containers", "leases", "snapshots")

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not PODS, reason="it takes minutes: WINDLASS_CHURN=400 makes so many pods"),
]


class Churn:
    """Clients that make pods until there were enough; a call that a crash cuts off is made again."""

    def __init__(self, daemon: CriDaemon) -> None:
        self.daemon = daemon
        self.made = 0
        self._lock = threading.Lock()

    def live(self, number: int) -> None:
        count = 0
        while self.made < PODS:
            config = self.daemon.pod_config(f"churn-{number}-{count}")
            if number % 2:
                config.port_mappings.add(host_port=8000 + number, container_port=80)
            with contextlib.suppress(grpc.RpcError, ValueError):
                pod = self.daemon.run_pod(config)
                count += 1
                with self._lock:
                    self.made += 1
                container = self.daemon.run_container(pod)
                self.daemon.exec(container, "/bin/true")
                self.daemon.stop_pod(pod)
                self.daemon.remove_pod(pod)
                continue
            time.sleep(0.1)

    def disturb(self) -> None:
        """Kill the daemon and some shims until all is done."""
        chance, last = random.Random(1), 0
        while self.made < PODS:
            time.sleep(0.3)
            shims = [line for line in processes_of(self.daemon.scratch) if "shim" in line]
            if shims and chance.random() < 0.05:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(chance.choice(shims).split()[0]), signal.SIGKILL)
            if self.made - last >= KILL_EVERY:
                last = self.made
                self.daemon.restart()


def memory(pid: int) -> int:
    """KiB of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def records(daemon: CriDaemon) -> dict[str, int]:
    """How many rows there are of what pods have; a daemon that runs keeps them to itself."""
    daemon.kill()
    (path,) = daemon.root.glob("io.containerd.metadata.v1.*/*.db")
    with contextlib.closing(sqlite3.connect(path)) as database:
        found = {table: database.execute(f"select count(*) from {table}").fetchone()[0] for table in TABLES}
    daemon.start()
    daemon.pods()  # it is ready
    return found


def cgroups(name: str) -> Iterator[Path]:
    for path in Path("/sys/fs/cgroup").glob(f"**/{name}/*"):
        if path.is_dir() and len(path.name) == 64:
            yield path


def wait_gone(what: str, look: object) -> None:
    assert callable(look)
    assert wait_until(lambda: not look(), 60), (what, look())


def test_nothing_is_left_of_many_pods(tmp_path: Path) -> None:
    with running_cri(tmp_path, runtime="netns_mounts_under_state_dir = true") as daemon:
        _churn(daemon)


def _churn(daemon: CriDaemon) -> None:
    config = daemon.pod_config()
    config.port_mappings.add(host_port=8000, container_port=80)  # the plugin keeps its chains
    with daemon.pod(config) as pod:
        daemon.run_container(pod)
    before, rules = records(daemon), daemon.on_host("iptables-save").count("\n")
    start, churn = time.monotonic(), Churn(daemon)
    with ThreadPoolExecutor(CLIENTS + 1) as clients:
        jobs = [clients.submit(churn.live, number) for number in range(CLIENTS)]
        jobs.append(clients.submit(churn.disturb))
        for job in jobs:
            job.result()
    took = time.monotonic() - start
    for left in daemon.pods():
        daemon.remove_pod(left.id)
    daemon.restart()
    wait_gone("pods' directories", lambda: list(daemon.root.glob("*/sandboxes/*")))
    wait_gone("containers' directories", lambda: list(daemon.root.glob("io.containerd.grpc.v1.cri/containers/*")))
    wait_gone("FIFOs", lambda: list(daemon.state.glob("io.containerd.grpc.v1.cri/containers/*")))
    wait_gone("sandboxes", lambda: list(daemon.state.glob("io.containerd.sandbox.controller.v1.windlass/k8s.io/*")))
    wait_gone("tasks", lambda: list(daemon.state.glob("io.containerd.runtime.v2.task/k8s.io/*")))
    wait_gone("mounts", lambda: [each for each in mounts_below(daemon.scratch) if "host" not in each])
    wait_gone("network namespaces", lambda: list(daemon.state.glob("*/netns/*")))
    wait_gone("control groups", lambda: list(cgroups(groups.NAME)))
    wait_gone("processes", lambda: [e for e in processes_of(daemon.scratch) if not e.startswith(f"{daemon.pid} ")])
    assert_nothing_left(daemon)
    assert wait_until(lambda: records(daemon) == before, 60), (records(daemon), before)
    assert daemon.on_host("iptables-save").count("\n") == rules
    handles = [os.readlink(each) for each in Path(f"/proc/{daemon.pid}/fd").iterdir() if each.is_symlink()]
    assert not [each for each in handles if each.endswith((".log", "-stdout", "-stderr"))]
    sys.stderr.write(f"\n{churn.made} pods in {took:.0f} s; PSS {memory(daemon.pid)} KiB; {len(handles)} descriptors\n")
    _steady(daemon)


def _steady(daemon: CriDaemon) -> None:
    """Without crashes one daemon's memory and descriptors stay as they are."""
    seen = []
    for _ in range(3):
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(lambda _: _one(daemon), range(24)))
        time.sleep(2)
        seen.append((memory(daemon.pid), len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))))
    sys.stderr.write(f"after 24, 48 and 72 pods: {seen}\n")
    # The first lot opens what threads keep, such as databases.
    assert seen[2][1] <= seen[1][1] + 2
    assert seen[2][0] <= seen[1][0] * 1.1


def _one(daemon: CriDaemon) -> None:
    with daemon.pod() as pod:
        daemon.run_container(pod)
    daemon.runtime.Version(cri.VersionRequest(), timeout=20)
