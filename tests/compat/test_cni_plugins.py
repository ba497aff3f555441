"""Debian's CNI plugins attach namespaces to a bridge, with addresses that traffic reaches, and take it all back.

The bridge is made in a namespace of the test's own, which stands for the host.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass_cni.cache import Cache
from windlass_cni.config import Json, Network, parse
from windlass_cni.execute import Programs
from windlass_cni.networks import Networks, add_all, delete_all
from windlass_cni.protocol import Attachment
from windlass_cni.result import Result
from windlass_linux import netns

PLUGINS = Path("/usr/lib/cni")
PORT: dict[str, Json] = {"containerPort": 80, "protocol": "tcp"}
TOOLS = ("nsenter", "iptables")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(not (PLUGINS / "bridge").exists(), reason="containernetworking-plugins is not installed"),
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"{' and '.join(TOOLS)} are needed"),
]


class Host:
    """A namespace that stands for the host, plugins that run in it, and namespaces of containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.namespace = folder / "host"
        netns.create(self.namespace)
        self.bin = folder / "bin"
        self.bin.mkdir()
        for plugin in PLUGINS.iterdir():
            wrapper = self.bin / plugin.name
            wrapper.write_text(f'#!/bin/sh\nexec nsenter --net={self.namespace} {plugin} "$@"\n')
            wrapper.chmod(0o755)
        self.cache = Cache(folder / "results")
        self.networks = Networks(Programs((self.bin,), timeout=60), self.cache)
        self.containers: list[Path] = []

    def container(self) -> Attachment:
        """A namespace to attach."""
        name = f"c{len(self.containers)}-{uuid.uuid4().hex[:8]}"
        path = self.folder / name
        netns.create(path)
        self.containers.append(path)
        return Attachment(name, str(path), "eth0", (("IgnoreUnknown", "1"),))

    def network(self, *, ranges: list[str], bridge: str = "br0") -> Network:
        """A bridge with addresses of ``ranges``, and port mappings."""
        addresses = {
            "type": "host-local",
            "dataDir": str(self.folder / "leases"),
            "ranges": [[{"subnet": each}] for each in ranges],
        }
        plugins = [
            {"type": "bridge", "bridge": bridge, "isGateway": True, "hairpinMode": True, "ipam": addresses},
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": False},
        ]
        return parse(json.dumps({"cniVersion": "1.0.0", "name": f"net-{bridge}", "plugins": plugins}))

    def run(self, *command: str) -> str:
        """What a command prints on the host."""
        inside = ["nsenter", f"--net={self.namespace}", *command]
        return subprocess.run(inside, check=True, capture_output=True, text=True, timeout=30).stdout

    def links(self) -> list[str]:
        return sorted(netns.within(self.namespace, lambda: [name for _, name in socket.if_nameindex()]))

    def leases(self) -> list[str]:
        return [path.name for path in (self.folder / "leases").rglob("*") if path.name[0].isdigit()]

    def close(self) -> None:
        for path in (*self.containers, self.namespace):
            netns.remove(path)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    try:
        yield made
    finally:
        made.close()


def serve(end: Attachment, address: str, answer: bytes) -> threading.Thread:
    """Answer one connection in a container's namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = netns.within(Path(end.netns), lambda: socket.create_server((address, 80), family=family))

    def run() -> None:
        with server:
            server.settimeout(20)
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def fetch(namespace: Path, address: str, port: int) -> bytes:
    def connect() -> bytes:
        with socket.create_connection((address, port), timeout=20) as connection:
            return connection.recv(100)

    return netns.within(namespace, connect)


def addresses(results: list[Result]) -> list[str]:
    return [each.ip for result in results for each in result.of_container()]


async def test_two_containers_reach_each_other_on_both_families(host: Host) -> None:
    network = host.network(ranges=["10.77.0.0/24", "fd77::/64"])
    one, two = host.container(), host.container()
    await add_all(host.networks, [network], one, {})
    found = addresses(await add_all(host.networks, [network], two, {}))
    assert [":" in address for address in found] == [False, True]
    for address in found:
        _settle(two)
        thread = serve(two, address, b"hello")
        assert fetch(Path(one.netns), address, 80) == b"hello"
        thread.join(20)


def _settle(end: Attachment) -> None:
    """Wait until no address is tentative: IPv6 looks for doubles first."""
    for _ in range(100):
        inside = ["nsenter", f"--net={end.netns}", "ip", "-6", "addr", "show", "tentative"]
        if not subprocess.run(inside, check=True, capture_output=True, timeout=30).stdout.strip():
            return
        threading.Event().wait(0.1)


async def test_a_port_of_the_host_leads_to_the_container(host: Host) -> None:
    network = host.network(ranges=["10.78.0.0/24"])
    end = host.container()
    ports: Json = [{**PORT, "hostPort": 8080}]
    (address,) = addresses(await add_all(host.networks, [network], end, {"portMappings": ports}))
    client = host.container()
    await add_all(host.networks, [network], client, {})
    thread = serve(end, address, b"by the host's port")
    assert fetch(Path(client.netns), "10.78.0.1", 8080) == b"by the host's port"
    thread.join(20)
    await delete_all(host.networks, end.container)
    assert "8080" not in host.run("iptables", "-t", "nat", "-S")


async def test_after_del_nothing_is_left(host: Host) -> None:
    """No veth, address, rule or file; also when the namespace went first."""
    network = host.network(ranges=["10.79.0.0/24"])
    for gone in (False, True):
        end = host.container()
        await add_all(host.networks, [network], end, {"portMappings": [{**PORT, "hostPort": 81}]})
        assert len(host.leases()) == 1
        if gone:
            netns.remove(Path(end.netns))
        await delete_all(host.networks, end.container, netns="" if gone else None)
        assert host.links() == ["br0", "lo"]
        assert host.leases() == [] and list(host.cache.all()) == []


async def test_two_networks_give_two_interfaces(host: Host) -> None:
    listed = [host.network(ranges=["10.80.0.0/24"]), host.network(ranges=["10.81.0.0/24"], bridge="br1")]
    end = host.container()
    found = addresses(await add_all(host.networks, listed, end, {}))
    assert [address.rpartition(".")[0] for address in found] == ["10.80.0", "10.81.0"]
    inside = netns.within(Path(end.netns), lambda: sorted(name for _, name in socket.if_nameindex()))
    assert inside == ["eth0", "eth1", "lo"]


async def test_an_attachment_is_checked(host: Host) -> None:
    network = host.network(ranges=["10.82.0.0/24"])
    end = host.container()
    await add_all(host.networks, [network], end, {})
    (cached,) = host.cache.of_container(end.container)
    await host.networks.check(cached)


async def test_the_sweep_frees_the_address_of_a_container_that_is_gone(host: Host) -> None:
    """host-local's own GC would not."""
    network = host.network(ranges=["10.83.0.0/24"])
    gone, live = host.container(), host.container()
    for end in (gone, live):
        await add_all(host.networks, [network], end, {})
    netns.remove(Path(gone.netns))
    await host.networks.collect(network, {(live.container, "eth0")})
    assert len(host.leases()) == 1
    assert [each.attachment.container for each in host.cache.all()] == [live.container]
