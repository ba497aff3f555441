"""`windlass compose` on Windlass and on containerd: services start in order and reach each other; nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.images import Archive
from compat.machines import eventually
from compat.network_machine import IMAGE, INSIDE, WINDLASS, NetworkMachine, Result, running_network

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

FILE = """
x-server: &server
  image: {image}
  stop_grace_period: 1s
services:
  web:
    <<: *server
    command: ["sh", "-c", "echo web > /tmp/index.html; echo ready; exec busybox httpd -f -p 80 -h /tmp"]
    ports: ["8080:80"]
    environment: {{GREETING: "${{GREETING:-none}}"}}
    depends_on: {{db: {{condition: service_healthy}}, setup: {{condition: service_completed_successfully}}}}
    volumes: ["data:/data:ro"]
  db:
    <<: *server
    command: ["sh", "-c", "sleep 1; echo db > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp"]
    healthcheck: {{test: busybox wget -qO- http://localhost/, interval: 200ms, retries: 50}}
    networks: {{default: {{aliases: [database]}}}}
  setup:
    <<: *server
    command: ["sh", "-c", "echo made > /data/file"]
    volumes: ["data:/data"]
  tool:
    <<: *server
    profiles: [tools]
    command: ["sh", "-c", "exit 3"]
volumes:
  data:
"""


class Project:
    """A directory with a compose file, and `windlass compose` in it."""

    def __init__(self, machine: NetworkMachine, directory: Path) -> None:
        self.machine = machine
        self.file = directory / "compose.yaml"
        self.write(FILE)

    def write(self, text: str) -> None:
        self.file.write_text(text.format(image=IMAGE))

    def compose(self, *arguments: str, **environment: str) -> Result:
        words = ("compose", "-p", "shop", "-f", str(self.file), *arguments)
        return self.machine.windlass(*words, **environment)

    def ok(self, *arguments: str, **environment: str) -> str:
        done = self.compose(*arguments, **environment)
        assert done.returncode == 0, f"windlass compose {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def members(self) -> dict[str, dict[str, str]]:
        return {each["name"]: each for each in json.loads(self.ok("ps", "-a", "--format", "json"))}


@pytest.fixture(scope="module", params=["containerd", "windlassd"])
def machine(
    request: pytest.FixtureRequest, busy: Archive, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NetworkMachine]:
    yield from running_network(request.param, busy, tmp_path_factory.mktemp("c"))


@pytest.fixture
def project(machine: NetworkMachine, tmp_path: Path) -> Iterator[Project]:
    """A project that its test takes down; then nothing of it is left."""
    yield Project(machine, tmp_path)
    left = {
        "containers": machine.ok("ps", "-aq"),
        "networks": machine.ok("network", "ls", "-q", "-f", "label=com.docker.compose.project=shop"),
        "volumes": machine.ok("volume", "ls", "-q"),
    }
    machine.windlass("compose", "-p", "shop", "down", "-v")
    assert left == {"containers": "", "networks": "", "volumes": ""}
    assert machine.left() == []


def test_services_start_in_order_and_reach_each_other_by_name(project: Project) -> None:
    """The server after the database is healthy, and after what fills its volume has ended."""
    machine = project.machine
    project.ok("up", "-d", GREETING="hello")
    assert machine.fetch(f"http://{INSIDE}:8080/") == "web"
    for box, name, answer in (("web", "db", "db"), ("web", "database", "db"), ("db", "web", "web")):
        assert machine.ok("exec", f"shop-{box}-1", "busybox", "wget", "-qO-", f"http://{name}/") == f"{answer}\n"
    assert project.ok("exec", "web", "cat", "/data/file") == "made\n"
    assert project.ok("exec", "-T", "web", "sh", "-c", "echo $GREETING") == "hello\n"
    assert project.compose("exec", "web", "sh", "-c", "exit 4").returncode == 4
    members = project.members()
    assert {name: each["state"] for name, each in members.items()} == {
        "shop-db-1": "running",
        "shop-setup-1": "exited",
        "shop-web-1": "running",
    }
    assert members["shop-db-1"]["health"] == "healthy" and "8080->80/tcp" in members["shop-web-1"]["ports"]
    assert "web-1    | ready" in project.ok("logs", "--no-color").splitlines()
    project.ok("down", "-v")


only_ours = pytest.mark.parametrize("machine", ["windlassd"], indirect=True)


@only_ours
def test_up_again_makes_anew_only_what_changed(project: Project) -> None:
    """Containers keep their IDs unless their service, or its variables, changed."""
    project.ok("up", "-d")
    again = project.compose("up", "-d").stderr
    assert " Container shop-web-1  Running" in again and "Created" not in again
    changed = project.compose("up", "-d", GREETING="changed").stderr
    assert [line.split()[-2:] for line in changed.splitlines() if "Created" in line] == [["shop-web-1", "Created"]]
    assert " Container shop-db-1  Running" in changed
    project.write(FILE.replace("  setup:\n", "  renamed:\n").replace("setup:", "renamed:"))
    assert "shop-setup-1; --remove-orphans removes them" in project.compose("up", "-d", "--no-deps", "db").stderr
    project.ok("stop")
    assert {each["state"] for each in project.members().values()} == {"exited"}
    project.machine.ok("compose", "-p", "shop", "start", "db")
    assert project.members()["shop-db-1"]["state"] == "running"
    project.machine.ok("compose", "-p", "shop", "down", "-v")


@only_ours
def test_a_scale_and_a_one_off_container(project: Project) -> None:
    """More containers of one service; a container for one command, with the service's network."""
    project.write(FILE.replace('    ports: ["8080:80"]\n', ""))
    project.ok("up", "-d", "--scale", "web=2")
    assert {name for name in project.members() if "web" in name} == {"shop-web-1", "shop-web-2"}
    fetched = project.ok("run", "--rm", "-T", "--no-deps", "tool", "busybox", "wget", "-qO-", "http://db/")
    assert fetched == "db\n"
    assert project.compose("run", "--rm", "--no-deps", "tool").returncode == 3
    project.ok("restart", "web")
    assert project.machine.ok("exec", "shop-db-1", "busybox", "wget", "-qO-", "http://web/") == "web\n"
    project.ok("down", "-v")


@only_ours
def test_up_in_the_foreground_ends_with_an_interrupt(project: Project) -> None:
    """Output with names; ^C stops all, in order."""
    machine = project.machine
    environment = {**os.environ, "WINDLASS_CLIENT_DATA": str(machine.data)}
    environment |= {"NETCONFPATH": str(machine.conf), "CNI_PATH": str(machine.bin)}
    words = [str(WINDLASS), "--address", machine.address, "--namespace", machine.namespace, "compose"]
    command = ["nsenter", f"--net={machine.host.path}", *words, "-p", "shop", "-f", str(project.file), "up"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        seen: list[str] = []
        until = time.monotonic() + 60
        while not any("| ready" in line for line in seen):
            assert time.monotonic() < until, seen
            seen.append(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(30) == 130, rest
    assert "web-1  | ready\n" in [line.replace("    |", "  |") for line in seen], seen
    eventually(lambda: {each["state"] for each in project.members().values()} == {"exited"})
    project.ok("down", "-v")


@only_ours
def test_what_cannot_be_is_one_line(project: Project) -> None:
    """A dependency that fails, a port that is taken, a file that is wrong: and what was there is as before."""
    project.write(FILE.replace("sleep 1; echo db", "exit 5; echo db"))
    failed = project.compose("up", "-d")
    assert failed.returncode == 1
    assert 'windlass: service "web" waits for db, and shop-db-1 has ended with 5' in failed.stderr.splitlines()[-1]
    project.write(FILE.replace("    ports:", "    prots:"))
    wrong = project.compose("up", "-d")
    assert wrong.returncode == 1
    assert "compose.yaml:9: services.web.prots: the Compose specification has no key 'prots'; did you" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    project.write(FILE)
    project.ok("down", "-v")
