"""`config default|check|dump|migrate`: what operators see of the configuration."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from windlass.config import commands as configcommands
from windlass.config import durations
from windlass.config.loading import WINDLASS, Flags
from windlass.config.settings import TopLevel
from windlass.config.validate import fields
from windlass.discovery import Found
from windlass.plugin import Plugin, PluginType
from windlass.process.cli import main

KIND: PluginType[object] = PluginType("io.example.v1")


def test_the_default_is_a_file_that_is_valid_and_explained() -> None:
    """Every field that Windlass uses is there, with its comment."""
    plugin = Plugin(KIND, "x", lambda _: object(), config=TopLevel)

    text = configcommands.default_text(WINDLASS, [Found(plugin.uri, "example 1.0", plugin)])

    values = tomllib.loads(text)
    assert values["version"] == 4
    assert values["imports"] == ["/etc/windlass/conf.d/*.toml"]
    assert values["plugins"]["io.example.v1.x"]["oom_score"] == 0
    assert "# (example 1.0)" in text
    assert "# Directory for what must survive a reboot.\nroot = " in text
    assert set(values) >= set(fields(TopLevel)) - {"grpc", "ttrpc", "metrics", "plugin_dir", "proxy_plugins"}


def test_check_reports_everything_and_says_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors make it 1, notes do not; severity and line are in front."""
    file = tmp_path / "config.toml"
    file.write_text('version = 4\nplugin_dir = "/x"\nrot = 1\n')
    assert configcommands.run(["check", str(file)]) == 1
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith(f'{file}:3: error: unknown key "rot"; did you mean "root"?')
    )

    file.write_text('version = 4\nplugin_dir = "/x"\n[plugins."io.containerd.none.v1.none"]\n')
    assert configcommands.run(["check"], file) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{file}:2: warning: ")
    assert out[1].startswith(f"{file}:3: note: ")


def test_check_reports_every_problem_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One mistake on the top level hides none of the others, there, in sections and in plugins' blocks."""
    file = tmp_path / "config.toml"
    file.write_text(
        """version = 4
rot = 1
oom_score = "low"
state = 4
required_plugins = ["nodot"]
[debug]
level = "loud"
format = 3
[timeouts]
x = "soon"
y = 5
[proxy_plugins.p]
type = "snapshot"
[plugins.x]
y = 1
[plugins."io.containerd.snapshotter.v1.overlayfs"]
root_pat = "/x"
mount_options = 7
"""
    )
    assert configcommands.run(["check", str(file)]) == 1
    lines = [line.split(": ", 2)[0].rpartition(":")[2] for line in capsys.readouterr().out.splitlines()]
    assert [int(line) for line in lines] == [2, 3, 4, 5, 7, 8, 10, 11, 12, 14, 17, 18]


def test_migrating_what_is_of_the_newest_version_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the byte: neither the file that `config default` prints, nor one with its owner's own blanks and order."""
    configcommands.run(["default"])
    default = capsys.readouterr().out
    own = '# mine\n\nversion=4 # four\n[debug]\n  level  = "info"\n\n\n[timeouts]\n\n# the end'
    for text in (default, own):
        file = tmp_path / "config.toml"
        file.write_text(text)
        assert configcommands.run(["migrate", str(file)]) == 0
        assert capsys.readouterr().out == text


@pytest.mark.parametrize("version", ["9", '"four"'])
def test_check_goes_on_after_an_unknown_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    """The rest is checked as of the newest version."""
    file = tmp_path / "config.toml"
    file.write_text(f"version = {version}\nrot = 1\n")
    assert configcommands.run(["check", str(file)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in out] == [f"{file}:1", f"{file}:2"]


def test_dump_says_where_each_value_is_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file and line, a flag, or the default; the whole is valid TOML and loads again."""
    file = tmp_path / "config.toml"
    file.write_text(f'version = 3\noom_score = 5\nimports = ["b.toml"]\n[grpc]\naddress = "{tmp_path}/g"\n')
    (tmp_path / "b.toml").write_text('version = 4\n[timeouts]\nx = "1s"\n')

    assert configcommands.run(["dump"], file, flags=Flags(root="/r")) == 0

    out = capsys.readouterr().out
    assert tomllib.loads(out)["oom_score"] == 5
    assert f"oom_score = 5  # {file}:2" in out
    assert 'root = "/r"  # --root' in out
    assert 'state = "/run/windlass"  # default' in out
    assert f'x = "1s"  # {tmp_path}/b.toml:3' in out


def test_dump_of_a_missing_file_shows_the_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As containerd's does."""
    assert configcommands.run(["dump"], tmp_path / "none.toml") == 0
    assert 'root = "/var/lib/windlass"  # default' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1m30s", 90),
        ("100ms", 0.1),
        ("1.5h", 5400),
        ("0", 0),
        ("0s", 0),
        ("-2s", -2),
        (".5s", 0.5),
        ("3µs", 3e-6),
    ],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    """They are read as Go reads them, and what is written reads the same."""
    assert durations.seconds(text) == pytest.approx(seconds)
    assert durations.seconds(durations.write(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "5 s", "s", "5x", "1s2", "١s", "1" * 200 + "s", "99999999999h", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Bare numbers too: nobody knows the unit."""
    with pytest.raises(ValueError, match=r"duration|longer"):
        durations.seconds(text)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_the_actions(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also when the option comes first after ``config``."""
    with pytest.raises(SystemExit) as caught:
        main(["config", option])
    assert caught.value.code == 0
    assert "migrate" in capsys.readouterr().out
