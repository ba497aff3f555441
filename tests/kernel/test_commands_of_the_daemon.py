"""`windlassd`'s command line, and its small commands: `oci-hook` and `publish`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from windlass import __version__
from windlass.errors import StartError
from windlass.process import cli, ocihook, publish


def hook(bundle: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `windlassd oci-hook` in a process of its own, which becomes the program."""
    state = json.dumps({"id": "box", "bundle": str(bundle), "annotations": {"k": "v w"}})
    code = "import sys; from windlass.process.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, "oci-hook", *arguments],
        input=state,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with the least that a hook needs."""
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_hook_has_the_values_in_its_environment_too(bundle: Path) -> None:
    """And without a shell between: what a label's author wrote is one argument, whatever is in it."""
    done = hook(bundle, "sh", "-c", 'echo "$ID" "$1" $#', "sh", '{{annotation "k"}}', ID="<{{id}}>")
    assert (done.stdout, done.stderr) == ("<box> v w 1\n", "")


def test_a_hook_says_by_its_status_how_it_went(bundle: Path) -> None:
    """The OCI runtime gets the program's own."""
    assert hook(bundle, "sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["no-such-program"], "hook no-such-program is not there or not executable"),
        ([], "oci-hook needs the program to execute and its arguments"),
        (["true", "{{pod}}"], "oci-hook knows no {{pod}}; it knows id, bundle, rootfs, pid, status, annotation"),
        (["true", "{{annotation}}"], "oci-hook knows no {{annotation}}; "),
        (["true", '{{id "x"}}'], 'oci-hook knows no {{id "x"}}; '),
    ],
)
def test_a_hook_that_cannot_be_is_one_line(bundle: Path, arguments: list[str], reason: str) -> None:
    """The OCI runtime shows it to the client."""
    done = hook(bundle, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"windlassd: {reason}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, r"cannot read .*/config\.json: No such file or directory"),
        ("[]", r"config\.json is not a JSON object"),
        ("{", r"config\.json is not JSON"),
        (" " * (ocihook.LIMIT + 1), r"config\.json is longer than 20 MiB"),
    ],
)
def test_a_bundle_that_is_none_is_named(tmp_path: Path, config: str | None, reason: str) -> None:
    """Its file, not a stack trace."""
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(StartError, match=reason):
        ocihook.read_values(io.BytesIO(json.dumps({"bundle": str(tmp_path)}).encode()))


@pytest.mark.parametrize(
    ("spec", "rootfs"),
    [({}, "rootfs"), ({"root": {"path": "tree"}}, "tree"), ({"root": {"path": "/r"}}, "/r"), ({"root": 7}, "rootfs")],
)
def test_the_rootfs_is_the_specs_below_the_bundle(tmp_path: Path, spec: dict[str, object], rootfs: str) -> None:
    """An absolute one is itself; what a state does not say is empty."""
    (tmp_path / "config.json").write_text(json.dumps(spec))
    state = {"bundle": str(tmp_path), "annotations": [7]}
    assert ocihook.read_values(io.BytesIO(json.dumps(state).encode())) == {
        "id": "",
        "bundle": str(tmp_path),
        "rootfs": str(tmp_path / rootfs),
        "pid": 0,
        "status": "",
        "annotation": {},
    }


def test_an_event_that_is_too_long_is_not_sent() -> None:
    """A daemon would refuse it after reading all of it."""
    pytest.importorskip("grpc", reason="publish needs grpcio")
    with pytest.raises(StartError, match="event on stdin is longer than 16 MiB"):
        publish.publish("/nowhere", "ns", "/tasks/exit", io.BytesIO(bytes(publish.LIMIT + 1)))


def test_an_event_without_a_daemon_is_an_error_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim keeps it and sends it again; the message names event and address."""
    pytest.importorskip("grpc", reason="publish needs grpcio")
    monkeypatch.setattr(publish, "DEADLINE", 0.2)
    address = str(tmp_path / "no.sock")
    with pytest.raises(StartError, match=f"^event /tasks/exit is not published to {address}: "):
        publish.publish(address, "ns", "/tasks/exit", io.BytesIO(b""))


@pytest.mark.parametrize("option", ["-v", "--version"])
def test_the_version_is_printed(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([option])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"windlassd {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--conf", "x"], "unrecognized arguments|invalid choice"),
        (["--log-level", "loud"], "invalid choice: 'loud'"),
        (["serve"], "invalid choice: 'serve'"),
        (["publish", "--topic", "/x"], "the following arguments are required: --namespace"),
        (["publish", "--namespace", "x"], "the following arguments are required: --topic"),
    ],
)
def test_what_the_command_line_cannot_mean_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Abbreviations too, which would mean something else in the next version."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert any(each in line for each in words.split("|"))


def test_each_reason_not_to_start_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the program's name, for a log that has those of others; the exit code is 1."""
    file = tmp_path / "config.toml"
    file.write_text("version = 4\nrot = 1\noom_score = 5000\n")
    assert cli.main(["--config", str(file)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[:2] for line in lines] == [["windlassd:", f"{file}:{number}:"] for number in (2, 3)]


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Install a distribution whose command `adopt` is the function `run` of a module with ``text``."""
    module = f"brought_{folder.name}".replace("-", "_")
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{module}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{cli.COMMANDS}]\nadopt = {module}:run\n")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def test_a_command_of_another_distribution_gets_what_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options too, `--state` and `--help` among them, and besides the daemon's own options, which stand before it."""
    text = (
        "def run(rest, path, paths, flags):\n    print(rest, path, paths.root, flags.root, flags.state)\n    return 3\n"
    )
    installed(tmp_path, monkeypatch, text)
    assert cli.main(["--root", "/r", "adopt", "--state", "/s", "--help"]) == 3
    assert capsys.readouterr().out == "['--state', '/s', '--help'] None /var/lib/windlass /r None\n"


def test_a_command_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel alone does not bring it."""
    monkeypatch.setattr(cli, "COMMANDS", "windlass.commands.of.nobody")
    assert cli.main(["adopt"]) == 1
    assert capsys.readouterr().err == "windlassd: adopt is not installed: pip install windlass-adopt\n"


def test_the_help_lists_commands_of_other_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where they are not installed, and without looking for them."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    assert "adopt" in capsys.readouterr().out
