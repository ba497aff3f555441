"""The daemon's process: readiness, signals, stop and exit codes, each in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

DRIVER = """
import asyncio, sys, threading, time
from windlass.process import cli
from windlass import discovery
from windlass.discovery import Found
from windlass.plugin import Plugin, PluginType
from windlass.contracts.services import SERVER

KIND = PluginType("io.example.v1")
found = []

def plugin(id, init):
    found.append(Found(KIND.uri + "." + id, "example 1.0", Plugin(KIND, id, init)))

# without a server no daemon starts
found.append(Found(SERVER.uri + ".none", "example 1.0", Plugin(SERVER, "none", lambda context: None)))
discovery.discover = lambda disabled, listed: found

{body}

sys.exit(cli.main())
"""

GOOD = """
def init(context):
    async def start():
        asyncio.create_task(asyncio.sleep(100), name="a task of good's")
    context.on_start(start)
    context.on_stop(lambda: sys.stderr.write("good is closed\\n"))
    return object()

plugin("good", init)
"""


class Running:
    """A daemon with the plugins of a driver script, in a scratch directory."""

    def __init__(self, scratch: Path, body: str, arguments: list[str], notify: str = "") -> None:
        self.scratch = scratch
        script = scratch / "driver.py"
        script.write_text(DRIVER.replace("{body}", textwrap.dedent(body)))
        self.peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.peer.settimeout(10)
        address = notify or str(scratch / "notify")
        self.peer.bind("\0" + address[1:] if address.startswith("@") else address)
        paths = ["--root", f"{scratch}/root", "--state", f"{scratch}/state", "--address", f"{scratch}/w.sock"]
        kernel = str(Path(__file__).parents[2] / "kernel")
        self.process = subprocess.Popen(
            [sys.executable, str(script), *paths, *arguments],
            env={**os.environ, "NOTIFY_SOCKET": address, "TMPDIR": str(scratch), "PYTHONPATH": kernel},
            stderr=subprocess.PIPE,
            text=True,
        )

    def told(self) -> str:
        return self.peer.recv(100).decode()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=15)
        return self.process.returncode, err

    def close(self) -> None:
        self.peer.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        if self.process.stderr:
            self.process.stderr.close()


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose name is short enough for sockets."""
    return tmp_path_factory.mktemp("d")


@pytest.fixture
def daemons() -> Iterator[list[Running]]:
    running: list[Running] = []
    yield running
    for daemon in running:
        daemon.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ready_and_stopped_in_order(scratch: Path, daemons: list[Running], number: int) -> None:
    """systemd is told of both, plugins are closed, and the exit code is 0."""
    daemon = Running(scratch, GOOD, [])
    daemons.append(daemon)

    assert daemon.told() == "READY=1"
    assert (scratch / "root").stat().st_mode & 0o777 == 0o700
    assert (scratch / "state").stat().st_mode & 0o777 == 0o711
    code, err = daemon.end(number)

    assert daemon.told() == "STOPPING=1"
    assert code == 0
    assert "good is closed" in err
    assert "plugins: 2 ok, 0 skipped, 0 failed, 0 disabled" in err


def test_idle_threads_do_not_delay_the_end(scratch: Path, daemons: list[Running]) -> None:
    """Calls that went through `offload` leave threads that wait for more; the process does not wait for them."""
    body = """
        from windlass.gate import offload

        def init(context):
            async def start():
                await offload(time.time)
            context.on_start(start)
            return object()

        plugin("offloading", init)
    """
    daemon = Running(scratch, body, [])
    daemons.append(daemon)

    assert daemon.told() == "READY=1"
    code, err = daemon.end()

    assert code == 0
    assert "leaving without it" not in err


def test_an_abstract_notify_socket(scratch: Path, daemons: list[Running]) -> None:
    """A name that begins with @ has no file."""
    daemon = Running(scratch, GOOD, [], notify=f"@windlass-test-{os.getpid()}")
    daemons.append(daemon)

    assert daemon.told() == "READY=1"
    assert daemon.end()[0] == 0


def test_usr1_writes_stacks_of_threads_and_tasks(scratch: Path, daemons: list[Running]) -> None:
    """To the log and to a file only the owner can read; the daemon goes on."""
    daemon = Running(scratch, GOOD, [])
    daemons.append(daemon)
    assert daemon.told() == "READY=1"
    file = scratch / f"windlass.{daemon.process.pid}.stacks.log"

    daemon.process.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + 5
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert "thread MainThread" in file.read_text()
    assert "task a task of good's" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    code, err = daemon.end()
    assert code == 0
    assert "stacks of all threads and tasks" in err


def test_a_stop_before_ready_is_an_orderly_stop(scratch: Path, daemons: list[Running]) -> None:
    """A plugin that holds readiness back holds nothing else."""
    body = """
    def init(context):
        context.register_readiness()
        async def start():
            sys.stderr.write("started\\n"); sys.stderr.flush()
        context.on_start(start)
        context.on_stop(lambda: sys.stderr.write("slow is closed\\n"))
        return object()
    plugin("slow", init)
    """
    daemon = Running(scratch, body, [])
    daemons.append(daemon)
    assert daemon.process.stderr
    assert daemon.process.stderr.readline() == "started\n"

    code, err = daemon.end()

    assert code == 0
    assert "slow is closed" in err
    assert "is ready" not in err


def test_a_required_plugin_that_fails_stops_the_daemon(scratch: Path, daemons: list[Running]) -> None:
    """With one line that names it, exit code 1, and what had started closed."""
    config = scratch / "config.toml"
    config.write_text('version = 4\nrequired_plugins = ["io.example.v1.zbad"]\n')
    body = GOOD + "\ndef bad(context):\n    raise OSError('no disk')\nplugin('zbad', bad)\n"
    daemon = Running(scratch, body, ["--config", str(config)])
    daemons.append(daemon)

    _, err = daemon.process.communicate(timeout=15)

    assert daemon.process.returncode == 1
    last = [line for line in err.splitlines() if line.startswith("windlassd: ")]
    assert len(last) == 1
    assert "io.example.v1.zbad" in last[0]
    assert "no disk" in last[0]
    assert "good is closed" in err


def test_a_thread_that_hangs_does_not_keep_the_daemon(scratch: Path, daemons: list[Running]) -> None:
    """Neither a stop that does not return nor a thread that is left over delays the exit for long."""
    config = scratch / "config.toml"
    config.write_text('version = 4\n[timeouts]\n"io.windlass.timeout.plugin.stop" = "100ms"\n')
    body = """
    def init(context):
        threading.Thread(target=time.sleep, args=(60,)).start()
        context.on_stop(lambda: time.sleep(60))
        return object()
    plugin("hangs", init)
    """
    daemon = Running(scratch, body, ["--config", str(config)])
    daemons.append(daemon)
    assert daemon.told() == "READY=1"

    started = time.monotonic()
    code, err = daemon.end()

    assert code == 0
    assert time.monotonic() - started < 8
    assert "leaving without it" in err


def test_two_signals_at_once_are_one_and_a_later_one_is_obeyed(scratch: Path, daemons: list[Running]) -> None:
    """timeout(1) sends two; an operator who sends another means it."""
    hang = "def hang(context):\n    context.on_stop(lambda: time.sleep(3))\n    return object()\nplugin('h', hang)\n"
    body = f"{GOOD}\n{hang}"
    daemon = Running(scratch, body, [])
    daemons.append(daemon)
    assert daemon.told() == "READY=1"

    daemon.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    daemon.process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    assert daemon.process.poll() is None
    code, err = daemon.end()

    assert code == 1
    assert "SIGTERM again" in err


def test_the_log_as_json(scratch: Path, daemons: list[Running]) -> None:
    """As the file says; the level of the flag wins."""
    config = scratch / "config.toml"
    config.write_text('version = 4\n[debug]\nformat = "json"\nlevel = "info"\n')
    daemon = Running(scratch, GOOD, ["--config", str(config), "--log-level", "error"])
    daemons.append(daemon)

    assert daemon.told() == "READY=1"
    assert daemon.end() == (0, "good is closed\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "/nowhere.toml"], "--config: /nowhere.toml does not exist"),
        (["--root", "{}/same", "--state", "{}/same"], "--state: root and state are both"),
        (["--root", "/dev/null"], "root (--root): /dev/null is not a directory"),
        (["--address", "/" + "x" * 110], "--address: socket path /x"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(
    scratch: Path, daemons: list[Running], arguments: list[str], message: str
) -> None:
    """Exit code 1, and nothing but that line."""
    daemon = Running(scratch, GOOD, [argument.replace("{}", str(scratch)) for argument in arguments])
    daemons.append(daemon)

    _, err = daemon.process.communicate(timeout=15)

    assert daemon.process.returncode == 1
    assert err.startswith(f"windlassd: {message}")
    assert err.count("\n") == 1


SICK_SERVER = """
def fail(context):
    raise KeyError("x")
found[0] = Found(SERVER.uri + ".none", "example 1.0", Plugin(SERVER, "none", fail))
"""


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("found.clear()", "windlassd: no plugin is installed: pip install windlass"),
        (f"found.clear()\n{GOOD}", "windlassd: no server is installed, so no client could connect: pip install"),
        (GOOD + SICK_SERVER, "windlassd: io.containerd.server.v1.none is failed: KeyError: 'x'"),
    ],
    ids=["nothing", "no server", "failed server"],
)
def test_a_daemon_that_no_client_could_reach_does_not_start(
    scratch: Path, daemons: list[Running], body: str, told: str
) -> None:
    """Exit code 1, the reason and the remedy; what had started is closed."""
    daemon = Running(scratch, body, [])
    daemons.append(daemon)

    _, err = daemon.process.communicate(timeout=15)

    assert daemon.process.returncode == 1
    assert told in err
    assert ("good is closed" in err) is ("good" in body)


def test_what_holds_the_daemons_loop_up_is_in_the_log(scratch: Path, daemons: list[Running]) -> None:
    """The plugin's distribution and the place, while it lasts."""
    body = """
        def init(context):
            async def block():
                time.sleep(2.5)
            async def start():
                await block()
            context.on_start(start)
            return object()

        plugin("blocks", init)
    """
    daemon = Running(scratch, body, [])
    daemons.append(daemon)
    assert daemon.told() == "READY=1"

    code, err = daemon.end()

    assert code == 0
    assert "the event loop has been held up for " in err
    assert f"by a plugin of example 1.0 at {scratch}/driver.py:" in err
    assert "no client is served meanwhile" in err


def test_sys_exit_in_a_plugins_task_does_not_end_the_daemon(scratch: Path, daemons: list[Running]) -> None:
    """It is logged with its stack, and the daemon serves until it is stopped."""
    body = """
        async def leave():
            sys.exit(7)

        def init(context):
            async def start():
                context.leaving = asyncio.create_task(leave())
            context.on_start(start)
            context.on_stop(lambda: sys.stderr.write("stopped in order\\n"))
            return object()

        plugin("leaves", init)
    """
    daemon = Running(scratch, body, [])
    daemons.append(daemon)
    assert daemon.told() == "READY=1"

    code, err = daemon.end()

    assert code == 0
    assert "stopped in order" in err
    assert "what a plugin's task raises ends that task only: SystemExit: 7" in err
    assert f'File "{scratch}/driver.py"' in err


SLOW = """
import os
from windlass.contracts.services import GRPC
from windlass_server.plugin import GRPC_SERVER, TTRPC_SERVER

class Nothing:
    name = "test.Nothing"
    def register(self, server):
        pass

def slow(context):
    while not os.path.exists(str(context.state.parent) + "/go"):
        time.sleep(0.01)
    return Nothing()

for declared in (GRPC_SERVER, TTRPC_SERVER, Plugin(GRPC, "slow", slow)):
    found.append(Found(declared.uri, "example 1.0", declared))
"""


def test_who_comes_before_the_daemon_is_ready_waits(scratch: Path, daemons: list[Running]) -> None:
    """A client that is started beside the daemon finds both sockets, and is answered as soon as there is an answer."""
    daemon = Running(scratch, SLOW, [])
    daemons.append(daemon)
    paths = [scratch / "w.sock", scratch / "w.sock.ttrpc"]
    end = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end
        time.sleep(0.01)
    with socket.socket(socket.AF_UNIX) as shim, grpc.insecure_channel(f"unix:{paths[0]}") as channel:
        shim.settimeout(30)
        shim.connect(str(paths[1]))
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Nothing/Call")
        call = method.future(b"", timeout=60)
        daemon.peer.settimeout(0.5)
        with pytest.raises(TimeoutError):
            daemon.told()
        assert not call.done()
        (scratch / "state" / "go").touch()
        error = call.exception()
        assert isinstance(error, grpc.aio.AioRpcError | grpc.Call) and error.code() == grpc.StatusCode.UNIMPLEMENTED
    daemon.peer.settimeout(30)
    assert daemon.told() == "READY=1"
    assert daemon.end()[0] == 0
    assert not any(path.exists() for path in paths)
