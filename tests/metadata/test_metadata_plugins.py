"""The plugins as a daemon starts them: one database, a scheduler, and what clients look up by URI."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from metadata.conftest import Events, digest_of, image, put
from metadata.memory_content import MemoryContent
from metadata.memory_snapshotter import MemorySnapshotter

from windlass.boot import Daemon
from windlass.contracts.content import CONTENT
from windlass.contracts.events import EXCHANGE
from windlass.contracts.gc import GC
from windlass.contracts.leases import LEASE_STORES
from windlass.contracts.metadata import METADATA
from windlass.contracts.sandboxes import SANDBOX_STORES, Sandbox
from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.discovery import Found
from windlass.errors import InvalidArgument
from windlass.gate import offload
from windlass.plugin import Plugin, Record, State
from windlass_metadata import plugin

C = TypeVar("C")
OPEN_TIMEOUT = "io.containerd.timeout.bolt.open"


@dataclass
class Settings:
    root: Path
    state: Path
    configs: Mapping[str, object] = field(default_factory=dict)
    required_plugins: Collection[str] = ()
    timeouts: Mapping[str, float] = field(default_factory=lambda: {OPEN_TIMEOUT: 0.0})
    properties: Mapping[str, str] = field(default_factory=dict)

    def mark(self, *path: str) -> str:
        return ""

    def plugin_config(self, uri: str, kind: type[C]) -> C:
        config = self.configs.get(uri)
        return config if isinstance(config, kind) else kind()

    def section(self, name: str, kind: type[C]) -> Mapping[str, C]:
        return {}


@pytest.fixture
def behind() -> dict[str, Any]:
    return {"content": MemoryContent(), "memory": MemorySnapshotter(), "events": Events()}


def daemon(tmp_path: Path, behind: dict[str, Any], **configs: object) -> Daemon:
    plugins: list[Plugin[Any]] = [
        Plugin(CONTENT, id="content", init=lambda context: behind["content"]),
        Plugin(SNAPSHOTTER, id="memory", init=lambda context: behind["memory"]),
        Plugin(EXCHANGE, id="exchange", init=lambda context: behind["events"]),
        plugin.PLUGIN,
        plugin.SCHEDULER,
        plugin.LEASES,
        plugin.SANDBOXES,
        plugin.CHECKED,
    ]
    settings = Settings(tmp_path / "root", tmp_path / "state", configs)
    return Daemon([Found(each.uri, "test 1.0", each) for each in plugins], settings)


def handle(running: Daemon, kind: Any) -> Any:
    (entry,) = running.of_type(kind.uri)
    return entry.handle


def record(running: Daemon, uri: str) -> Record:
    return next(each for each in running.records if each.uri == uri)


async def test_everything_starts_under_the_names_that_clients_look_up(tmp_path: Path, behind: dict[str, Any]) -> None:
    running = daemon(tmp_path, behind)
    await running.start()

    project = tomllib.loads((Path(plugin.__file__).parents[1] / "pyproject.toml").read_text())
    for uri in project["project"]["entry-points"]["windlass.plugins"]:
        assert record(running, uri).state == State.OK, record(running, uri).message
    exports = record(running, "io.containerd.metadata.v1.bolt").meta.exports
    assert exports == {"policy": "shared", "path": str(tmp_path / "root/io.containerd.metadata.v1.bolt/meta.db")}
    assert record(running, "io.containerd.gc.v1.scheduler").meta.exports == {
        "PauseThreshold": "0.02",
        "DeletionThreshold": "0",
        "MutationThreshold": "100",
        "ScheduleDelay": "0s",
    }
    await running.stop()


async def test_views_work_through_the_gate(tmp_path: Path, behind: dict[str, Any]) -> None:
    """Each call of a view is counted under the metadata store, and the scheduler collects what it is told of."""
    running = daemon(tmp_path, behind)
    await running.start()
    metadata, collector = handle(running, METADATA), handle(running, GC)
    content = await offload(metadata.content, "ns")
    digest = await offload(put, content, b"x")
    images = await offload(metadata.images, "ns")
    await offload(images.create, image("img", digest))
    await offload(handle(running, SANDBOX_STORES).sandboxes("ns").create, Sandbox("sb"))
    await offload(handle(running, LEASE_STORES).leases("ns").create, "l")

    assert (await collector.collect()).removed == 0
    await offload(images.delete, "img")
    deadline = asyncio.get_running_loop().time() + 5
    while behind["content"].blobs and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)

    assert behind["content"].blobs == {}
    assert "images.create" in running.gates["io.containerd.metadata.v1.bolt"].accounts
    await running.stop()


async def test_second_daemon_on_the_same_root_fails_with_a_message(tmp_path: Path, behind: dict[str, Any]) -> None:
    first, second = daemon(tmp_path, behind), daemon(tmp_path, behind)
    await first.start()
    await second.start()

    message = record(second, "io.containerd.metadata.v1.bolt").message
    assert "is held by process" in message and "another root" in message
    await second.stop()
    await first.stop()
    third = daemon(tmp_path, behind)
    await third.start()
    assert record(third, "io.containerd.metadata.v1.bolt").state == State.OK
    await third.stop()


@pytest.mark.parametrize(
    ("uri", "config", "word"),
    [
        ("io.containerd.metadata.v1.bolt", plugin.Config(content_sharing_policy="none"), "content_sharing_policy"),
        ("io.containerd.gc.v1.scheduler", plugin.SchedulerConfig(startup_delay="soon"), "startup_delay"),
    ],
)
async def test_wrong_configuration_is_named(
    tmp_path: Path, behind: dict[str, Any], uri: str, config: object, word: str
) -> None:
    running = daemon(tmp_path, behind, **{uri: config})
    await running.start()
    assert isinstance(record(running, uri).error, InvalidArgument)
    assert word in record(running, uri).message
    await running.stop()


async def test_isolation_is_configured(tmp_path: Path, behind: dict[str, Any]) -> None:
    config = replace(plugin.Config(), content_sharing_policy="isolated", no_sync=True)
    running = daemon(tmp_path, behind, **{"io.containerd.metadata.v1.bolt": config})
    await running.start()
    metadata = handle(running, METADATA)
    await offload(put, metadata.content("one"), b"x")
    writer = await offload(metadata.content("two").writer, "ref", 1, digest_of(b"x"))
    assert writer.status().offset == 0
    writer.close()
    await running.stop()
