"""`/v1/metrics` while a container runs: the names that containerd has for its values, with values that are right."""

from __future__ import annotations

import importlib.util
import re
import socket
import urllib.request
from collections.abc import Iterator

import pytest
from compat.conftest import IMAGE
from compat.images import Archive
from compat.machines import Machine, eventually

LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Metered(Machine):
    """A daemon with a metrics listener and a container that sleeps."""

    port: int

    def samples(self) -> dict[str, dict[str, float]]:
        """Return values by name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/metrics", timeout=20) as answer:
            text = answer.read().decode()
        found: dict[str, dict[str, float]] = {}
        for name, labels, value in LINE.findall(text):
            found.setdefault(name, {})[labels] = float(value)
        return found

    def of_containers(self) -> dict[str, dict[str, float]]:
        return {name: values for name, values in self.samples().items() if name.startswith("container_")}


def metered(kind: str, tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Metered]:
    machine = Metered(kind, tmp_path_factory.mktemp("m"))
    machine.port = free_port()
    with (machine.directory / "config.toml").open("a") as config:
        config.write(f'[metrics]\naddress = "127.0.0.1:{machine.port}"\n')
    try:
        machine.start()
        machine.ctr("images", "import", str(busy.path))
        machine.ctr("run", "-d", "--memory-limit", "67108864", IMAGE, "sleeper", "/bin/sleep", "1000")
        yield machine
    finally:
        machine.close()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Metered]:
    if importlib.util.find_spec("prometheus_client") is None:
        pytest.skip("prometheus-client is not installed; pip install 'windlass-server[metrics]'")
    yield from metered("windlass", tmp_path_factory, busy)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Metered]:
    yield from metered("containerd", tmp_path_factory, busy)


def test_every_value_has_containerds_name_and_labels(ours: Metered, theirs: Metered) -> None:
    """Dashboards made for containerd go on working; we may know more."""

    def shapes(machine: Metered) -> set[tuple[str, ...]]:
        return {
            (name, *sorted(set(LABEL.findall(labels)) - {"runtime"}))
            for name, values in machine.of_containers().items()
            for labels in values
        }

    eventually(lambda: theirs.of_containers())
    assert shapes(theirs) - shapes(ours) == set()


def test_the_values_are_the_containers(ours: Metered) -> None:
    """One process, within its limit."""
    labels = f'container_id="sleeper",namespace="{ours.namespace}"'
    found = ours.of_containers()
    assert found["container_pids_current"] == {labels: 1}
    usage = found.get("container_memory_usage_bytes") or found["container_memory_usage_usage_bytes"]
    assert 0 < usage[labels] < 67108864


def test_the_daemon_accounts_for_its_plugins(ours: Metered) -> None:
    """Who asked whom how often."""
    calls = ours.samples()["windlass_plugin_calls_total"]
    assert calls['method="create",plugin="io.containerd.runtime.v2.task"'] == 1
    ours.try_ctr("tasks", "kill", "nobody")
    failures = ours.samples()["windlass_plugin_failures_total"]
    assert failures['method="containers.get_encoded",plugin="io.containerd.metadata.v1.bolt"'] >= 1
