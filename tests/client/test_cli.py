"""The command line: what it prints, how it fails, and what it does not import."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from client.conftest import ArchiveFiles

from windlass_api.containerd.services.introspection.v1 import introspection_pb2
from windlass_client import output
from windlass_client.cli import main, windlass


async def invoke(address, *arguments):
    """Run a command in a thread, because the daemon of the test lives in our event loop."""
    runner = CliRunner()
    return await asyncio.to_thread(runner.invoke, windlass, ["--address", address, *arguments])


async def test_image_commands(address, daemon, tmp_path):
    """Import, list and remove; JSON for machines."""
    path = ArchiveFiles(name="example.org/x:1").save(tmp_path / "a.tar")

    imported = await invoke(address, "image", "import", "--all-platforms", "--no-unpack", path)
    listed = await invoke(address, "image", "ls", "--json")
    names = await invoke(address, "image", "ls", "-q")
    removed = await invoke(address, "image", "rm", "example.org/x:1")

    assert imported.exit_code == 0, imported.output
    assert imported.stdout == "imported example.org/x:1\n"
    assert [image["name"] for image in json.loads(listed.stdout)] == ["example.org/x:1"]
    assert names.stdout == removed.stdout == "example.org/x:1\n"
    assert not daemon.images


async def test_plugins(address, daemon):
    """A table, a graph, and the reason for what is missing with exit code 1."""
    failed = introspection_pb2.Plugin(type="t.v1", id="b", requires=["u.v1"])
    failed.init_err.message = "no plugin of type u.v1 has started"
    daemon.plugins = [introspection_pb2.Plugin(type="t.v1", id="a"), failed]

    table = await invoke(address, "plugins", "ls", "-l")
    graph = await invoke(address, "plugins", "graph")
    picture = await invoke(address, "plugins", "graph", "--format", "svg")
    why = await invoke(address, "plugins", "why", "t.v1.b")

    assert table.stdout.splitlines()[2].split(maxsplit=3)[:3] == ["t.v1", "b", "failed"]
    assert graph.stdout == "t.v1  ✓ a  ✗ b\n└─ u.v1  ✗ not installed\n"
    assert picture.stdout.startswith("<svg")
    assert "└─ u.v1 is not installed\nremedy: " in why.stdout


async def test_version(address):
    """Ours and the daemon's."""
    shown = await invoke(address, "version", "--json")
    assert json.loads(shown.stdout)["daemon"]["version"] == "1.2.3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image", "ls"], "windlass: daemon at /nonexistent/d.sock is not running: there is no such socket"),
        (["run", "x", "--rm"], "windlass: daemon at /nonexistent/d.sock is not running"),
        (["image", "import", "--platform", "x", "a"], "windlass: platform 'x' is not of the form"),
        (["run", "--memory", "lots", "x"], "windlass: size 'lots' is not a number"),
    ],
)
def test_a_failure_is_one_line(capfd, arguments, message):
    """Exit code 1, no traceback, and what to do about it."""
    assert main(["--address", "/nonexistent/d.sock", *arguments]) == 1
    shown = capfd.readouterr().err
    assert shown.startswith(message)
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["run", "--rm", "-d", "x"], ["kill", "-s", "SIGNOPE", "x"], ["frobnicate"], ["run"], ["image", "import"]],
)
def test_wrong_usage(capfd, arguments):
    """Exit code 2, as everywhere."""
    assert main(arguments) == 2
    assert "Usage:" in capfd.readouterr().err


def test_config_is_the_kernels(capfd):
    """`windlass config` and `windlassd config` are the same commands."""
    assert main(["config", "default"]) == 0
    assert "version = " in capfd.readouterr().out
    assert main(["config", "check", "/nonexistent.toml"]) == 1
    assert "nonexistent.toml does not exist" in capfd.readouterr().out


def test_help_imports_nothing_that_costs():
    """What only some commands need is loaded by them: grpc, protobuf and rich take longer than everything else."""
    script = (
        "import sys; from windlass_client.cli import main; main(['--help']);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'grpc', 'google', 'rich', 'zstandard'}))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_names_cannot_move_the_cursor(capsys):
    """A name comes from an image, and a terminal obeys what it is shown."""
    output.rows([{"name": "a\x1b[2Jb\nc"}], ("name",), False)
    assert capsys.readouterr().out == "NAME\na?[2Jb?c\n"
