"""The command line: what it prints, how it fails, and what it does not import."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from client.conftest import ArchiveFiles, FakeDaemon

from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
from windlass_api.containerd.services.introspection.v1 import introspection_pb2
from windlass_client import output
from windlass_client.cli import exit_code, main, windlass
from windlass_client.connection import target


async def invoke(address: str, *arguments: str) -> Result:
    """Run a command in a thread, because the daemon of the test lives in our event loop."""
    runner = CliRunner()
    return await asyncio.to_thread(runner.invoke, windlass, ["--address", address, *arguments])


async def test_image_commands(address: str, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Import, list and remove; JSON for machines."""
    path = ArchiveFiles(name="example.org/x:1").save(tmp_path / "a.tar")

    imported = await invoke(address, "image", "import", "--all-platforms", "--no-unpack", path)
    listed = await invoke(address, "image", "ls", "--json")
    ids = await invoke(address, "image", "ls", "-q", "--no-trunc")
    removed = await invoke(address, "image", "rm", "example.org/x:1")

    assert imported.exit_code == 0, imported.output
    assert imported.stdout == "imported example.org/x:1\n"
    [image] = json.loads(listed.stdout)
    assert image["name"] == "example.org/x:1"
    assert ids.stdout == f"{image['id']}\n"
    assert removed.stdout == f"Untagged: example.org/x:1\nDeleted: {image['id']}\n"
    assert not daemon.images


async def test_plugins(address: str, daemon: FakeDaemon) -> None:
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


async def test_version(address: str) -> None:
    """Ours and the daemon's."""
    shown = await invoke(address, "version", "--json")
    assert json.loads(shown.stdout)["daemon"]["version"] == "1.2.3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image", "ls"], "windlass: daemon at /nonexistent/d.sock is not running: there is no such socket"),
        (["run", "x", "--rm"], "windlass: daemon at /nonexistent/d.sock is not running"),
        (["exec", "x", "true"], "windlass: daemon at /nonexistent/d.sock is not running"),
        (["image", "import", "--platform", "x", "a"], "windlass: platform 'x' is not of the form"),
        (["run", "--memory", "lots", "x"], "windlass: size 'lots' is not a number"),
        (["run", "--pids-limit", "-2", "x"], "windlass: daemon at"),
    ],
)
def test_a_failure_is_one_line(capfd: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """Exit code 1, no traceback, and what to do about it; 125 where the exit code is a process's otherwise."""
    code = 125 if arguments[0] in ("run", "exec") else 1
    assert main(["--address", "/nonexistent/d.sock", *arguments]) == code
    shown = capfd.readouterr().err
    assert shown.startswith(message)
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "--rm", "-d", "x"], 125),
        (["run"], 125),
        (["run", "--frobnicate", "x"], 125),
        (["exec", "x"], 125),
        (["exec", "-u", "0x0", "x", "true"], 125),
        (["kill", "-s", "SIGNOPE", "x"], 2),
        (["kill", "-s", "9" * 5000, "x"], 2),
        (["frobnicate"], 2),
        (["image", "import"], 2),
    ],
)
def test_wrong_usage(capfd: pytest.CaptureFixture[str], arguments: list[str], code: int) -> None:
    """Exit code 2, as everywhere; 125 where the exit code is a process's otherwise, as with docker."""
    assert main(["--address", "/nonexistent/d.sock", *arguments]) == code
    assert capfd.readouterr().err


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('unable to start container process: exec: "nope": executable file not found in $PATH', 127),
        ('unable to start container process: exec: "/nope": stat /nope: no such file or directory', 127),
        ('unable to start container process: exec: "/etc/passwd": permission denied', 126),
        ('unable to start container process: exec: "/etc": is a directory', 126),
        ("executable file `nope` not found in $PATH: No such file or directory", 127),
        ("open executable: Permission denied", 126),
        ('error mounting "/none" to rootfs at "/x": stat /none: no such file or directory', 125),
        ("blob sha256:00 not found", 125),
    ],
)
def test_exit_code_for_an_error(message: str, code: int) -> None:
    """What runc and crun say of a command that they cannot execute; all else is 125."""
    assert exit_code(message) == code


def groups(
    command: click.Group, path: tuple[str, ...] = ("windlass",)
) -> Iterator[tuple[tuple[str, ...], click.Group]]:
    yield path, command
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if isinstance(found, click.Group):
            yield from groups(found, (*path, name))


@pytest.mark.parametrize("path", [path[1:] for path, _ in groups(windlass)])
def test_help_lists_each_command_once_with_a_whole_sentence(path: tuple[str, ...]) -> None:
    """Nothing is doubled, and nothing is cut by dots."""
    shown = CliRunner().invoke(windlass, [*path, "--help"]).output
    listed = shown.partition("Commands:\n")[2]
    names = [line.split()[0] for line in listed.splitlines() if line[:3].strip() and line.startswith("  ")]

    assert names and len(names) == len(set(names))
    assert "..." not in listed and "…" not in listed
    assert listed.count(".\n") >= len(names)


@pytest.mark.parametrize("form", ["d.sock", "./d.sock", "unix:d.sock", "unix://d.sock", "{directory}/d.sock"])
async def test_sockets_may_be_named_from_here(address: str, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """A path without a slash in front is one of the working directory, as for every other tool."""
    directory, _, name = address.removeprefix("unix:").rpartition("/")
    monkeypatch.chdir(directory)

    shown = await invoke(form.format(directory=directory).replace("d.sock", name), "version")

    assert shown.exit_code == 0, shown.exception


def test_a_host_and_port_is_no_path() -> None:
    """What gRPC connects to otherwise stays as it is."""
    for address in ("localhost:1234", "ipv4:127.0.0.1:80", "dns:///x", "[::1]:80"):
        assert target(address) == address
    assert target("a/b:c/d.sock") == f"unix:{os.getcwd()}/a/b:c/d.sock"


def test_config_is_the_kernels(capfd: pytest.CaptureFixture[str]) -> None:
    """`windlass config` and `windlassd config` are the same commands."""
    assert main(["config", "default"]) == 0
    assert "version = " in capfd.readouterr().out
    assert main(["config", "check", "/nonexistent.toml"]) == 1
    assert "nonexistent.toml does not exist" in capfd.readouterr().out


def test_help_imports_nothing_that_costs() -> None:
    """What only some commands need is loaded by them: grpc, protobuf and rich take longer than everything else."""
    script = (
        "import sys; from windlass_client.cli import main; main(['--help']);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'grpc', 'google', 'rich', 'zstandard'}))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


async def test_ps_imports_nothing_that_creation_needs(address: str, daemon: FakeDaemon) -> None:
    """It is typed all day: tables of rich, the OCI spec, images, CNI and archives are for other commands."""
    unwanted = {"rich", "yaml", "zstandard", "ctypes", "shutil", "secrets", "tempfile"} | {
        f"windlass_{name}" for name in ("images", "local", "oci", "cni", "registry", "remote", "storage", "linux")
    }
    script = (
        "import sys; from windlass_client.cli import main; print(main(sys.argv[1:]));"
        f"print(sorted({{name.partition('.')[0] for name in sys.modules}} & {unwanted}))"
    )
    daemon.containers = [Container(id="box", image="example.org/x:1")]
    command = [sys.executable, "-c", script, "--address", address, "ps"]
    shown = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    head, box, *last = shown.stdout.splitlines()
    assert head.startswith("CONTAINER ID") and box.startswith("box ")
    assert last == ["0", "[]"]


def test_run_imports_no_networks_by_name_and_no_devices() -> None:
    """CNI, devices, filling of volumes and pulling are imported by the containers that need them."""
    script = (
        "import sys; from windlass_client.commands import run; from windlass_client.lifecycle import creation, removal;"
        "from windlass_client.networks import cleanup, plan;"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'windlass_cni', 'windlass_storage'}));"
        "print(sorted(sys.modules.keys() & {'windlass_oci.cdi', 'windlass_client.pulling'}))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == ["[]", "[]"]


def run_program(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run `windlass` as its installation does."""
    script = "import sys; from windlass_client.program import main; sys.exit(main())"
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


def test_the_program_ends_with_all_that_it_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """It does not take Python apart at its end, so it has to write what is buffered."""
    shown = run_program("config", "default")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert main(["config", "default"]) == 0
    assert shown.stdout == capfd.readouterr().out


def test_the_program_fails_with_one_line() -> None:
    """Its exit code is the command line's, also when what it prints cannot be written."""
    missing = run_program("--address", "/nonexistent.sock", "ps")
    assert missing.returncode == 1
    assert missing.stderr.startswith("windlass: daemon at /nonexistent.sock is not running")
    assert missing.stderr.count("\n") == 1
    with open("/dev/full", "wb") as full:
        unwritten = run_program("--help", stdout=full.fileno())
    assert unwritten.returncode == 1
    assert unwritten.stderr == "windlass: system: No space left on device\n"


def test_names_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """A name comes from an image, and a terminal obeys what it is shown."""
    output.rows([{"name": "a\x1b[2Jb\nc"}], ("name",), False)
    assert capsys.readouterr().out == "NAME\na?[2Jb?c\n"
