"""What the daemon has of NRI while there is no plugin: a socket, and the plugins that it starts."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nri.fake_plugin import FakePlugin

from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri_plugins.config import Config, DefaultValidator, Policy
from windlass_nri_plugins.launching import Launcher
from windlass_nri_plugins.listening import Listener
from windlass_nri_plugins.server import NriServer

POD = nri.PodSandbox(id="p", name="pod")


def test_a_daemon_without_plugins_imports_nothing_of_nri() -> None:
    """Neither the messages nor what carries them; CRI does not either until a hook plugin has a say."""
    modules = "windlass_nri_plugins.plugin, windlass_nri_plugins.server, windlass_nri_plugins.participant"
    code = f"import sys, {modules}, windlass_cri.runtime; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = done.stdout.split()
    assert not [name for name in loaded if name.startswith(("windlass_nri.", "windlass_api.nri.pkg.api.v1alpha1."))]


def test_the_socket_is_for_its_owner_and_replaces_what_a_dead_daemon_left(tmp_path: Path) -> None:
    path = tmp_path / "nri" / "nri.sock"
    listener = Listener(path)
    assert listener.open()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o700
    left = Listener(path)
    left._socket = None  # as that of a process that has gone
    listener._socket.close()  # type: ignore[union-attr] # as above
    again = Listener(path)
    assert again.open()
    again.close()
    assert not path.exists()


def test_the_socket_of_another_daemon_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "nri.sock"
    first, second = Listener(path), Listener(path)
    assert first.open() and not second.open()
    assert "another daemon listens there; set socket_path" in caplog.text
    second.close()
    assert path.exists()
    first.close()


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, **fields: object) -> AsyncIterator[NriServer]:
    paths = {"socket_path": f"{tmp_path}/s/nri.sock", "plugin_path": f"{tmp_path}/plugins"}
    config = Config(**{**paths, "plugin_config_path": f"{tmp_path}/conf", **fields})  # type: ignore[arg-type]
    server = NriServer(config, tmp_path / "state", asyncio.get_running_loop())
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_a_plugin_connects_and_has_a_say_as_long_as_it_is_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert not server.has_say("create_container") and server.has_say("serve_pods")
        for _ in range(2):
            plugin = FakePlugin("10", "x", {})
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(f"{tmp_path}/s/nri.sock")
            await plugin.connect(peer)
            await _until(lambda: server.has_say("create_container"))
            plugin.mux.close()
            await _until(lambda: not server.has_say("create_container"))


async def test_rules_have_a_say_without_any_plugin(tmp_path: Path) -> None:
    policies = {"guard": Policy("closed")}
    async with serving(tmp_path, policies=policies, default_validator=DefaultValidator(enable=True)) as server:
        assert server.has_say("run_pod_sandbox") and server.has_say("validate_container_adjustment")
        assert not server.has_say("stop_container")


async def test_no_plugin_connects_where_that_is_disabled(tmp_path: Path) -> None:
    async with serving(tmp_path, disable_connections=True):
        assert not (tmp_path / "s").exists()


async def _until(condition: object) -> None:
    assert callable(condition)
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("30 s are over")


SEES = """#!{python}
import asyncio, os
from windlass.hooks import hookimpl
from windlass_nri.stub import Stub, hooks_of

class Sees:
    @hookimpl
    def create_container(self): ...

async def main():
    descriptor = os.environ["NRI_PLUGIN_SOCKET"]
    with open("{out}." + str(os.getpid()), "w") as file:
        print(sorted(os.environ), os.readlink("/proc/self/fd/" + descriptor), file=file)
    await Stub(hooks_of(Sees(), "sees"), "sees", os.environ["NRI_PLUGIN_IDX"]).run()
    await asyncio.Event().wait()

asyncio.run(main())
"""
ENDS = """#!/bin/sh
: > {out}.$$
"""


def _install(tmp_path: Path, name: str, text: str = ENDS) -> Path:
    path = tmp_path / "plugins" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text.format(python=sys.executable, out=tmp_path / "out"))
    path.chmod(0o755)
    return path


PATIENT = {"plugin_registration_timeout": "60s", "plugin_request_timeout": "60s"}


async def test_installed_plugins_take_part_before_pods_do(tmp_path: Path) -> None:
    """Also the second of two that start at once; one that fails is waited for once."""
    for name, text in (("10-sees", SEES), ("20-sees", SEES), ("30-ends", ENDS)):
        _install(tmp_path, name, text)
    async with serving(tmp_path, **PATIENT) as server:
        assert server.peers.names() == [("10", "sees"), ("20", "sees")]
        assert server.has_say("create_container") and (tmp_path / "s" / "nri.sock").exists()


async def test_an_installed_plugin_ends_with_the_daemon(tmp_path: Path) -> None:
    """It gets its name, its index and a descriptor, and nothing of the daemon's environment."""
    _install(tmp_path, "10-sees", SEES)
    async with serving(tmp_path, **PATIENT):
        (found,) = tmp_path.glob("out.*")
        text, pid = found.read_text(), int(found.suffix[1:])
        assert "NRI_PLUGIN_IDX" in text and "NRI_PLUGIN_NAME" in text and "socket:[" in text and "HOME" not in text
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


async def test_an_installed_plugin_that_ends_is_started_again(tmp_path: Path) -> None:
    _install(tmp_path, "10-ends")
    async with serving(tmp_path, **PATIENT):
        await _until(lambda: len(list(tmp_path.glob("out.*"))) > 1)


async def test_an_installed_plugin_that_does_not_register_ends(tmp_path: Path) -> None:
    _install(tmp_path, "10-sleeps", ENDS + "exec /bin/sleep 1000\n")
    async with serving(tmp_path, plugin_registration_timeout="300ms") as server:
        assert server.peers.names() == []
    assert all(not Path(f"/proc/{each.suffix[1:]}").exists() for each in tmp_path.glob("out.*"))


def test_what_a_killed_daemon_had_started_ends(tmp_path: Path) -> None:
    """By pid and time, so that nothing else ends that has the pid now."""
    _install(tmp_path, "10-sleeper")
    config = Config(plugin_path=f"{tmp_path}/plugins", plugin_config_path=f"{tmp_path}/conf")
    first = Launcher(config, tmp_path / "state", None)  # type: ignore[arg-type] # it serves none
    orphan = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
    other = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
    try:
        first._remember(orphan.pid)
        first._running[other.pid] = 1
        first._remember(orphan.pid)
        found = Launcher(config, tmp_path / "state", None).find()  # type: ignore[arg-type] # as above
        assert [(each.index, each.name) for each in found] == [("10", "sleeper")]
        assert orphan.wait(20) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_an_installed_plugin_has_its_own_configuration_or_that_of_its_name(tmp_path: Path) -> None:
    for name in ("10-sleeper", "20-sleeper", "30-bare", "nonsense", "40-no-program"):
        _install(tmp_path, name)
    (tmp_path / "plugins" / "40-no-program").chmod(0o644)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "10-sleeper.conf").write_text("first")
    (tmp_path / "conf" / "sleeper.conf").write_text("any")
    config = Config(plugin_path=f"{tmp_path}/plugins", plugin_config_path=f"{tmp_path}/conf")
    found = Launcher(config, tmp_path / "state", None).find()  # type: ignore[arg-type] # it serves none
    assert [(each.index, each.document) for each in found] == [("10", "first"), ("20", "any"), ("30", "")]
