"""`windlass plugin serve` with a hook plugin: the same file as in the daemon, under a runtime of NRI."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nri.fake_runtime import ConnectedPlugin, FakeRuntime, fake_runtime

from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri import naming
from windlass_nri.mux import RUNTIME_SERVICE, attach

WINDLASS = Path(sys.executable).with_name("windlass")
PLUGIN = """
from dataclasses import dataclass
from windlass.contracts.pods import Answer, Pod, PodContainer, PodHooks
from windlass.errors import InvalidArgument
from windlass.hooks import hookimpl
from windlass.plugin import HOOK, InitContext, Plugin
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri

@dataclass(frozen=True)
class Config:
    site: str = "berlin"

class Sites:
    def __init__(self, site: str) -> None:
        self.site = site

    @hookimpl
    def create_container(self, pod: Pod, container: PodContainer) -> Answer:
        response = nri.CreateContainerResponse()
        response.adjust.env.add(key="SITE", value=f"{self.site} {pod.name} {container.name}")
        return Answer("sites", response)

def init(context: InitContext) -> Sites:
    site = context.config(Config).site
    if site == "nowhere":
        raise InvalidArgument("there is no such site")
    return Sites(site)

PLUGIN = Plugin(HOOK, id="sites", init=init, config=Config, steps=(PodHooks,))
OTHER = "not a plugin"
"""


@contextlib.asynccontextmanager
async def serving(folder: Path, *arguments: str, fd: int = -1) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, which is ended afterwards."""
    command = [str(WINDLASS), "plugin", "serve", *arguments, "--root", str(folder / "root")]
    environment = {**os.environ, **({naming.SOCKET_VARIABLE: str(fd)} if fd >= 0 else {})}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        pass_fds=[fd] if fd >= 0 else [],
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def site(plugin: ConnectedPlugin) -> str:
    request = nri.CreateContainerRequest(pod=nri.PodSandbox(name="pod"), container=nri.Container(id="c", name="box"))
    response = await plugin.ask("CreateContainer", request, nri.CreateContainerResponse)
    return response.adjust.env[0].value


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory whose path is short, since paths of sockets have to be."""
    with tempfile.TemporaryDirectory(prefix="nri-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "10-sites.py"
    path.write_text(PLUGIN)
    return path


async def test_a_file_is_a_plugin_with_its_configuration(tmp_path: Path, file: Path) -> None:
    """Name and index are those of the file, the configuration is a block as in the daemon; a signal ends it."""
    config = tmp_path / "config.toml"
    config.write_text('version = 4\n[plugins."io.windlass.hook.v1.sites"]\nsite = "oslo"\n')
    async with fake_runtime(tmp_path / "nri.sock") as runtime:
        where = ["--socket", str(runtime.path), "--config", str(config)]
        async with serving(tmp_path, str(file), *where) as process:
            plugin = await runtime.plugin()
            assert (plugin.registration.plugin_name, plugin.registration.plugin_idx) == ("sites", "10")
            assert plugin.events == {"CREATE_CONTAINER"}
            assert await site(plugin) == "oslo pod box"
            process.send_signal(signal.SIGTERM)
            await plugin.mux.gone
            assert await process.wait() == 0


async def test_a_plugin_comes_back_with_its_runtime(tmp_path: Path, file: Path) -> None:
    """It waits for the runtime's next start and registers anew."""
    path = tmp_path / "nri.sock"
    named = ["--socket", str(path), "--name", "other", "--index", "77"]
    async with fake_runtime(path) as runtime, serving(tmp_path, str(file), *named):
        assert await site(await runtime.plugin()) == "berlin pod box"
        runtime.close()
        plugin = await runtime.plugin()
        assert (plugin.registration.plugin_name, plugin.registration.plugin_idx) == ("other", "77")
        assert await site(plugin) == "berlin pod box"


async def test_a_plugin_that_the_runtime_starts_ends_with_it(tmp_path: Path, file: Path) -> None:
    """It uses the socket that it was handed, and its process ends with the connection."""
    ours, theirs = socket.socketpair()
    runtime = FakeRuntime(tmp_path)
    async with serving(tmp_path, str(file), fd=theirs.fileno()) as process:
        theirs.close()
        mux = await attach(ours, "plugin")
        connected = ConnectedPlugin(runtime, mux)
        mux.serve(RUNTIME_SERVICE, [connected])
        assert await site(await runtime.plugin()) == "berlin pod box"
        mux.close()
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FILE", "--socket", "none.sock"], "cannot connect to the NRI socket none.sock"),
        (["FILE:OTHER", "--socket", "none.sock"], "does not declare OTHER as a Plugin of type io.windlass.hook.v1"),
        (["no.such.module", "--socket", "none.sock"], "is neither a file nor a module nor the URI of a hook plugin"),
        (["io.windlass.hook.v1.missing"], "plugin io.windlass.hook.v1.missing is not installed"),
        (["FILE", "--name", "a b"], "plugin name 'a b' is not"),
        (["FILE", "--index", "1"], "plugin index '1' is not two digits"),
        (["FILE", "--address", "x.sock"], "a hook plugin has no --address"),
        (["io.containerd.snapshotter.v1.native"], "--address is missing"),
        (["BROKEN"], "cannot be imported: SyntaxError"),
        (["UNNUMBERED"], "has no index; give --index"),
        (["FILE", "--socket", "none.sock", "--config", "CONFIG"], "did not start: there is no such site"),
    ],
)
async def test_what_cannot_be_served_is_said_in_one_line(
    tmp_path: Path, file: Path, arguments: list[str], message: str
) -> None:
    """And the exit code is not 0."""
    (tmp_path / "10-broken.py").write_text("def")
    (tmp_path / "sites.py").write_text(PLUGIN)
    (tmp_path / "config.toml").write_text('version = 4\n[plugins."io.windlass.hook.v1.sites"]\nsite = "nowhere"\n')
    names = {"FILE": file, "FILE:OTHER": f"{file}:OTHER", "BROKEN": tmp_path / "10-broken.py"}
    names |= {"UNNUMBERED": tmp_path / "sites.py", "CONFIG": tmp_path / "config.toml"}
    async with serving(tmp_path, *(str(names.get(each, each)) for each in arguments)) as process:
        output, _ = await process.communicate()
        assert process.returncode
    assert message in output.decode()
    assert "Traceback" not in output.decode()
