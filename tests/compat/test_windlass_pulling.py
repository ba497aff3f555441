"""Images that `run`, `create` and compose pull by themselves, from a real registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.registries import needs_registry, registry
from compat.windlass_machine import IMAGE, NEEDS, Machine, running

pytestmark = [*NEEDS, needs_registry]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running("windlassd", tmp_path_factory.mktemp("m")) as machine:
        yield machine


@pytest.fixture
def pushed(machine: Machine, address: str) -> Iterator[str]:
    """An image that the registry has, and the daemon has not."""
    name = f"{address}/team/demo"
    assert machine.windlass("tag", IMAGE, f"{name}:latest").returncode == 0
    done = machine.windlass("push", "--plain-http", f"{name}:latest")
    assert done.returncode == 0, done.stderr
    machine.windlass("rmi", f"{name}:latest")
    yield name
    machine.remove_containers()
    machine.windlass("rmi", "-f", f"{name}:latest")


def names(machine: Machine) -> list[str]:
    return machine.windlass("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.decode().split()


def test_run_pulls_what_is_missing(machine: Machine, pushed: str) -> None:
    """With progress on standard error; the second run pulls nothing."""
    done = machine.windlass("run", "--rm", pushed, "echo", "ran")
    assert (done.returncode, done.stdout) == (0, b"ran\n"), done.stderr
    assert f"{pushed}:latest" in names(machine)
    again = machine.windlass("run", "--rm", pushed, "echo", "again")
    assert (again.stdout, again.stderr) == (b"again\n", b"")


def test_quiet_shows_no_progress(machine: Machine, pushed: str) -> None:
    done = machine.windlass("run", "--rm", "-q", pushed, "echo", "ran")
    assert (done.stdout, done.stderr) == (b"ran\n", b"")


def test_never_pulls_nothing(machine: Machine, pushed: str) -> None:
    done = machine.windlass("run", "--rm", "--pull", "never", pushed, "true")
    assert done.returncode == 125
    assert pushed.encode() in done.stderr and done.stderr.count(b"\n") == 1
    assert f"{pushed}:latest" not in names(machine)


def test_always_takes_what_the_registry_has_now(machine: Machine, pushed: str) -> None:
    """The tag has moved there since."""
    assert machine.windlass("create", "--name", "old", pushed, "true").returncode == 0
    assert machine.windlass("run", "--name", "changed", pushed, "sh", "-c", "echo new > /new").returncode == 0
    assert machine.windlass("commit", "changed", f"{pushed}:latest").returncode == 0
    assert machine.windlass("push", "--plain-http", f"{pushed}:latest").returncode == 0
    machine.remove_containers()
    assert machine.windlass("tag", IMAGE, f"{pushed}:latest").returncode == 0
    assert machine.windlass("run", "--rm", pushed, "cat", "/new").returncode != 0
    done = machine.windlass("run", "--rm", "--pull", "always", pushed, "cat", "/new")
    assert (done.returncode, done.stdout) == (0, b"new\n"), done.stderr


def test_a_name_that_the_registry_has_not_is_an_error_of_one_line(machine: Machine, address: str) -> None:
    done = machine.windlass("run", "--rm", "-q", f"{address}/team/none", "true")
    assert done.returncode == 125
    assert done.stderr.decode() == f"windlass: resolve {address}/team/none tag latest: {address}: 404 Not Found\n"


def test_compose_pulls_what_its_services_need(machine: Machine, pushed: str, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(f"services:\n  one:\n    image: {pushed}\n    command: [echo, ran]\n    network_mode: none\n")
    done = machine.windlass("compose", "-f", str(file), "pull")
    assert done.returncode == 0, done.stderr
    assert f"{pushed}:latest" in names(machine)
    machine.windlass("rmi", f"{pushed}:latest")
    up = machine.windlass("compose", "-f", str(file), "up", "--no-color")
    assert up.returncode == 0 and b"ran" in up.stdout, up.stderr
    assert machine.windlass("compose", "-f", str(file), "down").returncode == 0
