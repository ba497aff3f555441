"""Without an event loop: the same plugins in the same order, the same records, the same errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cni.conftest import ATTACHMENT, World

from windlass.errors import DeadlineExceeded, FailedPrecondition, Unknown
from windlass_cni.blocking import BlockingNetworks
from windlass_cni.config import Json
from windlass_cni.networks import delete_all

PORTS: dict[str, Json] = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


def blocking(world: World, timeout: float = 10) -> BlockingNetworks:
    return BlockingNetworks((world.bin,), world.cache, timeout)


def test_plugins_run_in_order_and_in_reverse(world: World) -> None:
    networks = blocking(world)
    result = networks.add(world.network(), ATTACHMENT, PORTS)
    assert [each.ip for each in result.of_container()] == ["10.9.0.7", "10.9.0.7"]
    networks.delete_all("c1", "/run/netns/moved")
    assert world.called() == ["ADD first", "ADD second", "DEL second", "DEL first"]
    notes = world.all_notes()
    assert notes[-1]["CNI_NETNS"] == "/run/netns/moved" and notes[0]["CNI_NETNS"] == "/run/netns/x"
    conf = notes[-1]["conf"]
    assert isinstance(conf, dict) and conf["runtimeConfig"] == PORTS and len(conf["prevResult"]["ips"]) == 2
    assert list(world.cache.all()) == []


async def test_what_it_attached_the_other_detaches(world: World) -> None:
    blocking(world).add(world.network(), ATTACHMENT, {})
    await delete_all(world.networks, "c1")
    assert world.called()[2:] == ["DEL second", "DEL first"] and list(world.cache.all()) == []


@pytest.mark.parametrize(
    ("act", "kind", "words"),
    [
        ("fail", Unknown, r"first failed at ADD: no more addresses: range is full \(code 11\)"),
        ("die", Unknown, r"failed at ADD: exit status 2: Segmentation \[31m fault"),
        ("garbage", Unknown, "printed no JSON object at ADD: 'hello'"),
        ("much", Unknown, "printed more than"),
        ("hang", DeadlineExceeded, "did not end ADD within 1 s"),
    ],
)
def test_a_plugin_that_fails_is_named_and_taken_back(world: World, act: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        blocking(world, 1 if act == "hang" else 10).add(world.network(onADD=act), ATTACHMENT, {})
    assert world.called()[-2:] == ["DEL second", "DEL first"] and list(world.cache.all()) == []


def test_what_cannot_be_detached_is_kept(world: World) -> None:
    networks = blocking(world)
    networks.add(world.network(onDEL="fail"), ATTACHMENT, {})
    with pytest.raises(Unknown, match='network "net": CNI plugin first failed at DEL'):
        networks.delete_all("c1", "")
    assert len(list(world.cache.all())) == 1


def test_a_missing_plugin_is_named(world: World) -> None:
    nowhere = replace(blocking(world), directories=(Path("/nowhere"),))
    with pytest.raises(FailedPrecondition, match="CNI plugin first is not in /nowhere"):
        nowhere.add(world.network(), ATTACHMENT, {})


def test_it_imports_no_asyncio() -> None:
    code = "import sys, windlass_cni.blocking; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
