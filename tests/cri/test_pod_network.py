"""What CNI plugins learn of a pod, and which of its addresses is the main one."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cni.result import Address, Result
from windlass_cri.config import Cni
from windlass_cri.pods.network import PodNetwork, arguments, namespace_of, ordered, pod_arguments, quantity


def result(*addresses: str, interface: str = "eth0") -> Result:
    return Result("net", interface, (), tuple(Address(interface, f"{each}/24") for each in addresses), {})


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        ("", ("10.0.0.1", "fd00::1", "fd00::2", "10.0.0.2")),
        ("ipv4", ("10.0.0.1", "fd00::1", "fd00::2", "10.0.0.2")),
        ("ipv6", ("fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2")),
        ("cni", ("fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2")),
    ],
)
def test_the_main_address_is_of_the_preferred_family(preference: str, expected: tuple[str, ...]) -> None:
    found = ordered([result("fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2")], preference)
    assert found == expected


def test_a_pod_of_one_family_has_what_there_is() -> None:
    assert ordered([result("fd00::1")], "ipv4") == ("fd00::1",)
    assert ordered([result()], "") == ()


def test_addresses_are_those_of_the_first_interface() -> None:
    assert ordered([result("10.0.0.1"), result("10.1.0.1", interface="eth1")], "") == ("10.0.0.1",)


@pytest.mark.parametrize(
    ("text", "number"), [("10", 10), ("5k", 5000), ("10M", 10_000_000), ("1Gi", 1 << 30), ("2Ti", 2 << 40)]
)
def test_quantities(text: str, number: int) -> None:
    assert quantity("key", text) == number


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5M", "10X", "٣", "1" * 16, "10 M"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(Unknown, match="annotation key is"):
        quantity("key", text)


def test_arguments_that_say_nothing_are_left_out() -> None:
    assert arguments(cri.PodSandboxConfig()) == {}


def test_arguments_of_a_pod() -> None:
    config = cri.PodSandboxConfig(
        port_mappings=[
            cri.PortMapping(protocol=cri.SCTP, container_port=1, host_port=2, host_ip="10.0.0.1"),
            cri.PortMapping(container_port=3),
            cri.PortMapping(container_port=4, host_port=-1),
        ],
        annotations={"kubernetes.io/ingress-bandwidth": "1M", "kubernetes.io/egress-bandwidth": "2M"},
        dns_config=cri.DNSConfig(searches=["a.local"]),
        linux=cri.LinuxPodSandboxConfig(cgroup_parent="/pods/x"),
    )
    burst = (1 << 32) - 1
    assert arguments(config) == {
        "portMappings": [{"hostPort": 2, "containerPort": 1, "protocol": "sctp", "hostIP": "10.0.0.1"}],
        "bandwidth": {"ingressRate": 10**6, "ingressBurst": burst, "egressRate": 2 * 10**6, "egressBurst": burst},
        "dns": {"searches": ["a.local"]},
        "io.kubernetes.cri.pod-annotations": dict(config.annotations),
        "cgroupPath": "/pods/x",
    }


def test_plugins_learn_the_pods_names() -> None:
    found = dict(pod_arguments("id", cri.PodSandboxMetadata(name="n", namespace="ns", uid="u")))
    assert found["K8S_POD_NAME"] == "n" and found["K8S_POD_NAMESPACE"] == "ns" and found["K8S_POD_UID"] == "u"
    assert found["K8S_POD_INFRA_CONTAINER_ID"] == "id" and found["IgnoreUnknown"] == "1"


def test_the_namespace_of_a_pod_follows_from_its_id() -> None:
    assert namespace_of("0123456789abcdef" * 4) == "/var/run/netns/cni-01234567-89ab-cdef-0123-456789abcdef"
    with pytest.raises(ValueError):
        namespace_of("../../etc")


PLUGIN = f"""#!{sys.executable} -S
import json, os, sys, pathlib
conf = json.load(sys.stdin)
with open({{log!r}}, "a") as log:
    valid = [each["containerID"] for each in conf.get("cni.dev/valid-attachments", [])]
    print(os.environ["CNI_COMMAND"], conf["name"], os.environ.get("CNI_CONTAINERID", ""), *valid, file=log)
if pathlib.Path({{log!r}} + ".fails").exists() and os.environ["CNI_COMMAND"] == "DEL":
    print('{{{{"code": 7, "msg": "no luck"}}}}')
    sys.exit(1)
print('{{{{"cniVersion": "1.1.0", "ips": [{{{{"address": "10.0.0.2/24"}}}}]}}}}')
"""
ONE, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the plugin `notes` was asked."""
    path = tmp_path / "log"
    (tmp_path / "notes").write_text(PLUGIN.format(log=str(path)))
    (tmp_path / "notes").chmod(0o755)
    return path


def network(tmp_path: Path, place: Path = Path("/var/run/netns"), **own: tuple[str, int]) -> PodNetwork:
    config = Cni((str(tmp_path),), conf_dir=str(written(tmp_path / "all", "common")))
    return PodNetwork(config, tmp_path / "cache", own, place)


def written(directory: Path, name: str) -> Path:
    directory.mkdir(exist_ok=True)
    document = {"cniVersion": "1.1.0", "name": name, "plugins": [{"type": "notes"}]}
    (directory / f"{name}.conflist").write_text(json.dumps(document))
    return directory


@asynccontextmanager
async def started(network: PodNetwork) -> AsyncIterator[PodNetwork]:
    await network.start()
    try:
        yield network
    finally:
        await network.stop()


async def test_a_handler_may_have_networks_of_its_own(tmp_path: Path, log: Path) -> None:
    own = str(written(tmp_path / "own", "special"))
    config = cri.PodSandboxConfig()
    async with started(network(tmp_path, kata=(own, 1))) as found:
        assert {each.name for each in found.networks} == {"common", "special"}
        for id, handler in ((ONE, "kata"), (OTHER, "")):
            assert await found.attach(id, config, namespace_of(id), handler) == ("10.0.0.2",)
    assert log.read_text().splitlines() == [f"ADD special {ONE}", f"ADD common {OTHER}"]


async def test_namespaces_may_be_named_below_the_state_directory(tmp_path: Path) -> None:
    found = network(tmp_path, tmp_path / "netns")
    assert (
        found.path_of(ONE)
        == namespace_of(ONE, tmp_path / "netns")
        == str(tmp_path / "netns" / "cni-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa")
    )


async def test_what_no_known_pod_has_is_detached_and_plugins_learn_what_stays(tmp_path: Path, log: Path) -> None:
    config = cri.PodSandboxConfig()
    async with started(network(tmp_path)) as found:
        for id in (ONE, OTHER):
            await found.attach(id, config, namespace_of(id))
        await found.attach("foreign", config, "/run/elsewhere")
        log.unlink()
        await found.collect({ONE})
        asked = log.read_text().splitlines()
        assert asked == [f"DEL common {OTHER}", f"GC common  {ONE} foreign"]
        assert not await found.results(OTHER) and await found.results(ONE) and await found.results("foreign")


async def test_what_cannot_be_detached_stays_for_the_next_daemon(
    tmp_path: Path, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log.fails").touch()
    async with started(network(tmp_path)) as found:
        await found.attach(ONE, cri.PodSandboxConfig(), namespace_of(ONE))
        await found.collect(set())
        assert 'network "common": CNI plugin notes failed at DEL: no luck' in caplog.text
        assert await found.results(ONE)
        with pytest.raises(Unknown, match='network "common": CNI plugin notes failed at DEL: no luck'):
            await found.detach(ONE, "")
