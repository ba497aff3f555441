"""Containers are attached by all plugins of a network or by none, and detached by what is remembered of them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from cni.conftest import ATTACHMENT, World

from windlass.errors import DeadlineExceeded, Error, FailedPrecondition, Unknown
from windlass_cni.config import Json
from windlass_cni.execute import Programs
from windlass_cni.networks import Networks, add_all, delete_all
from windlass_cni.protocol import capability_args

PORTS: dict[str, Json] = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


async def test_each_plugin_gets_the_result_of_the_one_before(world: World) -> None:
    result = await world.networks.add(world.network(), ATTACHMENT, {})
    first, second = (note["conf"] for note in world.all_notes())
    assert isinstance(first, dict) and isinstance(second, dict)
    assert "prevResult" not in first
    assert second["prevResult"]["ips"][0]["address"] == "10.9.0.7/24"
    assert second["name"] == "net" and second["cniVersion"] == "1.1.0"
    assert [each.ip for each in result.of_container()] == ["10.9.0.7", "10.9.0.7"]


async def test_a_plugin_learns_whom_to_attach_by_its_environment(world: World) -> None:
    await world.networks.add(world.network(), ATTACHMENT, {})
    note = world.all_notes()[0]
    assert note["CNI_CONTAINERID"] == "c1" and note["CNI_NETNS"] == "/run/netns/x" and note["CNI_IFNAME"] == "eth0"
    assert note["CNI_ARGS"] == "IgnoreUnknown=1;K8S_POD_NAME=web"


async def test_only_a_plugin_that_is_capable_gets_the_argument(world: World) -> None:
    """Port mappings go to the plugin that says it can; nothing else does, and no plugin sees the declaration."""
    await world.networks.add(world.network(), ATTACHMENT, {**PORTS, "dns": {"servers": ["1.1.1.1"]}})
    first, second = (note["conf"] for note in world.all_notes())
    assert isinstance(first, dict) and isinstance(second, dict)
    assert first["runtimeConfig"] == PORTS and "runtimeConfig" not in second
    assert "capabilities" not in first


def test_empty_arguments_are_left_out() -> None:
    assert capability_args({"portMappings": [], "dns": {}, "mac": "", "bandwidth": None, "x": 0}) == {"x": 0}


async def test_del_runs_in_reverse_with_the_result_of_add(world: World) -> None:
    await world.networks.add(world.network(), ATTACHMENT, PORTS)
    await delete_all(world.networks, "c1")
    assert world.called() == ["ADD first", "ADD second", "DEL second", "DEL first"]
    conf = world.all_notes()[-1]["conf"]
    assert isinstance(conf, dict) and len(conf["prevResult"]["ips"]) == 2 and conf["runtimeConfig"] == PORTS
    assert list(world.cache.all()) == []


async def test_detaching_twice_is_not_an_error(world: World) -> None:
    await world.networks.add(world.network(), ATTACHMENT, {})
    await delete_all(world.networks, "c1")
    await delete_all(world.networks, "c1")
    assert len(world.called()) == 4


async def test_del_uses_the_configuration_of_add(world: World) -> None:
    """The file may have changed, or be gone, since the container was attached."""
    await world.networks.add(world.network(note="as it was"), ATTACHMENT, {})
    await delete_all(Networks(world.networks.programs, world.cache), "c1")
    conf = world.all_notes()[-1]["conf"]
    assert isinstance(conf, dict) and conf["note"] == "as it was"


async def test_a_namespace_that_is_gone_is_said_to_be(world: World) -> None:
    await world.networks.add(world.network(), ATTACHMENT, {})
    await delete_all(world.networks, "c1", netns="")
    assert world.all_notes()[-1]["CNI_NETNS"] == ""


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        ("fail", Unknown, r"CNI plugin first failed at ADD: no more addresses: range is full \(code 11\)"),
        ("die", Unknown, r"first failed at ADD: exit status 2: Segmentation \[31m fault"),
        ("garbage", Unknown, "first printed no JSON object at ADD: 'hello'"),
        ("early", Unknown, "first printed no JSON object at ADD: ''"),
        ("much", Unknown, "first printed more than 4194304 bytes at ADD"),
    ],
)
async def test_a_plugin_that_fails_is_named_and_what_was_done_is_undone(
    world: World, act: str, error: type[Error], words: str
) -> None:
    with pytest.raises(error, match=words):
        await world.networks.add(world.network(onADD=act), ATTACHMENT, {})
    assert world.called() == ["ADD first", "DEL second", "DEL first"]
    assert list(world.cache.all()) == []


async def test_a_plugin_that_hangs_is_killed(world: World) -> None:
    networks = Networks(Programs((world.bin,), timeout=0.5), world.cache)
    with pytest.raises(DeadlineExceeded, match=r"CNI plugin first did not end ADD within 0.5 s"):
        await networks.add(world.network(onADD="hang"), ATTACHMENT, {})


async def test_a_plugin_that_is_not_there_is_named_with_the_places(world: World) -> None:
    (world.bin / "second").unlink()
    with pytest.raises(FailedPrecondition, match=f"CNI plugin second is not in {world.bin}; install it"):
        await world.networks.add(world.network(), ATTACHMENT, {})


async def test_a_caller_that_goes_away_leaves_nothing_attached(world: World) -> None:
    task = asyncio.ensure_future(world.networks.add(world.network(onADD="hang"), ATTACHMENT, {}))
    while "ADD first" not in world.called():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        while world.called()[-1] != "DEL first" or list(world.cache.all()):
            await asyncio.sleep(0.01)


async def test_what_del_missed_is_kept_and_collected(world: World) -> None:
    """The sweep detaches what no live container has, and says to plugins of CNI 1.1 which are valid."""
    network = world.network(onDEL="fail")
    await world.networks.add(network, ATTACHMENT, {})
    await world.networks.add(network, replace(ATTACHMENT, container="c2"), {})
    with pytest.raises(Unknown, match="CNI plugin first failed at DEL: no more addresses"):
        await delete_all(world.networks, "c1")
    assert len(list(world.cache.all())) == 2
    for path in (world.folder / "results").iterdir():  # the trouble has passed
        document = json.loads(path.read_text())
        config = world.network().source
        path.write_text(json.dumps({**document, "config": __import__("base64").b64encode(config.encode()).decode()}))
    await world.networks.collect(world.network(), {("c2", "eth0")})
    assert [each.attachment.container for each in world.cache.all()] == ["c2"]
    assert world.called()[-4:] == ["DEL second", "DEL first", "GC first", "GC second"]
    conf = world.all_notes()[-1]["conf"]
    assert isinstance(conf, dict)
    assert conf["cni.dev/valid-attachments"] == [{"containerID": "c2", "ifname": "eth0"}]


async def test_several_networks_are_all_attached_or_none(world: World) -> None:
    good, bad = world.network("good"), world.network("bad", onADD="fail")
    results = await add_all(world.networks, [good, world.network("other")], ATTACHMENT, {})
    assert [(each.network, each.interface) for each in results] == [("good", "eth0"), ("other", "eth1")]
    await delete_all(world.networks, "c1")
    for serially in (False, True):
        with pytest.raises(Unknown, match='network "bad": CNI plugin first failed'):
            await add_all(world.networks, [good, bad], ATTACHMENT, {}, serially=serially)
        assert list(world.cache.all()) == []


@pytest.mark.parametrize(("version", "asked"), [("1.0.0", []), ("1.1.0", ["STATUS first", "STATUS second"])])
async def test_status_is_of_cni_1_1(world: World, version: str, asked: list[str]) -> None:
    await world.networks.status(world.network(version=version))
    assert world.called() == asked


async def test_status_says_what_is_missing(world: World) -> None:
    with pytest.raises(Unknown, match="CNI plugin first failed at STATUS: no more addresses"):
        await world.networks.status(world.network(onSTATUS="fail"))


@pytest.mark.parametrize(("version", "checked"), [("0.3.1", False), ("0.4.0", True), ("1.1.0", True)])
async def test_check_is_of_cni_0_4(world: World, version: str, checked: bool) -> None:
    await world.networks.add(world.network(version=version), ATTACHMENT, {})
    (cached,) = world.cache.of_container("c1")
    await world.networks.check(cached)
    assert ("CHECK first" in world.called()) == checked


async def test_results_of_a_container_are_its_own(world: World) -> None:
    for id in ("c1", "c1-x", "x-c1", "eth0"):
        await world.networks.add(world.network(), replace(ATTACHMENT, container=id), {})
    assert [each.attachment.container for each in world.cache.of_container("c1")] == ["c1"]
    assert len(list(world.cache.all())) == 4
