"""Restart labels: containers that come back, and that stay away, under Windlass and under containerd alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from compat.conftest import IMAGE
from compat.images import Archive
from compat.machines import Machine, eventually

RESTART = '[plugins."io.containerd.internal.v1.restart"]\ninterval = "1s"\n'
LABEL = "containerd.io/restart"
TIMEOUT = 20.0


@pytest.fixture(scope="module", params=["windlass", "containerd"])
def watcher(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, busy: Archive
) -> Iterator[Machine]:
    """A daemon that looks every second, and has the image."""
    machine = Machine(request.param, tmp_path_factory.mktemp("r"))
    with (machine.directory / "config.toml").open("a") as config:
        config.write(RESTART)
    try:
        machine.start()
        machine.ctr("images", "import", str(busy.path))
        yield machine
    finally:
        for container in machine.ctr("containers", "ls", "-q").split():
            machine.ctr("containers", "label", container, f"{LABEL}.status=")
        machine.close()


@pytest.fixture
def kept(watcher: Machine) -> Iterator[str]:
    """An id for a container, which is gone afterwards."""
    name = watcher.new_id()
    yield name
    watcher.try_ctr("containers", "label", name, f"{LABEL}.status=")  # a test may not have made it
    watcher.remove(name)


def run(machine: Machine, name: str, *command: str, **labels: str) -> None:
    """Start a container that is to run."""
    words = [word for key, value in labels.items() for word in ("--label", f"{LABEL}.{key}={value}")]
    machine.ctr("run", "-d", "--label", f"{LABEL}.status=running", *words, IMAGE, name, *command)


def pid(machine: Machine, name: str) -> str:
    return machine.rows("tasks", "ls").get(name, ["", "", ""])[1]


def count(machine: Machine, name: str) -> str:
    words = machine.ctr("containers", "info", name).split()
    key = f'"{LABEL}.count":'
    return words[words.index(key) + 1].strip('",') if key in words else ""


def test_a_killed_task_comes_back(watcher: Machine, kept: str) -> None:
    """With a new pid, and the count says so."""
    run(watcher, kept, "/bin/sleep", "1000")
    first = pid(watcher, kept)
    watcher.ctr("tasks", "kill", "-s", "SIGKILL", kept)
    eventually(lambda: watcher.status(kept) == "RUNNING" and pid(watcher, kept) != first, TIMEOUT)
    if watcher.kind == "windlass":  # containerd counts since 1.7
        assert count(watcher, kept) == "1"


def test_what_it_writes_after_a_restart_goes_to_its_log(watcher: Machine, kept: str, tmp_path: Path) -> None:
    """The first run had a client for that."""
    log = tmp_path / "a log"
    run(watcher, kept, "/bin/sh", "-c", "echo hello; sleep 1000", loguri=f"file://{quote(str(log))}")
    watcher.ctr("tasks", "kill", "-s", "SIGKILL", kept)
    eventually(lambda: log.exists() and log.read_text() == "hello\n", TIMEOUT)


def test_a_container_that_failed_often_enough_stays_stopped(watcher: Machine, kept: str) -> None:
    """`on-failure:2` is one run and two more."""
    if watcher.kind == "containerd":
        pytest.skip("containerd has policies since 1.7")
    run(watcher, kept, "/bin/sh", "-c", "exit 3", policy="on-failure:2")
    eventually(lambda: count(watcher, kept) == "2", TIMEOUT)
    eventually(lambda: watcher.status(kept) == "STOPPED")
    other = watcher.new_id()
    run(watcher, other, "/bin/sleep", "1000")
    watcher.ctr("tasks", "kill", "-s", "SIGKILL", other)
    eventually(lambda: count(watcher, other) == "1", TIMEOUT)
    assert (count(watcher, kept), watcher.status(kept)) == ("2", "STOPPED")


def test_a_container_that_is_to_be_stopped_is(watcher: Machine, kept: str) -> None:
    """A label is enough."""
    run(watcher, kept, "/bin/sleep", "1000", policy="unless-stopped")
    watcher.ctr("containers", "label", kept, f"{LABEL}.status=stopped")
    eventually(lambda: watcher.status(kept) == "", TIMEOUT)
