"""`config default|check|dump|migrate`: what operators see of the configuration."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from windlass import configcommands, durations
from windlass.config import WINDLASS, Flags
from windlass.discovery import Found
from windlass.plugin import Plugin, PluginType
from windlass.settings import TopLevel
from windlass.validate import fields

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
