"""`windlass run` with networks, on Windlass and on containerd: real traffic, and nothing that is left behind."""

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
from compat.conftest import require_foreign_tools
from compat.images import Archive
from compat.machines import eventually
from compat.network_machine import (
    IMAGE,
    INSIDE,
    INSIDE6,
    OUTSIDE,
    PLUGINS,
    RUN,
    TOOLS,
    NetworkMachine,
)

from windlass_linux import cgroups, netns

CHURN = int(os.environ.get("WINDLASS_NETWORK_CHURN", "6"))
"""Containers of the test that makes many; 200 by hand."""


def require_networks() -> None:
    """Skip, naming what is missing."""
    require_foreign_tools()
    if not (PLUGINS / "bridge").exists():
        pytest.skip("CNI plugins are not installed; apt install containernetworking-plugins")
    for tool in TOOLS:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; apt install curl iproute2 iptables util-linux")


@pytest.fixture(scope="module", params=["containerd", "windlassd"])
def machine(
    request: pytest.FixtureRequest, busy: Archive, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NetworkMachine]:
    require_networks()
    machine = NetworkMachine(request.param, tmp_path_factory.mktemp("n"))
    try:
        machine.restarting()
        machine.start()
        machine.ctr("images", "import", str(busy.path))
        yield machine
    finally:
        machine.close()


@pytest.fixture(autouse=True)
def clean(machine: NetworkMachine) -> Iterator[None]:
    """Each test removes its containers; then nothing of their networks is left."""
    yield
    if ids := machine.ok("ps", "-aq").split():
        machine.windlass("rm", "-f", *ids)
    machine.ok("network", "prune", "-f")
    assert machine.left() == []


def test_a_published_port_answers_from_outside_and_from_the_host(machine: NetworkMachine) -> None:
    machine.serve("web", "-p", "8080:80", "-p", f"{INSIDE}:8081-8082:80-81/tcp", "-p", "5353:53/udp")
    eventually(lambda: machine.fetch(f"http://{INSIDE}:8080/") == "web")
    assert machine.fetch("http://127.0.0.1:8080/", machine.host) == "web"
    assert machine.fetch(f"http://{INSIDE}:8081/") == "web"
    assert machine.fetch("http://127.0.0.1:8081/", machine.host) == ""
    assert set(machine.ok("port", "web").splitlines()) == {
        "80/tcp -> 0.0.0.0:8080",
        f"80/tcp -> {INSIDE}:8081",
        f"81/tcp -> {INSIDE}:8082",
        "53/udp -> 0.0.0.0:5353",
    }
    assert machine.ok("port", "web", "53/udp") == "0.0.0.0:5353\n"
    assert "no public port '70/tcp' published for web" in machine.refused("port", "web", "70", code=1)
    machine.ok("rm", "-f", "web")
    assert machine.fetch(f"http://{INSIDE}:8080/") == ""


def test_datagrams_reach_a_published_port_and_come_back(machine: NetworkMachine) -> None:
    machine.ok("run", "-d", "--name", "udp", "-p", "5353:53/udp", IMAGE, "sleep", "1000")
    pid = int(machine.rows("tasks", "ls")["udp"][1])
    server = netns.within(Path(f"/proc/{pid}/ns/net"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client = netns.within(machine.outside.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with server, client:
        server.bind(("", 53))
        server.settimeout(5)
        client.settimeout(5)
        client.sendto(b"ask", (INSIDE, 5353))
        data, sender = server.recvfrom(100)
        server.sendto(data + b"ed", sender)
        assert client.recv(100) == b"asked"
    assert sender[0] == OUTSIDE


def test_both_families(machine: NetworkMachine) -> None:
    machine.ok("network", "create", "--ipv6", "--subnet", "10.150.0.0/24", "--subnet", "fd5c::/64", "dual")
    machine.serve("one", "--network", "dual", "-p", "8080:80")
    eventually(lambda: machine.fetch(f"http://{INSIDE}:8080/") == "one")
    eventually(lambda: machine.fetch(f"http://[{INSIDE6}]:8080/") == "one")
    machine.ok("run", "-d", "--name", "other", "--network", "dual", "--ip", "10.150.0.77", IMAGE, "sleep", "1000")
    assert machine.ip_of("other", "dual") == "10.150.0.77"
    assert "fd5c::2\tone" in machine.ok("exec", "other", "cat", "/etc/hosts")
    ping = ("exec", "other", "busybox", "ping6", "-c1", "-W3", "fd5c::2")
    eventually(lambda: machine.windlass(*ping).returncode == 0)


def test_names_and_aliases_lead_to_members_of_a_network(machine: NetworkMachine) -> None:
    machine.ok("network", "create", "back")
    machine.serve("db", "--network", "back", "--network-alias", "store")
    machine.serve("app", "--network", "back", "--add-host", "up:host-gateway", "--add-host", "far=192.0.2.9")
    for name in ("db", "store", "db.back"):
        eventually(lambda name=name: machine.fetch_inside("app", f"http://{name}/") == "db")
    assert machine.fetch_inside("db", "http://app/") == "app"
    hosts = machine.ok("exec", "app", "cat", "/etc/hosts")
    assert "10.89.0.1\tup\n" in hosts and "192.0.2.9\tfar\n" in hosts
    machine.ok("rm", "-f", "db")
    assert "db" not in machine.ok("exec", "app", "cat", "/etc/hosts")


def test_the_default_network_resolves_no_names_and_reaches_outside(machine: NetworkMachine) -> None:
    machine.serve("one")
    machine.serve("other")
    assert "one" not in machine.ok("exec", "other", "cat", "/etc/hosts")
    assert machine.fetch_inside("other", f"http://{machine.ip_of('one')}/") == "one"
    ping = ("exec", "one", "busybox", "ping", "-c1", "-W3", OUTSIDE)
    assert machine.windlass(*ping).returncode == 0


def test_networks_are_kept_apart_and_internal_ones_have_no_way_out(machine: NetworkMachine) -> None:
    machine.ok("network", "create", "one")
    machine.ok("network", "create", "--internal", "inner")
    machine.serve("a", "--network", "one")
    machine.serve("b", "--network", "inner")
    machine.serve("c", "--network", "inner", "--network", "one")
    assert machine.fetch_inside("a", f"http://{machine.ip_of('b', 'inner')}/") == ""
    assert machine.fetch_inside("c", "http://a/") == "a" and machine.fetch_inside("c", "http://b/") == "b"
    assert "default" not in machine.ok("exec", "b", "busybox", "ip", "route")
    assert "default" in machine.ok("exec", "c", "busybox", "ip", "route")
    line = machine.refused("run", "--network", "inner", "-p", "80:80", IMAGE, "true")
    assert "-p is not possible with network inner" in line


def test_the_network_of_another_container(machine: NetworkMachine) -> None:
    machine.serve("web")
    shared = machine.ok(
        "run", "--rm", "--network", "container:web", IMAGE, "sh", "-c",
        "busybox wget -qO- http://127.0.0.1/; hostname; cat /etc/hosts",
    )  # fmt: skip
    assert shared.startswith("web\nweb\n") and f"{machine.ip_of('web')}\tweb" in shared
    assert "does not exist" in machine.refused("run", "--network", "container:gone", IMAGE, "true")
    machine.ok("run", "-d", "--name", "lonely", "--network", "none", IMAGE, "sleep", "1000")
    links = machine.ok("run", "--rm", "--network", "container:lonely", IMAGE, "busybox", "ip", "-o", "link")
    assert len(links.splitlines()) == 1
    line = machine.refused("run", "--network", "container:lonely", "-p", "80:80", IMAGE, "true")
    assert "cannot be used with --network container:lonely" in line


def test_the_hosts_network_and_none(machine: NetworkMachine) -> None:
    host = machine.ok("run", "--rm", "--network", "host", "--add-host", "x:192.0.2.1", IMAGE, "cat", "/etc/hosts")
    assert Path("/etc/hosts").read_text().strip() in host and "192.0.2.1\tx" in host
    links = machine.ok("run", "--rm", "--net-host", IMAGE, "busybox", "ip", "-o", "link")
    assert "up0" in links
    assert "up0" not in machine.ok("run", "--rm", "--network", "none", IMAGE, "busybox", "ip", "-o", "link")
    ignored = machine.windlass("run", "--rm", "--network", "none", "-p", "80:80", IMAGE, "true")
    assert ignored.returncode == 0 and "ignored" in ignored.stderr


def test_files_are_as_asked_for(machine: NetworkMachine) -> None:
    shown = machine.ok(
        "run", "--rm", "--hostname", "deep.example", "--dns", "192.0.2.53", "--dns-search", "a.example",
        "--dns-option", "ndots:2", IMAGE, "sh", "-c", "cat /etc/resolv.conf /etc/hostname /etc/hosts",
    )  # fmt: skip
    assert shown.startswith(
        "nameserver 192.0.2.53\nsearch a.example\noptions ndots:2\ndeep.example\n127.0.0.1\tlocalhost"
    )
    assert "\tdeep.example\n" in shown


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
    refused = [
        (("create", "--subnet", "10.140.0.128/25", "two"), "overlaps 10.140.0.0/24 of network one"),
        (("create", "--subnet", "198.51.100.0/25", "two"), "of interface up0 of this host"),
        (("create", "one"), "already exists"),
        (("create", "host"), "network name 'host'"),
        (("create", "--subnet", "10.140.0.1/24", "two"), "is not a subnet"),
        (("create", "--subnet", "10.141.0.0/24", "--gateway", "10.142.0.1", "two"), "is not in the network's subnet"),
        (("create", "-d", "overlay", "two"), "there are bridge, macvlan, ipvlan"),
        (("create", "-d", "macvlan", "two"), "--opt parent="),
        (("create", "-o", "color=red", "two"), "option 'color' is not known"),
        (("rm", "bridge"), "cannot be removed"),
        (("rm", "none-such"), "does not exist"),
    ]
    for arguments, words in refused:
        assert words in machine.refused("network", *arguments, code=1)
    machine.serve("web", "--network", "one")
    assert "network one is in use by container web" in machine.refused("network", "rm", "one", code=1)
    assert 'network "nowhere" does not exist' in machine.refused("run", "--network", "nowhere", IMAGE, "true")
    assert machine.ok("network", "ls", "--filter", "label=team=a", "--format", "{{.Name}}") == "one\n"
    machine.ok("rm", "-f", "web")
    assert machine.ok("network", "rm", "one") == "one\n"
    assert "wl-" not in machine.host.output("ip", "-o", "link") + machine.host.output("iptables-save")


def test_networks_of_others_are_listed_and_used(machine: NetworkMachine) -> None:
    path = machine.conf / "10-pods.conflist"
    leases = machine.directory / "leases"
    path.write_text(
        '{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni9", "isGateway": true,'
        f' "ipam": {{"type": "host-local", "subnet": "10.160.0.0/24", "dataDir": "{leases}"}}}}]}}'
    )
    (machine.conf / "20-broken.conflist").write_text("{")
    try:
        listed = machine.windlass("network", "ls")
        assert "pods" in listed.stdout and "20-broken.conflist: it is not JSON" in listed.stderr
        machine.serve("web", "--network", "pods")
        assert machine.ip_of("web", "pods") == "10.160.0.2"
        assert "is not ours" in machine.refused("network", "rm", "pods", code=1)
        machine.ok("rm", "-f", "web")
        # The network of pods is the first file there, which none of ours is.
        assert sorted(each.name for each in machine.conf.iterdir() if each.is_file()) == [
            "10-pods.conflist",
            "20-broken.conflist",
        ]
    finally:
        path.unlink()
        (machine.conf / "20-broken.conflist").unlink()


def test_containers_are_connected_while_they_run(machine: NetworkMachine) -> None:
    machine.ok("network", "create", "more")
    machine.serve("web")
    machine.serve("app", "--network", "more")
    machine.ok("network", "connect", "--alias", "www", "more", "web")
    eventually(lambda: machine.fetch_inside("app", "http://www/") == "web")
    assert 'attached to network "more" already' in machine.refused("network", "connect", "more", "web", code=1)
    machine.ok("network", "disconnect", "more", "web")
    assert machine.fetch_inside("app", "http://www/") == "" and machine.ip_of("web")
    assert "is not attached" in machine.refused("network", "disconnect", "more", "web", code=1)


def test_a_killed_daemon_leaves_networks_as_they_are(machine: NetworkMachine) -> None:
    machine.serve("web", "-p", "8080:80")
    machine.kill()
    eventually(lambda: machine.fetch(f"http://{INSIDE}:8080/") == "web")
    machine.start()
    assert machine.fetch(f"http://{INSIDE}:8080/") == "web"
    machine.ok("rm", "-f", "web")
    assert machine.left() == []


RESTART = ("--label", "containerd.io/restart.status=running", "--label", "containerd.io/restart.policy=always")


def test_a_restarted_container_is_attached_again(machine: NetworkMachine) -> None:
    machine.ok("network", "create", "back")
    machine.serve("app", "--network", "back")
    machine.serve("web", "--network", "back", "-p", "8080:80", *RESTART)
    eventually(lambda: machine.fetch(f"http://{INSIDE}:8080/") == "web")
    before = machine.rows("tasks", "ls")["web"][1]
    os.kill(int(before), signal.SIGKILL)
    eventually(lambda: machine.rows("tasks", "ls").get("web", ["", before])[1] not in (before, "0"), 30)
    eventually(lambda: machine.fetch(f"http://{INSIDE}:8080/") == "web")
    eventually(lambda: machine.fetch_inside("app", "http://web/") == "web")


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
        machine.serve(name, "--network", "back", *RESTART)
    machine.serve("gone", "-p", "8080:80")
    leases = machine.data / "networks" / "leases"
    boot(machine)
    assert len(list(leases.rglob("10.*"))) == 3  # what the boot has not taken back
    eventually(lambda: {"web", "db"} <= set(machine.rows("tasks", "ls")), 30)
    eventually(lambda: machine.fetch_inside("web", "http://db/") == "db", 30)
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
