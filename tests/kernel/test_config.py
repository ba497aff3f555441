"""The configuration file: what it may say, how files are merged and migrated, and how mistakes are reported."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from windlass.config import commands as configcommands
from windlass.config import loading as config
from windlass.config.loading import CONTAINERD, WINDLASS, Flags
from windlass.config.toml import parse
from windlass.config.validate import NOTE, WARNING, ConfigError
from windlass.contracts import properties
from windlass.discovery import Found
from windlass.errors import StartError
from windlass.plugin import Plugin, PluginType

SNAPSHOTTER: PluginType[object] = PluginType("io.containerd.snapshotter.v1")
OVERLAY = "io.containerd.snapshotter.v1.overlayfs"
GRPC = "io.containerd.server.v1.grpc"


@dataclass(frozen=True)
class Inner:
    """A nested table."""

    enable: bool = False
    ports: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class OverlayConfig:
    """Snapshots on overlayfs."""

    #: Where the snapshots are kept.
    root_path: str = ""
    mount_options: tuple[str, ...] = ()
    """Options that are added to every mount."""
    ratio: float = 0.5
    limit: int | None = None
    place: Path = Path("/x")
    mode: Literal["fast", "safe"] = "safe"
    inner: Inner = Inner()
    labels: dict[str, str] = field(default_factory=dict)
    rows: list[Inner] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.ratio > 1:
            raise ValueError('"ratio" is more than 1')


def found(*plugins: Plugin[Any]) -> list[Found]:
    return [Found(plugin.uri, "test 1.0", plugin) for plugin in plugins]


PLUGINS = found(Plugin(SNAPSHOTTER, "overlayfs", lambda _: object(), config=OverlayConfig))


class Etc:
    """A directory of configuration files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> Path:
        (self.path / name).write_text(text)
        return self.path / name

    def load(self, text: str, plugins: list[Found] = PLUGINS, **flags: str) -> config.Config:
        return config.read(self.write("config.toml", text), flags=Flags(**flags)).settle(plugins)

    def errors(self, text: str, plugins: list[Found] = PLUGINS, **flags: str) -> list[str]:
        with pytest.raises(ConfigError) as error:
            self.load(text, plugins, **flags)
        return [line.removeprefix(f"{self.path}/") for line in str(error.value).splitlines()]

    def overlay(self, text: str) -> OverlayConfig:
        return self.load(text).plugin_config(OVERLAY, OverlayConfig)


@pytest.fixture
def etc(tmp_path: Path) -> Etc:
    return Etc(tmp_path)


# Defaults and flags


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    """A daemon needs no file."""
    paths = dataclasses.replace(WINDLASS, config=str(tmp_path / "none.toml"))

    settled = config.read(None, paths).settle(PLUGINS)

    assert str(settled.root) == "/var/lib/windlass"
    assert str(settled.state) == "/run/windlass"
    assert settled.properties[properties.GRPC_ADDRESS] == "/run/windlass/windlass.sock"
    assert settled.properties[properties.TTRPC_ADDRESS] == "/run/windlass/windlass.sock.ttrpc"
    assert settled.timeouts["io.containerd.timeout.shim.load"] == 5
    assert settled.plugin_config(OVERLAY, OverlayConfig) == OverlayConfig()
    assert len(settled.top.stream_processors) == 2


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    """With --config a missing file is an error."""
    with pytest.raises(ConfigError, match=r"^--config: /.*none.toml does not exist"):
        config.read(tmp_path / "none.toml")


def test_containerds_paths(tmp_path: Path) -> None:
    """One flag takes containerd's own defaults."""
    paths = dataclasses.replace(CONTAINERD, config=str(tmp_path / "none.toml"))

    settled = config.read(None, paths).settle([])

    assert settled.grpc_address == "/run/containerd/containerd.sock"
    assert str(settled.root) == "/var/lib/containerd"


def test_flags_win_and_are_made_absolute(etc: Etc, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line says is over what files say, relative to where the daemon is started."""
    monkeypatch.chdir(etc.path)

    settled = etc.load('version = 4\nroot = "/r"\n[debug]\nlevel = "info"\n', root="r", address="w.sock", level="trace")

    assert settled.root == etc.path / "r"
    assert settled.grpc_address == f"{etc.path}/w.sock"
    assert settled.ttrpc_address == f"{etc.path}/w.sock.ttrpc"
    assert settled.top.debug.level == "trace"
    assert str(settled.mark("root")) == "--root"


def test_a_configured_ttrpc_socket_stays(etc: Etc) -> None:
    """--address moves the ttrpc socket only when that has no address of its own."""
    text = 'version = 4\n[plugins."io.containerd.server.v1.ttrpc"]\naddress = "/t"\n'

    assert etc.load(text, address="/w.sock").ttrpc_address == "/t"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_derived_ttrpc_socket_follows_the_flag(etc: Etc, version: int) -> None:
    """As of containerd 1.x: a second daemon on a file of the first one's does not take its ttrpc socket."""
    text = f'version = {version}\n[grpc]\naddress = "/g.sock"\nuid = 7\n'
    settled = etc.load(text, address="/w.sock")
    assert (settled.grpc_address, settled.ttrpc_address) == ("/w.sock", "/w.sock.ttrpc")
    assert etc.load(text).ttrpc_address == "/g.sock.ttrpc"
    own = etc.load(f'{text}[ttrpc]\naddress = "/t"\n', address="/w.sock")
    assert own.ttrpc_address == "/t"


# Mistakes: one line each, with file, line and remedy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 4\nroot = \n", "config.toml:2: not TOML: Invalid value"),
        ("version = 4\nrot = 'x'\n", 'config.toml:2: unknown key "rot"; did you mean "root"?'),
        ("version = 4\noom_score = true\n", 'config.toml:2: "oom_score" must be an integer, not true'),
        ("version = 4\noom_score = 1001\n", 'config.toml:2: "oom_score" must be between -1000 and 1000'),
        ("version = 4\nimports = 'x'\n", 'config.toml:2: "imports" must be a list, not the string "x"'),
        ("version = 5\n", "config.toml:1: version 5 is unknown; Windlass knows versions up to 4"),
        ("version = '4'\n", 'config.toml:1: "version" must be an integer, not the string "4"'),
        ("version = 4\n[timeouts]\nx = '5'\n", 'config.toml:3: timeout "x": "5" is not a valid duration: write'),
        ("version = 4\n[debug]\nlevel = 'inf'\n", 'config.toml:3: "level" in [debug] must be one of'),
        ("version = 4\nplugins = 3\n", 'config.toml:2: "plugins" must be a table, not 3'),
        ("version = 4\nplugins = { 'a.b' = 3 }\n", 'config.toml:2: "a.b" in [plugins] must be a table, not 3'),
        (
            "version = 4\n[stream_processors.x]\naccepts = ['a']\nreturns = 'b'\n",
            'config.toml:2: stream processor "x" has no "path"; name its program',
        ),
        (
            "version = 4\n[proxy_plugins.x]\naddress = '/x'\ntype = 'snapshotr'\n",
            'config.toml:4: "type" in [proxy_plugins.x] must be one of "snapshot", "snapshotter", "content", "sandbox"',
        ),
        (
            "version = 4\n[proxy_plugins.x]\ntype = 'snapshot'\n",
            'config.toml:2: "address" in [proxy_plugins.x] is miss',
        ),
        (
            "version = 2\ndisabled_plugins = ['cri']\n",
            'config.toml:2: "cri" in disabled_plugins is not a URI; did you mean',
        ),
        ("version = 4\n\nrequired_plugins = ['a.b']\n", "config.toml:3: required plugin a.b is not installed"),
        ("version = 4\nroot = '/x'\nstate = '/x'\n", "config.toml:3: root and state are both /x; give each"),
        ("version = 4\nimports = ['none.toml']\n", "config.toml:2: "),
        ('version = 4\ntemp = "/t\\u0000"\n', 'config.toml:2: "temp" must not contain a NUL character'),
    ],
)
def test_a_mistake_is_one_line_with_its_place(etc: Etc, text: str, message: str) -> None:
    """Syntax, keys, types, versions, durations, plugins' names."""
    lines = etc.errors(text)

    assert len(lines) == 1
    assert lines[0].startswith(message)


BLOCK = f'version = 4\n[plugins."{OVERLAY}"]\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('root_pth = "/x"', 'unknown key "root_pth" in [plugins."'),
        ("root_path = 1", f'"root_path" in [plugins.{OVERLAY}] must be a string, not 1'),
        ("limit = true", f'"limit" in [plugins.{OVERLAY}] must be an integer, not true'),
        ("limit = 1.5", f'"limit" in [plugins.{OVERLAY}] must be an integer, not the number 1.5'),
        ('ratio = "x"', f'"ratio" in [plugins.{OVERLAY}] must be a number, not the string "x"'),
        ("ratio = 2", f'[plugins.{OVERLAY}] "ratio" is more than 1'),
        ('mount_options = "x"', f'"mount_options" in [plugins.{OVERLAY}] must be a list'),
        ('mount_options = ["a", 1]', f'"mount_options[1]" in [plugins.{OVERLAY}] must be a string, not 1'),
        (
            'mode = "saf"',
            f'"mode" in [plugins.{OVERLAY}] must be one of "fast", "safe", not the string "saf"; did you mean',
        ),
        ("inner = 1", f'"inner" in [plugins.{OVERLAY}] must be a table, not 1'),
        ("inner.enabl = true", 'unknown key "enabl" in [plugins."'),
        ("inner.ports = [true]", f'"ports[0]" in [plugins.{OVERLAY}.inner] must be an integer, not true'),
        ("labels.a = 1", f'"a" in [plugins.{OVERLAY}.labels] must be a string, not 1'),
        ("rows = [{ ports = 1 }]", f'"ports" in [plugins.{OVERLAY}.rows[0]] must be a list'),
    ],
)
def test_a_mistake_in_a_plugins_block_is_one_line(etc: Etc, line: str, message: str) -> None:
    """Blocks are checked against the plugin's class, nested tables and lists too; a bool is no int."""
    lines = etc.errors(f"{BLOCK}{line}\n")

    assert len(lines) == 1
    expected = 2 if "more than 1" in message else 3
    assert lines[0].startswith(f"config.toml:{expected}: {message}")


def test_all_mistakes_are_reported_at_once(etc: Etc) -> None:
    """One run shows everything that has to be repaired."""
    lines = etc.errors("version = 4\nrot = 1\noom_score = 'x'\n[debug]\nlevl = 'info'\n[timeouts]\nx = 1\n")

    assert [line.split(":")[1] for line in lines] == ["2", "3", "5", "7"]


def test_what_is_not_text_is_refused(etc: Etc) -> None:
    """Bytes that are no UTF-8, and files that are far too long."""
    (etc.path / "bytes.toml").write_bytes(b"version = 4\nroot = '\xff'\n")
    with pytest.raises(ConfigError, match=r"bytes.toml:2: not UTF-8"):
        config.read(etc.path / "bytes.toml")
    with (etc.path / "long.toml").open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(ConfigError, match=r"is longer than 4 MiB"):
        config.read(etc.path / "long.toml")


def test_a_socket_path_that_is_too_long_is_told_with_its_length(etc: Etc) -> None:
    """The ttrpc socket's name is longer by six bytes."""
    lines = etc.errors("version = 4\n", address="/" + "a" * 100)

    assert lines == [
        f"--address: socket path /{'a' * 100}.ttrpc has 107 bytes and 104 is the most; choose a shorter address"
    ]


@pytest.mark.parametrize("key", ["root", "state", "address"])
def test_an_empty_flag_is_refused(etc: Etc, key: str) -> None:
    """An unset variable in somebody's script must not become the current directory."""
    lines = etc.errors("version = 4\n", PLUGINS, **{key: ""})

    assert all(line.startswith(f"--{key}: ") and "empty" in line for line in lines)


# Warnings and notes


def test_a_key_of_containerds_is_a_warning(etc: Etc) -> None:
    """Files that work with containerd go on working."""
    settled = etc.load(BLOCK + "slow_chown = true\n")

    assert [(problem.severity, problem.mark.line) for problem in settled.problems] == [(WARNING, 3)]
    assert "has no effect" in settled.problems[0].message


def test_a_block_for_a_plugin_that_is_not_installed_is_a_note(etc: Etc) -> None:
    """Whatever it says; a misspelt one is a warning with a suggestion."""
    text = (
        'version = 4\n[plugins."io.containerd.grpc.v1.cri"]\nanything = 1\n'
        '[plugins."io.containerd.snapshotter.v1.overlay"]\n'
    )

    settled = etc.load(text)

    assert [problem.severity for problem in settled.problems] == [NOTE, WARNING]
    assert f'did you mean "{OVERLAY}"?' in settled.problems[1].message


def test_a_plugin_that_cannot_be_imported_keeps_its_block(etc: Etc) -> None:
    """Its import is the problem, not the configuration."""
    broken = [Found(OVERLAY, "test 1.0", error=ImportError("no"))]

    assert etc.load(BLOCK + "anything = 1\n", broken).problems == ()


# Imports and merging


def test_later_files_override(etc: Etc) -> None:
    """Scalars and blocks key by key, lists of plugins added up, lists in blocks replaced, entries replaced whole."""
    etc.write(
        "b.toml",
        f'version = 4\nroot = "/b"\noom_score = 0\ndisabled_plugins = ["y.y", "z.z"]\n[timeouts]\n"b" = "2s"\n'
        f'[plugins."{OVERLAY}"]\nmount_options = ["b"]\ninner.enable = false\n'
        f'[proxy_plugins.p]\ntype = "diff"\naddress = "/b"\n',
    )

    settled = etc.load(
        f'version = 4\nimports = ["b.toml"]\nroot = "/a"\noom_score = 5\ndisabled_plugins = ["x.x", "y.y"]\n'
        f'[timeouts]\na = "1s"\nb = "1s"\n[plugins."{OVERLAY}"]\nroot_path = "/o"\n'
        f'mount_options = ["a"]\ninner.enable = true\n'
        f'[proxy_plugins.p]\ntype = "diff"\naddress = "/a"\nplatform = "linux/amd64"\n'
    )

    overlay = settled.plugin_config(OVERLAY, OverlayConfig)
    assert str(settled.root) == "/b"
    assert settled.top.oom_score == 5  # a zero cannot override
    assert settled.top.disabled_plugins == ["x.x", "y.y", "z.z"]
    assert (settled.timeouts["a"], settled.timeouts["b"]) == (1, 2)
    assert (overlay.root_path, overlay.mount_options, overlay.inner.enable) == ("/o", ("b",), False)
    assert settled.top.proxy_plugins["p"].platform == ""
    assert str(settled.mark("root")) == f"{etc.path}/b.toml:2"


def test_imports_are_relative_globbed_and_followed_once(etc: Etc) -> None:
    """Patterns are sorted and may match nothing, or the file that they are in."""
    (etc.path / "conf.d").mkdir()
    etc.write("conf.d/2.toml", 'version = 4\nroot = "/2"\nimports = ["../last.toml"]\n')
    etc.write("conf.d/1.toml", 'version = 4\nroot = "/1"\nimports = ["*.toml", "../last.toml"]\n')
    etc.write("last.toml", 'version = 4\nstate = "/s"\n')

    settled = etc.load('version = 4\nimports = ["conf.d/*.toml", "none*.toml"]\n')

    assert (str(settled.root), str(settled.state)) == ("/2", "/s")


def test_an_import_may_have_another_version(etc: Etc) -> None:
    """Each file is migrated by itself; none that is newer is taken."""
    etc.write("old.toml", 'version = 2\n[grpc]\naddress = "/old.sock"\n')
    etc.write("new.toml", "version = 7\n")

    assert etc.load('version = 4\nimports = ["old.toml"]\n').grpc_address == "/old.sock"
    assert etc.errors('version = 4\nimports = ["new.toml"]\n')[0].startswith("new.toml:1: version 7 is unknown")


def test_a_loop_of_imports_is_an_error(etc: Etc) -> None:
    """At the line that closes it, whether a file imports itself or others do."""
    etc.write("b.toml", 'version = 4\n\nimports = ["config.toml"]\n')

    assert etc.errors('version = 4\nimports = ["config.toml"]\n') == [
        f"config.toml:2: imports go round: {etc.path}/config.toml -> {etc.path}/config.toml"
    ]
    assert etc.errors('version = 4\nimports = ["b.toml", "b.toml"]\n') == [
        f"b.toml:3: imports go round: {etc.path}/config.toml -> {etc.path}/b.toml -> {etc.path}/config.toml"
    ]


# Migration


def test_names_of_before_version_2_become_uris(etc: Etc) -> None:
    """Also without a version; names with a dot are URIs already."""
    plugins = found(Plugin(SNAPSHOTTER, "overlayfs", lambda _: object(), config=OverlayConfig))
    text = 'disabled_plugins = ["cri", "diff-service", "x.y"]\n[plugins.overlayfs]\nroot_path = "/o"\n'

    settled = etc.load(text, plugins)

    assert settled.top.disabled_plugins == ["io.containerd.grpc.v1.cri", "io.containerd.service.v1.diff-service", "x.y"]
    assert settled.plugin_config(OVERLAY, OverlayConfig).root_path == "/o"
    assert config.read(etc.path / "config.toml").disabled == set(settled.top.disabled_plugins)


def test_sections_of_version_3_become_blocks(etc: Etc) -> None:
    """Zeros are left out, what a block has already stays, and the ttrpc socket follows with its owner."""
    text = (
        f'version = 3\n[grpc]\naddress = "/g"\nuid = 7\ngid = 0\ntcp_address = "localhost:1"\n'
        f"max_recv_message_size = 9\n"
        f'[ttrpc]\naddress = ""\n[metrics]\naddress = "m:1"\ngrpc_histogram = true\n'
        f'[debug]\naddress = "/d"\nlevel = "warn"\n'
        f'[plugins."{GRPC}"]\nuid = 8\n'
    )

    settled = etc.load(text)

    plugins = settled.table["plugins"]
    assert plugins[GRPC] == {"address": "/g", "uid": 8, "max_recv_message_size": 9}
    assert plugins["io.containerd.server.v1.grpc-tcp"] == {"address": "localhost:1", "max_recv_message_size": 9}
    assert plugins["io.containerd.server.v1.ttrpc"] == {"address": "/g.ttrpc", "uid": 8}
    assert plugins["io.containerd.server.v1.metrics"] == {"address": "m:1"}
    assert plugins["io.containerd.metrics.v1.grpc-prometheus"] == {"grpc_histogram": True}
    assert plugins["io.containerd.server.v1.debug"] == {"address": "/d"}
    assert settled.top.debug.level == "warn"


def move_opt(version: int, plugins: dict[str, Any]) -> None:
    if version == 2 and (old := plugins.pop("x.old", None)):
        plugins[OVERLAY] = {"root_path": old.pop("path")}


def test_a_plugin_migrates_its_block_and_values_keep_their_lines(etc: Etc) -> None:
    """Its step runs between the kernel's; the line of a moved value is still the one it was written at."""
    plugins = found(Plugin(SNAPSHOTTER, "overlayfs", lambda _: object(), config=OverlayConfig, migrate=move_opt))
    text = 'version = 2\n[plugins."x.old"]\n# where\npath = "/o"\n'

    settled = etc.load(text, plugins)

    assert settled.plugin_config(OVERLAY, OverlayConfig).root_path == "/o"
    assert settled.mark("plugins", OVERLAY, "root_path").line == 4
    migrated = configcommands.migrated_text(parse(text, "f"), [entry.plugin for entry in plugins if entry.plugin])
    assert tomllib.loads(migrated) == {"version": 4, "plugins": {OVERLAY: {"root_path": "/o"}}}
    assert "# where" in migrated


@dataclass(frozen=True)
class Defective:
    """A class whose author has made a mistake."""

    path: str = ""

    def __post_init__(self) -> None:
        raise KeyError("x")


def test_a_defect_of_a_configuration_class_names_the_plugin_and_hides_nothing(etc: Etc) -> None:
    """One line among the other problems, with the remedy."""
    plugins = found(Plugin(SNAPSHOTTER, "overlayfs", lambda _: object(), config=Defective))
    text = f'version = 4\nrequired_plugins = ["x.gone.y"]\n[plugins."{OVERLAY}"]\npath = "/x"\n'
    told = etc.errors(text, plugins)
    assert len(told) == 2
    assert told[1].endswith(
        f":3: plugin {OVERLAY} cannot read its settings: KeyError: 'x'; mend it, or name it in disabled_plugins"
    )


def test_a_defect_of_a_migration_names_the_plugin(etc: Etc) -> None:
    """And the file, and how to do without the migration."""

    def migrate(version: int, plugins: dict[str, Any]) -> None:
        plugins["gone"]["x"] = 1

    plugins = found(Plugin(SNAPSHOTTER, "overlayfs", lambda _: object(), migrate=migrate))
    with pytest.raises(
        StartError, match=f"config.toml: plugin {OVERLAY} cannot migrate .* version 3: KeyError: 'gone'"
    ):
        etc.load("version = 3\n", plugins)


def test_a_migrated_file_keeps_every_comment() -> None:
    """Those of settings that are gone come last."""
    text = (
        '# head\nversion = 2 # two\n# about grpc\n[grpc]\n# about address\naddress = "/g" # here\n'
        "# about uid\nuid = 0\n"
        f'# about overlay\n[plugins."{OVERLAY}"]\nroot_path = "/o"\n# tail\n'
    )

    migrated = configcommands.migrated_text(parse(text, "f"), [])

    assert tomllib.loads(migrated) == {
        "version": 4,
        "plugins": {
            OVERLAY: {"root_path": "/o"},
            GRPC: {"address": "/g"},
            f"{GRPC[:-4]}ttrpc": {"address": "/g.ttrpc"},
        },
    }
    for comment in ("head", "two", "about grpc", "about address", "here", "about uid", "about overlay", "tail"):
        assert f"# {comment}" in migrated
