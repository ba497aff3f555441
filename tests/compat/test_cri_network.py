"""Networks of pods by CRI: traffic between them, and what is left when a CNI plugin fails, hangs or is missing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from compat.cri_daemon import CriDaemon, running_cri
from compat.scratch_daemon import wait_until
from compat.test_cri_pods import linux, refused

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_linux import netns

pytestmark = pytest.mark.root

TROUBLE = f"""#!{sys.executable} -S
import json, os, pathlib, sys, time
conf = json.load(sys.stdin)
command = os.environ["CNI_COMMAND"]
folder = pathlib.Path(conf["folder"])
(folder / f"{{command}}.json").write_text(json.dumps({{"conf": conf, "args": os.environ.get("CNI_ARGS", "")}}))
try:
    mode = (folder / f"on-{{command}}").read_text()
except FileNotFoundError:
    mode = ""
if mode == "fail":
    print(json.dumps({{"cniVersion": "1.0.0", "code": 999, "msg": "no luck", "details": "today"}}))
    sys.exit(1)
if mode == "garbage":
    print("hello")
    sys.exit(0)
if mode == "much":
    sys.stdout.write("x" * (5 << 20))
    sys.exit(0)
if mode == "hang":
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(120)
if mode == "slow":
    time.sleep(1)
if command == "ADD":
    print(json.dumps(conf["prevResult"]))
"""


class Trouble:
    """The last plugin of the network: it fails as it is asked to."""

    def __init__(self, daemon: CriDaemon, folder: Path) -> None:
        self.folder = folder
        (daemon.plugins / "trouble").write_text(TROUBLE)
        (daemon.plugins / "trouble").chmod(0o755)
        daemon.write_network()
        path = daemon.networks / "10-bridge.conflist"
        document = json.loads(path.read_text())
        capabilities = {"bandwidth": True, "dns": True, "portMappings": True}
        document["plugins"].append({"type": "trouble", "folder": str(folder), "capabilities": capabilities})
        temporary = path.with_name(".new")
        temporary.write_text(json.dumps(document))
        temporary.rename(path)

    def at(self, command: str, mode: str) -> None:
        (self.folder / f"on-{command}").write_text(mode)

    def clear(self) -> None:
        for path in self.folder.glob("on-*"):
            path.unlink()

    def asked(self, command: str) -> dict[str, dict[str, object]]:
        found = json.loads((self.folder / f"{command}.json").read_text())
        assert isinstance(found, dict)
        return found


@pytest.fixture
def trouble(cri_daemon: CriDaemon, tmp_path: Path) -> Iterator[Trouble]:
    made = Trouble(cri_daemon, tmp_path)
    assert wait_until(lambda: "trouble" in cni_config(cri_daemon))
    try:
        yield made
    finally:
        made.clear()
        cri_daemon.write_network()
        assert wait_until(lambda: "trouble" not in cni_config(cri_daemon))


def cni_config(daemon: CriDaemon) -> str:
    return daemon.runtime.Status(cri.StatusRequest(verbose=True), timeout=20).info["cniconfig"]


def assert_nothing_left(daemon: CriDaemon) -> None:
    assert not daemon.pods() and not daemon.addresses_taken() and not daemon.attachments()
    assert "veth" not in daemon.on_host("ip", "-o", "link")
    assert not list(daemon.root.glob("*/sandboxes/*"))


def namespace_path(daemon: CriDaemon, pod: str) -> Path:
    info = json.loads(daemon.pod_status(pod, verbose=True).info["info"])
    return Path(info["sandboxMetadata"]["Metadata"]["NetNSPath"])


@contextlib.contextmanager
def serving(namespace: Path, port: int) -> Iterator[None]:
    """Answer every connection to a port of a namespace."""
    server = netns.within(
        namespace, lambda: socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    )

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"served")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


def fetch(namespace: Path, address: str, port: int) -> bytes:
    """What a connection from a namespace is answered; nothing when there is none."""

    def connect() -> bytes:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2) as connection:
            return connection.recv(100)
        return b""

    return netns.within(namespace, connect)


def test_pods_reach_each_other_by_both_families(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as one, cri_daemon.pod() as other:
        client, server = namespace_path(cri_daemon, one), namespace_path(cri_daemon, other)
        network = cri_daemon.pod_status(other).status.network
        with serving(server, 8080):
            for address in (network.ip, network.additional_ips[0].ip):
                assert wait_until(lambda address=address: fetch(client, address, 8080) == b"served"), address


def test_a_host_port_leads_to_its_pod_and_is_gone_with_it(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config()
    config.port_mappings.add(host_port=8123, container_port=8080)
    config.port_mappings.add(container_port=9090)  # none of the host
    with cri_daemon.pod() as one, cri_daemon.pod(config) as pod:
        client = namespace_path(cri_daemon, one)
        with serving(namespace_path(cri_daemon, pod), 8080):
            assert wait_until(lambda: fetch(client, "10.199.0.1", 8123) == b"served")
        rules = cri_daemon.on_host("iptables", "-t", "nat", "-S")
        assert "8123" in rules and "9090" not in rules
    assert "8123" not in cri_daemon.on_host("iptables", "-t", "nat", "-S")


def test_plugins_learn_the_pod_its_ports_bandwidth_and_dns(cri_daemon: CriDaemon, trouble: Trouble) -> None:
    config = cri_daemon.pod_config("known", dns_config=cri.DNSConfig(servers=["10.0.0.10"]))
    config.annotations["kubernetes.io/ingress-bandwidth"] = "10M"
    config.port_mappings.add(host_port=81, container_port=80, protocol=cri.UDP, host_ip="10.199.0.1")
    with cri_daemon.pod(config) as pod:
        asked = trouble.asked("ADD")
        for part in ("K8S_POD_NAMESPACE=default", "K8S_POD_NAME=known", "K8S_POD_UID=uid-known", "IgnoreUnknown=1",
                     f"K8S_POD_INFRA_CONTAINER_ID={pod}"):  # fmt: skip
            assert part in asked["args"]
        assert asked["conf"]["runtimeConfig"] == {
            "bandwidth": {"ingressRate": 10_000_000, "ingressBurst": (1 << 32) - 1},
            "dns": {"servers": ["10.0.0.10"]},
            "portMappings": [{"hostPort": 81, "containerPort": 80, "protocol": "udp", "hostIP": "10.199.0.1"}],
        }


def test_a_bandwidth_that_is_none_fails_the_pod(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config(annotations={"kubernetes.io/egress-bandwidth": "fast"})
    with refused(grpc.StatusCode.UNKNOWN, "kubernetes.io/egress-bandwidth"):
        cri_daemon.run_pod(config)
    assert_nothing_left(cri_daemon)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (
            "fail",
            'pod unlucky_default_uid-unlucky_0: network: network "net-cni0": CNI plugin trouble failed at ADD: no luck',
        ),
        ("garbage", "CNI plugin trouble printed no JSON object at ADD"),
        ("much", "CNI plugin trouble printed more than"),
    ],
)
def test_a_plugin_that_fails_is_named_and_nothing_is_left(
    cri_daemon: CriDaemon, trouble: Trouble, mode: str, words: str
) -> None:
    config = cri_daemon.pod_config("unlucky")
    trouble.at("ADD", mode)
    with refused(grpc.StatusCode.UNKNOWN, words):
        cri_daemon.run_pod(config)
    assert_nothing_left(cri_daemon)
    trouble.clear()
    with cri_daemon.pod(config):
        pass


def test_who_asks_again_meanwhile_gets_the_outcome_of_the_first_attempt(
    cri_daemon: CriDaemon, trouble: Trouble
) -> None:
    config = cri_daemon.pod_config("slow")
    trouble.at("ADD", "slow")
    request = cri.RunPodSandboxRequest(config=config)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, ""):
        cri_daemon.runtime.RunPodSandbox(request, timeout=0.4)
    pod = cri_daemon.run_pod(config)
    assert [each.id for each in cri_daemon.pods()] == [pod]
    cri_daemon.remove_pod(pod)
    assert_nothing_left(cri_daemon)


def test_a_plugin_that_hangs_holds_up_its_own_pod_only(cri_daemon: CriDaemon, trouble: Trouble) -> None:
    trouble.at("ADD", "hang")
    with ThreadPoolExecutor(1) as clients:
        hanging = clients.submit(cri_daemon.run_pod, cri_daemon.pod_config("hangs"))
        assert wait_until((trouble.folder / "pid").exists)
        trouble.clear()
        with cri_daemon.pod() as other:
            cri_daemon.run_container(other)
        os.kill(int((trouble.folder / "pid").read_text()), signal.SIGKILL)
        with refused(grpc.StatusCode.UNKNOWN, "CNI plugin trouble failed at ADD: killed by signal 9"):
            hanging.result(30)
    assert_nothing_left(cri_daemon)


def test_a_plugin_that_does_not_detach_keeps_the_pod_until_it_does(cri_daemon: CriDaemon, trouble: Trouble) -> None:
    pod = cri_daemon.run_pod()
    trouble.at("DEL", "fail")
    for call in (cri_daemon.stop_pod, cri_daemon.remove_pod):
        with refused(grpc.StatusCode.UNKNOWN, "CNI plugin trouble failed at DEL: no luck"):
            call(pod)
    assert cri_daemon.pod_status(pod).status.state == cri.SANDBOX_NOTREADY
    assert cri_daemon.attachments()
    trouble.clear()
    cri_daemon.stop_pod(pod)
    assert not cri_daemon.addresses_taken()
    cri_daemon.remove_pod(pod)
    assert_nothing_left(cri_daemon)


def test_a_pod_whose_rollback_fails_stays_to_be_removed(cri_daemon: CriDaemon, trouble: Trouble) -> None:
    config = cri_daemon.pod_config("stays")
    config.linux.sysctls["vm.swappiness"] = "10"
    trouble.at("DEL", "fail")
    with refused(grpc.StatusCode.UNKNOWN, "vm.swappiness"):
        cri_daemon.run_pod(config)
    (pod,) = cri_daemon.pods()
    assert pod.state == cri.SANDBOX_NOTREADY and pod.metadata.name == "stays"
    with refused(grpc.StatusCode.FAILED_PRECONDITION, f'is reserved for "{pod.id}"'):
        cri_daemon.run_pod(config)
    cri_daemon.restart()
    assert [each.id for each in cri_daemon.pods()] == [pod.id]
    trouble.clear()
    cri_daemon.remove_pod(pod.id)
    assert_nothing_left(cri_daemon)


def test_what_neither_comes_up_nor_goes_is_collected_by_the_next_daemon(
    cri_daemon: CriDaemon, trouble: Trouble
) -> None:
    trouble.at("ADD", "fail")
    trouble.at("DEL", "fail")
    with refused(grpc.StatusCode.UNKNOWN, "failed at ADD"):
        cri_daemon.run_pod()
    assert not cri_daemon.pods() and cri_daemon.attachments()
    trouble.clear()
    cri_daemon.restart()
    assert wait_until(lambda: not list(cri_daemon.root.glob("*/sandboxes/*")))
    assert_nothing_left(cri_daemon)


def test_without_a_network_configuration_only_pods_of_the_hosts_network_run(cri_daemon: CriDaemon) -> None:
    path = cri_daemon.networks / "10-bridge.conflist"
    pod = cri_daemon.run_pod()
    kept = path.read_bytes()
    path.unlink()

    def condition() -> cri.RuntimeCondition:
        found = cri_daemon.runtime.Status(cri.StatusRequest(), timeout=20).status.conditions
        return next(each for each in found if each.type == "NetworkReady")

    try:
        assert wait_until(lambda: not condition().status)
        assert condition().reason == "NetworkPluginNotReady"
        assert str(cri_daemon.networks) in condition().message
        with refused(grpc.StatusCode.UNKNOWN, f"no network configuration in {cri_daemon.networks}"):
            cri_daemon.run_pod()
        with cri_daemon.pod(cri_daemon.pod_config(linux=linux(network=cri.NODE))):
            pass
        # What it was attached with is known still.
        cri_daemon.remove_pod(pod)
        assert_nothing_left(cri_daemon)
    finally:
        temporary = path.with_suffix(".new")
        temporary.write_bytes(kept)
        temporary.rename(path)
    assert wait_until(lambda: condition().status)
    with cri_daemon.pod():
        pass


def test_a_missing_plugin_is_named_with_its_directories(cri_daemon: CriDaemon) -> None:
    portmap = cri_daemon.plugins / "portmap"
    portmap.rename(cri_daemon.plugins / "away")
    try:
        with refused(grpc.StatusCode.UNKNOWN, f"CNI plugin portmap is not in {cri_daemon.plugins}"):
            cri_daemon.run_pod()
    finally:
        (cri_daemon.plugins / "away").rename(portmap)
    with contextlib.suppress(AssertionError):
        assert_nothing_left(cri_daemon)
    cri_daemon.restart()
    assert wait_until(lambda: not cri_daemon.addresses_taken())
    with cri_daemon.pod():
        pass


def test_a_pod_whose_namespace_is_gone_is_detached_all_the_same(cri_daemon: CriDaemon) -> None:
    pod = cri_daemon.run_pod()
    info = json.loads(cri_daemon.pod_status(pod, verbose=True).info["info"])
    path = info["sandboxMetadata"]["Metadata"]["NetNSPath"]
    cri_daemon.on_host("umount", "-l", path)
    cri_daemon.remove_pod(pod)
    assert_nothing_left(cri_daemon)
    assert not Path(path).exists()


def test_many_pods_at_once_have_addresses_of_their_own(cri_daemon: CriDaemon) -> None:
    with ThreadPoolExecutor(8) as clients:
        pods = list(clients.map(lambda _: cri_daemon.run_pod(), range(12)))
        addresses = [cri_daemon.pod_status(each).status.network.ip for each in pods]
        assert len(set(addresses)) == 12
        list(clients.map(cri_daemon.remove_pod, pods))
    assert_nothing_left(cri_daemon)


@pytest.mark.parametrize("serially", ["true", "false"])
def test_several_networks_are_interfaces_of_a_pod(tmp_path: Path, serially: str) -> None:
    cni = f'max_conf_num = 0\nsetup_serially = {serially}\nip_pref = "ipv6"'
    with running_cri(tmp_path, cni=cni) as daemon:
        daemon.write_network("20-second", "cni1", 200)
        assert wait_until(lambda: "net-cni1" in cni_config(daemon))
        with daemon.pod() as pod:
            status = daemon.pod_status(pod).status
            assert status.network.ip.startswith("fd99:")
            assert [each.ip for each in status.network.additional_ips] == [
                each for each in daemon.addresses_taken() if each.startswith("10.199.")
            ]
            path = namespace_path(daemon, pod)
            assert netns.within(path, lambda: {name for _, name in socket.if_nameindex()}) >= {"lo", "eth0", "eth1"}
            assert len(daemon.addresses_taken()) == 4 and len(daemon.attachments()) == 2
            (daemon.networks / "20-second.conflist").unlink()
            assert wait_until(lambda: "net-cni1" not in cni_config(daemon))
        assert_nothing_left(daemon)
