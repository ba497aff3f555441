"""A configuration that cannot be used ends windlassd with one line that names file and line, and exit code 1."""

from __future__ import annotations

from pathlib import Path

import pytest
from compat.scratch_daemon import distribution, run_windlassd

LOOP = """
from windlass.plugin import Plugin, PluginType

A, B = PluginType("org.example.a"), PluginType("org.example.b")
ONE = Plugin(A, id="x", init=lambda context: object(), requires=(B,))
TWO = Plugin(B, id="y", init=lambda context: object(), requires=(A,))
"""

FAILS = """
from windlass.plugin import Plugin, PluginType

def init(context):
    raise OSError(5, "the disk is gone")

ONE = Plugin(PluginType("org.example.a"), id="x", init=init)
"""


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose name is short enough for sockets."""
    return tmp_path_factory.mktemp("d")


def refused(scratch: Path, text: str, env: dict[str, str] | None = None) -> str:
    """Return the one line with which windlassd refuses the configuration."""
    (scratch / "c.toml").write_text(text)
    paths = ["--root", f"{scratch}/root", "--state", f"{scratch}/state", "--address", f"{scratch}/w.sock"]
    code, err = run_windlassd(["--config", f"{scratch}/c.toml", "--log-level", "error", *paths], env)
    assert code == 1, err
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert not (scratch / "w.sock").exists()
    return lines[0]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("version = 4\nroot = \n", 2, "value"),
        ('version = 4\n[plugins."io.containerd.snapshotter.v1.overlayfs"]\nroot_pat = "/x"\n', 3, '"root_path"'),
        ('version = 4\nrequird_plugins = ["x.y"]\n', 2, '"required_plugins"'),
        ('version = 4\noom_score = "low"\n', 2, "must be an integer"),
        ('version = 4\n\n[plugins."io.containerd.server.v1.grpc"]\nuid = "root"\n', 4, "must be an integer"),
        ('version = "four"\n', 1, "must be an integer"),
        ("version = 9\n", 1, "version 9 is unknown"),
        ("version = -1\n", 1, "version -1 is unknown"),
        ('version = 4\nimports = ["c.toml"]\n', 2, "imports go round"),
        ('version = 4\nimports = ["d.toml"]\n', 2, "d.toml"),
        (
            'version = 4\nrequired_plugins = ["io.containerd.snapshotter.v1.overlayf"]\n',
            2,
            '"io.containerd.snapshotter',
        ),
        ("version = 4\n[timeouts]\nx = 'soon'\n", 3, "soon"),
        (f'version = 4\n[plugins."io.containerd.server.v1.ttrpc"]\naddress = "/{"x" * 120}"\n', 3, "121 bytes"),
    ],
    ids=lambda value: str(value)[-24:] if isinstance(value, str) else None,
)
def test_a_mistake_is_one_line(scratch: Path, text: str, line: int, message: str) -> None:
    """It names the file, the line, and what would be right."""
    told = refused(scratch, text)
    assert told.startswith(f"windlassd: {scratch}/c.toml:{line}: "), told
    assert message in told


def test_a_loop_over_two_files_is_named_in_full(scratch: Path) -> None:
    """The line is one of an `imports`; both files are in the loop."""
    (scratch / "d.toml").write_text('version = 4\nimports = ["c.toml"]\n')
    told = refused(scratch, 'version = 4\n\nimports = ["d.toml"]\n')
    assert f"{scratch}/c.toml -> {scratch}/d.toml -> {scratch}/c.toml" in told
    assert ".toml:" in told


def test_a_required_plugin_that_is_disabled_names_the_line(scratch: Path) -> None:
    """It cannot be both."""
    uri = "io.containerd.snapshotter.v1.native"
    told = refused(scratch, f'version = 4\ndisabled_plugins = ["{uri}"]\nrequired_plugins = ["{uri}"]\n')
    assert told.startswith(f"windlassd: {scratch}/c.toml:3: "), told
    assert uri in told
    assert "disabled" in told


def test_a_required_plugin_that_fails_names_the_line_and_the_reason(scratch: Path) -> None:
    """The plugin is installed, so only its start can tell."""
    distribution(scratch / "site", "fails", {"org.example.a.x": "fails:ONE"}, FAILS)
    env = {"PYTHONPATH": f"{scratch}/site"}
    told = refused(scratch, 'version = 4\n\nrequired_plugins = ["org.example.a.x"]\n', env)
    assert told.startswith(f"windlassd: {scratch}/c.toml:3: "), told
    assert "org.example.a.x" in told
    assert "the disk is gone" in told


def test_plugins_that_require_each_other_are_named(scratch: Path) -> None:
    """There is no line to name; the loop is."""
    entries = {"org.example.a.x": "ring:ONE", "org.example.b.y": "ring:TWO"}
    distribution(scratch / "site", "ring", entries, LOOP)
    told = refused(scratch, "version = 4\n", {"PYTHONPATH": f"{scratch}/site"})
    assert "plugins require each other: " in told
    assert "org.example.a.x -> org.example.b.y -> org.example.a.x" in told


def test_two_plugins_of_one_uri_are_named_with_their_distributions(scratch: Path) -> None:
    """The operator has to know which to uninstall."""
    uri = "io.containerd.snapshotter.v1.native"
    distribution(scratch / "site", "rival", {uri: "rival:ONE"}, FAILS)
    told = refused(scratch, "version = 4\n", {"PYTHONPATH": f"{scratch}/site"})
    assert uri in told
    assert "rival 1.0" in told
    assert "windlass-snapshot-native" in told


@pytest.mark.parametrize("where", ["root", "state", "address"])
def test_a_directory_that_cannot_be_made_is_named(scratch: Path, where: str) -> None:
    """Here a file is where a directory should be."""
    (scratch / "file").write_text("x")
    paths = {"root": f"{scratch}/root", "state": f"{scratch}/state", "address": f"{scratch}/w.sock"}
    paths[where] = f"{scratch}/file/x"
    code, err = run_windlassd(["--log-level", "error", *(f"--{key}={value}" for key, value in paths.items())])
    assert code == 1
    assert len(err.splitlines()) == 1, err
    assert f"{scratch}/file" in err


def test_a_read_only_directory_is_named(scratch: Path) -> None:
    """proc(5) lets nobody make a directory, root neither."""
    paths = ["--root", "/proc/windlass-test", "--state", f"{scratch}/state", "--address", f"{scratch}/w.sock"]
    code, err = run_windlassd(["--log-level", "error", *paths])
    assert code == 1
    assert len(err.splitlines()) == 1, err
    assert "/proc/windlass-test" in err
