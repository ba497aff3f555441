"""SIGHUP: what can change while the daemon runs changes, what cannot is named, and nothing ends the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from windlass.boot import Daemon
from windlass.config import loading
from windlass.config.loading import Config
from windlass.process import setup
from windlass.process.reload import Reloader

DRIVER = """
import sys, time
from dataclasses import dataclass
from windlass import discovery
from windlass.contracts.services import SERVER
from windlass.discovery import Found
from windlass.plugin import Plugin, PluginType
from windlass.process import cli

KIND = PluginType("io.example.v1")

@dataclass(frozen=True)
class Config:
    speed: int = 1
    limit: int = 1
    place: str = "here"

    def __post_init__(self):
        if self.limit > 9:
            raise ValueError("limit is 9 at most")

more = []

def init(context):
    if context.config(Config).speed == 7:
        time.sleep(1.5)
    def take():
        if context.config(Config).speed == 5:
            more.append(Found("io.example.v1.new", "example 2.0"))
        if context.config(Config).speed == 13:
            raise RuntimeError("13 is too fast")
        sys.stderr.write(f"runs at {context.config(Config).speed}, limit {context.config(Config).limit}\\n")
    context.on_reload(("speed", "limit"), take)
    return object()

found = [
    Found(SERVER.uri + ".none", "example 1.0", Plugin(SERVER, "none", lambda context: None)),
    Found("io.example.v1.good", "example 1.0", Plugin(KIND, "good", init, config=Config)),
]
discovery.discover = lambda disabled, listed: found
discovery.installed = lambda: {each.uri: each.distribution for each in found + more}
sys.exit(cli.main())
"""
BLOCK = '[plugins."io.example.v1.good"]\n'


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Poll until it holds; the deadline is for a daemon that hangs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Running:
    """A daemon, its configuration and its log."""

    def __init__(self, scratch: Path, command: list[str]) -> None:
        self.file = scratch / "config.toml"
        self.log = scratch / "log"
        paths = ["--root", f"{scratch}/root", "--state", f"{scratch}/state", "--address", f"{scratch}/w.sock"]
        self._command = [*command, "-c", str(self.file), *paths]

    def start(self, text: str, ready: bool = True) -> None:
        self.file.write_text(text)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(self._command, stderr=log)
        if ready:
            self.wait_for("is ready after")

    def wait_for(self, words: str, times: int = 1) -> None:
        def found() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.log.read_text().count(words) >= times

        wait_until(found)

    def reload(self, text: str, times: int) -> str:
        """Change the configuration, and return what the log says of it."""
        before = len(self.log.read_text())
        self.file.write_text(text)
        self.process.send_signal(signal.SIGHUP)
        self.wait_for("reloaded; changed", times)
        return self.log.read_text()[before:]

    def end(self) -> None:
        assert self.process.poll() is None, self.log.read_text()
        self.process.terminate()
        assert self.process.wait(30) == 0


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(command: list[str]) -> Running:
        made.append(Running(tmp_path_factory.mktemp("d"), command))
        return made[0]

    yield make
    if made[0].process.poll() is None:
        made[0].process.kill()
        made[0].process.wait()


@pytest.fixture
def daemon(running: Callable[..., Running]) -> Running:
    return running([sys.executable, "-c", DRIVER])


def test_what_can_change_changes_and_the_rest_is_named(daemon: Running) -> None:
    """The plugin gets its new values; a key that it does not take over waits for a restart, and is named each time."""
    daemon.start(BLOCK)
    said = daemon.reload(f'root = "/elsewhere"\n[debug]\nlevel = "debug"\n{BLOCK}speed = 2\nplace = "there"\n', 1)
    assert "runs at 2, limit 1" in said
    assert "reloaded; changed: debug.level, speed of io.example.v1.good" in said
    assert "these changes need a restart of the daemon: place of io.example.v1.good" in said

    said = daemon.reload(f'[debug]\nlevel = "debug"\n{BLOCK}speed = 3\nplace = "there"\n', 2)
    assert "runs at 3, limit 1" in said
    assert "reloaded; changed: speed of io.example.v1.good" in said
    assert "restart of the daemon: place of io.example.v1.good" in said

    said = daemon.reload(f"{BLOCK}speed = 3\n", 3)
    assert "reloaded; changed: debug.level" in said
    assert "restart" not in said
    daemon.end()


def test_a_plugin_that_was_installed_meanwhile_is_named(daemon: Running) -> None:
    """It runs after a restart."""
    daemon.start(BLOCK)
    daemon.reload(f"{BLOCK}speed = 5\n", 1)
    said = daemon.reload(BLOCK, 2)
    assert "these changes need a restart of the daemon: plugin io.example.v1.new" in said
    daemon.end()


def test_a_flag_still_wins_over_the_file(running: Callable[..., Running]) -> None:
    """--root and --log-level of the command line hold after a reload, too."""
    daemon = running([sys.executable, "-c", DRIVER, "--log-level", "info"])
    daemon.start("")
    said = daemon.reload('root = "/elsewhere"\n[debug]\nlevel = "error"\n', 1)
    assert "reloaded; changed: nothing" in said and "restart" not in said
    daemon.end()


def test_a_configuration_with_errors_changes_nothing(daemon: Running) -> None:
    """Every error is logged with its line, and the daemon goes on as it was."""
    daemon.start(BLOCK)
    daemon.file.write_text(f"{BLOCK}speed = 2\nsped = 3\nlimit = 10\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("the configuration stays as it was")
    said = daemon.log.read_text()
    assert "config.toml:3" in said and "runs at" not in said

    said = daemon.reload(f"{BLOCK}speed = 4\n", 1)
    assert "runs at 4, limit 1" in said
    daemon.end()


def test_a_plugin_that_refuses_keeps_its_values(daemon: Running) -> None:
    """Its error is logged with its name, and the next reload tries again from the old values."""
    daemon.start(f"{BLOCK}speed = 2\n")
    said = daemon.reload(f"{BLOCK}speed = 13\nlimit = 3\n", 1)
    assert "io.example.v1.good keeps its values: 13 is too fast" in said
    assert "reloaded; changed: nothing" in said
    assert "need a restart of the daemon: limit of io.example.v1.good, speed of io.example.v1.good" in said

    said = daemon.reload(f"{BLOCK}speed = 2\nlimit = 3\n", 2)
    assert "runs at 2, limit 3" in said
    daemon.end()


def test_a_signal_while_the_daemon_starts_counts_when_it_is_ready(daemon: Running) -> None:
    """It does not end the daemon, and is not lost."""
    daemon.start(f"{BLOCK}speed = 7\n", ready=False)
    wait_until(lambda: (daemon.file.parent / "state").exists())
    daemon.file.write_text(f"{BLOCK}speed = 8\n")
    for _ in range(5):
        daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("runs at 8, limit 1")
    daemon.end()


STANDARD = """
[plugins."io.containerd.transfer.v1.local"]
max_concurrent_downloads = {number}
[plugins."io.containerd.image-verifier.v1.bindir"]
max_verifiers = {number}
[plugins."io.containerd.image-verifier.v1.sign-policy"]
timeout = "{number}s"
[plugins."io.containerd.gc.v1.scheduler"]
deletion_threshold = {number}
[plugins."io.containerd.server.v1.grpc"]
max_recv_message_size = {number}000000
"""
KEYS = (
    "deletion_threshold of io.containerd.gc.v1.scheduler",
    "max_verifiers of io.containerd.image-verifier.v1.bindir",
    "timeout of io.containerd.image-verifier.v1.sign-policy",
    "max_recv_message_size of io.containerd.server.v1.grpc",
    "max_concurrent_downloads of io.containerd.transfer.v1.local",
)


@pytest.mark.skipif(os.geteuid() != 0, reason="the standard plugins need root")
def test_the_standard_plugins_take_over_limits_verifiers_and_registries(running: Callable[..., Running]) -> None:
    """docs/operating.md lists them."""
    daemon = running([sys.executable, "-c", "import sys; from windlass.process import cli; sys.exit(cli.main())"])
    daemon.start(STANDARD.format(number=5))
    said = daemon.reload(STANDARD.format(number=6), 1)
    assert f"reloaded; changed: {', '.join(KEYS)}" in said, said
    daemon.end()


def test_systemd_hears_the_end_of_a_reload_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the unit is shown as reloading, and `systemctl reload` waits, until a timeout."""
    told: list[str] = []
    monkeypatch.setattr(setup, "notify", lambda message: told.append(message.partition("=")[0]))

    def read() -> Config:
        raise ValueError("a defect")

    async def reload() -> None:
        settings = loading.read(Path("/dev/null")).settle([])
        with pytest.raises(ValueError, match="a defect"):
            await Reloader(Daemon([], settings), settings, read, []).reload()

    asyncio.run(reload())
    assert told == ["RELOADING", "READY"]
