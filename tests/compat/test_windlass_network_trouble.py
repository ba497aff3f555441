"""Networks of `windlass run` when something is wrong: ports, plugins, kills, a boot; and many containers at once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from compat.images import Archive
from compat.machines import eventually
from compat.network_machine import IMAGE, INSIDE, PLUGINS, RUN, NetworkMachine, running_network

from windlass_linux import cgroups, netns

KINDS = os.environ.get("WINDLASS_NETWORK_DAEMONS", "windlassd").split()
"""Also `containerd` by hand; the tests of traffic always have both."""
CHURN = int(os.environ.get("WINDLASS_NETWORK_CHURN", "4"))
"""Containers of the test that makes many; 200 by hand."""


@pytest.fixture(scope="module", params=KINDS)
def machine(
    request: pytest.FixtureRequest, busy: Archive, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NetworkMachine]:
    yield from running_network(request.param, busy, tmp_path_factory.mktemp("n"))


@pytest.fixture(autouse=True)
def clean(machine: NetworkMachine) -> Iterator[None]:
    """Each test removes its containers; then nothing of their networks is left."""
    yield
    machine.clean()
    assert machine.left() == []


def test_a_port_that_is_taken_is_refused_with_who_has_it(machine: NetworkMachine) -> None:
    with netns.within(machine.host.path, lambda: socket.create_server(("", 8090))):
        line = machine.refused("run", "--name", "late", "-p", "8090:80", IMAGE, "true")
        assert f"port 8090/tcp is in use by process {os.getpid()} (" in line
    machine.serve("web", "-p", "8090:80")
    line = machine.refused("run", "--name", "late", "-p", "127.0.0.1:8090:80", IMAGE, "true")
    assert "port 127.0.0.1:8090/tcp is in use by container web" in line
    machine.ok("run", "--rm", "-p", "8090:80/udp", IMAGE, "true")
    assert machine.ok("ps", "-aq") == "web\n"


@contextmanager
def broken(machine: NetworkMachine, script: str) -> Iterator[None]:
    """Have the plugin firewall run ``script`` first."""
    plugin = machine.bin / "firewall"
    plugin.unlink()
    plugin.write_text(f"#!/bin/sh\n{script}\nexec {PLUGINS}/firewall\n")
    plugin.chmod(0o755)
    try:
        yield
    finally:
        plugin.unlink()
        plugin.symlink_to(PLUGINS / "firewall")


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("""echo '{"code": 7, "msg": "no luck"}'; exit 1""", "CNI plugin firewall failed at ADD: no luck (code 7)"),
        ("echo hello; exit 0", "CNI plugin firewall printed no JSON object at ADD: 'hello'"),
        ("echo oops >&2; kill -9 $$", "CNI plugin firewall failed at ADD: killed by signal 9: oops"),
        ("sleep 100", "CNI plugin firewall did not end ADD within 12 s"),
    ],
    ids=["fails", "garbage", "dies", "hangs"],
)
def test_a_plugin_that_fails_is_named_and_nothing_is_left(machine: NetworkMachine, act: str, words: str) -> None:
    with broken(machine, f"[ $CNI_COMMAND = ADD ] && {{ {act}; }}"):
        line = machine.refused("run", "--name", "bad", "-p", "8080:80", IMAGE, "true")
    assert line == f'windlass: container bad: network "bridge": {words}'
    assert machine.ok("ps", "-aq") == "" and machine.left() == []


def test_a_plugin_that_does_not_detach_is_asked_again(machine: NetworkMachine) -> None:
    machine.serve("web", "-p", "8080:80")
    with broken(machine, '[ $CNI_COMMAND = DEL ] && { echo \'{"code": 7, "msg": "no luck"}\'; exit 1; }'):
        line = machine.refused("rm", "-f", "web", code=1)
    assert 'network "bridge": CNI plugin firewall failed at DEL: no luck' in line
    machine.serve("web", "-p", "8080:80")
    eventually(lambda: machine.fetch(f"http://{INSIDE}:8080/") == "web")


def test_missing_plugins_are_said_with_the_remedy(machine: NetworkMachine, tmp_path: Path) -> None:
    line = machine.refused("run", "--rm", IMAGE, "true", CNI_PATH=str(tmp_path))
    assert f"CNI plugins bridge, firewall, host-local, portmap not found in {tmp_path}" in line
    assert "apt install containernetworking-plugins" in line
    for network in ("none", "host"):
        done = machine.windlass("run", "--rm", "--network", network, IMAGE, "true", CNI_PATH=str(tmp_path))
        assert done.returncode == 0, done.stderr


def test_networks_that_overlap_or_are_in_use_are_refused(machine: NetworkMachine) -> None:
    machine.ok("network", "create", "--subnet", "10.140.0.0/24", "--label", "team=a", "one")
    line = machine.refused("network", "create", "--subnet", "198.51.100.0/25", "two", code=1)
    assert "overlaps 198.51.100.0/24 of interface up0 of this host" in line
    machine.serve("web", "--network", "one")
    assert "network one is in use by container web" in machine.refused("network", "rm", "one", code=1)
    assert 'network "nowhere" does not exist' in machine.refused("run", "--network", "nowhere", IMAGE, "true")
    assert machine.ok("network", "ls", "--filter", "label=team=a", "--format", "{{.Name}}") == "one\n"
    machine.ok("rm", "-f", "web")
    assert machine.ok("network", "rm", "one") == "one\n"
    assert "wl-" not in machine.host.output("ip", "-o", "link") + machine.host.output("iptables-save")


def test_a_killed_daemon_leaves_networks_as_they_are(machine: NetworkMachine) -> None:
    machine.serve("web", "-p", "8080:80")
    machine.kill()
    eventually(lambda: machine.fetch(f"http://{INSIDE}:8080/") == "web")
    machine.start()
    assert machine.fetch(f"http://{INSIDE}:8080/") == "web"
    machine.ok("rm", "-f", "web")
    assert machine.left() == []


RESTART = ("containerd.io/restart.status=running", "containerd.io/restart.policy=always")


def test_a_restarted_container_is_attached_again(machine: NetworkMachine) -> None:
    machine.ok("network", "create", "back")
    machine.serve("app", "--network", "back")
    machine.serve("web", "--network", "back", "-p", "8080:80")
    machine.ctr("containers", "label", "web", *RESTART)
    eventually(lambda: machine.fetch(f"http://{INSIDE}:8080/") == "web")
    before = machine.rows("tasks", "ls")["web"][1]
    os.kill(int(before), signal.SIGKILL)
    eventually(lambda: machine.rows("tasks", "ls").get("web", ["", before])[1] not in (before, "0"), 30)
    eventually(lambda: machine.fetch(f"http://{INSIDE}:8080/") == "web")
    machine.reaches("app", "http://web/", "web")


def test_a_container_whose_runtime_was_killed_is_cleaned_up(machine: NetworkMachine) -> None:
    machine.serve("web", "-p", "8080:80")
    task = int(machine.rows("tasks", "ls")["web"][1])
    for pid in (parent_of(task), task):
        os.kill(pid, signal.SIGKILL)
    machine.serve("late", "-p", "8080:80")
    eventually(lambda: machine.fetch(f"http://{INSIDE}:8080/") == "late")
    machine.ok("rm", "-f", "web")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_after_a_boot_containers_get_their_network_again(machine: NetworkMachine) -> None:
    machine.ok("network", "create", "back")
    for name in ("web", "db"):
        machine.serve(name, "--network", "back")
        machine.ctr("containers", "label", name, *RESTART)
    machine.serve("gone", "-p", "8080:80")
    leases = machine.data / "networks" / "leases"
    boot(machine)
    assert len(list(leases.rglob("10.*"))) == 3  # what the boot has not taken back
    eventually(lambda: {"web", "db"} <= set(machine.rows("tasks", "ls")), 30)
    machine.reaches("web", "http://db/", "db")
    assert len(list(leases.rglob("10.*"))) == 3
    machine.serve("new", "-p", "8080:80")
    eventually(lambda: machine.fetch(f"http://{INSIDE}:8080/") == "new")


def boot(machine: NetworkMachine) -> None:
    """End all processes at once, and give the machine a network and a /run that are new."""
    machine.kill()
    for _ in range(3):
        for pid in list(machine.processes()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    for name in RUN.glob(f"{machine.key}-*"):
        netns.remove(name)
    for point in reversed(machine.mounts()):
        if not point.startswith(str(machine.root)):
            subprocess.run(["umount", "-l", point], check=False)
    shutil.rmtree(machine.state, ignore_errors=True)
    cgroups.remove_within([f"{place}/{machine.namespace}" for place, _, _ in cgroups.hierarchies()], 10)
    machine.host.close()
    machine.outside.close()
    machine.new_host()
    machine.start()


def test_many_containers_come_and_go_and_leave_nothing(machine: NetworkMachine) -> None:
    machine.ok("network", "create", "busy")
    before = machine.host.output("iptables-save", "-t", "nat").count("\n")

    def one(number: int) -> None:
        name = f"c{number}"
        machine.ok(
            "run", "-d", "--name", name, "--network", "busy", "-p", f"{9000 + number}:80", IMAGE, "sleep", "1000"
        )
        machine.ok("rm", "-f", name)

    with ThreadPoolExecutor(4) as clients:
        list(clients.map(one, range(CHURN)))
    assert machine.left() == []
    assert machine.host.output("iptables-save", "-t", "nat").count("\n") <= before + 20
