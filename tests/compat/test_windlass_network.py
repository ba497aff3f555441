"""`windlass run` with networks, on Windlass and on containerd: real traffic, and nothing that is left behind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.images import Archive
from compat.machines import eventually
from compat.network_machine import (
    IMAGE,
    INSIDE,
    INSIDE6,
    OUTSIDE,
    NetworkMachine,
    running_network,
)

from windlass_linux import netns


@pytest.fixture(scope="module", params=["containerd", "windlassd"])
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
    assert "fd5c::2\tone" in machine.hosts("other")
    eventually(lambda: machine.inside("other", "busybox", "ping6", "-c1", "-W3", "fd5c::2").returncode == 0)


def test_names_and_aliases_lead_to_members_of_a_network(machine: NetworkMachine) -> None:
    machine.ok("network", "create", "back")
    machine.serve("db", "--network", "back", "--network-alias", "store")
    machine.serve("app", "--network", "back", "--add-host", "up:host-gateway", "--add-host", "far=192.0.2.9")
    for name in ("db", "store", "db.back"):
        machine.reaches("app", f"http://{name}/", "db")
    assert machine.fetch_inside("db", "http://app/") == "app"
    hosts = machine.hosts("app")
    assert "10.89.0.1\tup\n" in hosts and "192.0.2.9\tfar\n" in hosts
    machine.ok("rm", "-f", "db")
    assert "db" not in machine.hosts("app")


def test_the_default_network_resolves_no_names_and_reaches_outside(machine: NetworkMachine) -> None:
    machine.serve("one")
    machine.serve("other")
    assert "one" not in machine.hosts("other")
    assert machine.fetch_inside("other", f"http://{machine.ip_of('one')}/") == "one"
    assert machine.inside("one", "busybox", "ping", "-c1", "-W3", OUTSIDE).returncode == 0


def test_networks_are_kept_apart_and_internal_ones_have_no_way_out(machine: NetworkMachine) -> None:
    machine.ok("network", "create", "one")
    machine.ok("network", "create", "--internal", "inner")
    machine.serve("a", "--network", "one")
    machine.serve("b", "--network", "inner")
    machine.serve("c", "--network", "inner", "--network", "one")
    assert machine.fetch_inside("a", f"http://{machine.ip_of('b', 'inner')}/") == ""
    assert machine.fetch_inside("c", "http://a/") == "a" and machine.fetch_inside("c", "http://b/") == "b"
    assert "default" not in machine.inside("b", "busybox", "ip", "route").stdout
    assert "default" in machine.inside("c", "busybox", "ip", "route").stdout
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
    machine.reaches("app", "http://www/", "web")
    assert 'attached to network "more" already' in machine.refused("network", "connect", "more", "web", code=1)
    machine.ok("network", "disconnect", "more", "web")
    assert machine.fetch_inside("app", "http://www/") == "" and machine.ip_of("web")
    assert "is not attached" in machine.refused("network", "disconnect", "more", "web", code=1)
