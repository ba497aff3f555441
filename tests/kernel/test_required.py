"""Which plugins a configuration counts on, which servers clients need, and the plugins that it makes itself."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, EntryPoint, EntryPoints
from pathlib import Path

import pytest

from windlass.config import factories, required
from windlass.config.settings import TopLevel
from windlass.discovery import Found, name_and_version
from windlass.errors import StartError
from windlass.plugin import Plugin, PluginType, Record, SkipPlugin, State
from windlass.process import faultpoints
from windlass.process.daemon import arm_faults, check_servers
from windlass.process.owners import owners_of

A: PluginType[object] = PluginType("type.a")
SERVER = "io.containerd.server.v1"


def record(uri: str, state: str = State.OK, error: BaseException | None = None) -> Record:
    kind, _, id = uri.rpartition(".")
    return Record(uri, kind, id, state, error=error)


def check(records: list[Record], needed: list[str], configured: list[str]) -> list[str]:
    """Return the lines of what is wrong."""
    try:
        required.check(records, needed, configured, lambda *path: f"c.toml:{len(path)}")
    except StartError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (record("type.a.1"), None),
        (
            record("type.a.1", State.SKIPPED, SkipPlugin("no btrfs")),
            "required plugin type.a.1 is skipped: no btrfs: skip plugin",
        ),
        (record("type.a.1", State.FAILED, OSError("no disk")), "required plugin type.a.1 is failed: no disk"),
        (record("type.a.1", State.DISABLED), "required plugin type.a.1 is disabled: see disabled_plugins"),
        (record("type.a.2"), "required plugin type.a.1 is not installed"),
    ],
)
def test_a_required_plugin_must_have_started(found: Record, line: str | None) -> None:
    """Whatever else became of it ends the daemon, with the line of the file that requires it."""
    assert check([found], ["type.a.1"], []) == ([f"c.toml:1: {line}"] if line else [])


@pytest.mark.parametrize(
    ("found", "ends"),
    [
        (record("type.a.1"), False),
        (record("type.a.1", State.SKIPPED, SkipPlugin("no btrfs")), False),
        (record("type.a.1", State.DISABLED), False),
        (record("type.a.2"), False),
        (record("type.a.1", State.FAILED, OSError("no disk")), True),
    ],
)
def test_a_plugin_with_a_block_may_be_missing_and_not_fail(found: Record, ends: bool) -> None:
    """One file serves several machines, and what an operator has set up does not vanish without a word."""
    line = (
        "c.toml:2: plugin type.a.1, which has a block here, did not start: no disk; "
        "mend it, or name it in disabled_plugins"
    )
    assert check([found], [], ["type.a.1"]) == ([line] if ends else [])


def test_a_plugin_is_named_once_and_all_are_named() -> None:
    """One that is required and has a block too is one mistake."""
    records = [record(f"type.a.{id}", State.FAILED, OSError("no disk")) for id in "12"]
    lines = check(records, ["type.a.1"], ["type.a.1", "type.a.2"])
    assert [line.split(" ")[0] for line in lines] == ["c.toml:1:", "c.toml:2:"]


def test_one_server_is_enough() -> None:
    """Clients of the others get an error of their own."""
    failed = record(f"{SERVER}.ttrpc", State.FAILED, OSError("in use"))
    check_servers([failed, record(f"{SERVER}.grpc")])
    with pytest.raises(StartError) as caught:
        check_servers([failed, record(f"{SERVER}.grpc", State.DISABLED), record("type.a.1")])
    assert str(caught.value).splitlines() == [
        "no server has started, so no client could connect:",
        f"{SERVER}.ttrpc is failed: in use",
        f"{SERVER}.grpc is disabled: take it out of disabled_plugins",
    ]


def test_without_a_server_the_remedy_is_to_install_one() -> None:
    """A daemon would run that no client could ever reach; another type of a longer name is no server."""
    with pytest.raises(StartError, match=r"no server is installed.*: pip install"):
        check_servers([record("io.containerd.server.v11.x")])


@pytest.fixture
def disarmed() -> Iterator[None]:
    """Leave no fault armed for other tests."""
    yield
    faultpoints.arm("")


@pytest.mark.usefixtures("disarmed")
def test_faults_that_are_armed_are_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody looks for the cause of what a drill did; a mistake in them ends the daemon."""
    monkeypatch.setenv("WINDLASS_FAULTS", "")
    arm_faults()
    assert caplog.messages == []
    monkeypatch.setenv("WINDLASS_FAULTS", "content.sync=off")
    arm_faults()
    assert caplog.messages == ["faults are armed by WINDLASS_FAULTS: this daemon is going to fail on purpose"]
    monkeypatch.setenv("WINDLASS_FAULTS", "content.sink=off")
    with pytest.raises(StartError, match=r"^WINDLASS_FAULTS: there is no fault point 'content\.sink'"):
        arm_faults()


def two(settings: TopLevel) -> list[Plugin[object]]:
    """Make a plugin of each key of the timeouts: a factory."""
    return [Plugin(A, id=id, init=lambda context: None) for id in settings.timeouts]


def listed(name: str = "two") -> EntryPoints:
    return EntryPoints([EntryPoint("x", f"{__name__}:{name}", factories.FACTORIES)])


SETTINGS = TopLevel(timeouts={"1": "", "2": ""})


def test_a_factory_makes_plugins_of_the_settings() -> None:
    """One that is disabled is listed, and has no declaration."""
    found = factories.made(SETTINGS, [], ["type.a.2"], lambda group: listed())
    assert [(each.uri, each.plugin is None) for each in found] == [("type.a.1", False), ("type.a.2", True)]


def test_a_made_plugin_takes_no_name_that_is_taken() -> None:
    """That of the one that is installed would otherwise depend on the order."""
    installed = Found("type.a.1", "other 1.0")
    with pytest.raises(StartError, match=r"plugin type\.a\.1 is brought by other 1\.0; give yours another name"):
        factories.made(SETTINGS, [installed], (), lambda group: listed())


def test_owners_are_named_by_the_package_of_their_code() -> None:
    """By the plugin where a package has one, by the distribution where it has several; what is absent owns nothing."""

    def other(context: object) -> None: ...

    other.__module__ = "theirs.plugin"
    one = Plugin(A, id="1", init=other)
    mine = [Plugin(A, id=id, init=lambda context: None) for id in "23"]
    found = [Found(each.uri, "mine 1.0", each) for each in mine]
    owners = owners_of([Found(one.uri, "theirs 2.0", one), *found, Found("type.a.4", "x", error=ImportError())])
    assert owners == {"theirs": "plugin type.a.1", __name__.partition(".")[0]: "a plugin of mine 1.0"}


def test_a_distribution_is_known_by_either_form_of_its_metadata(tmp_path: Path) -> None:
    """A wheel's METADATA, or the PKG-INFO of one that is worked on; colons in a value are its own."""
    text = "Metadata-Version: 2.1\nName: theirs\nVersion: 1.2\nSummary: a: b\n\nName: not this\n"
    for folder, file in (("a.dist-info", "METADATA"), ("b.egg-info", "PKG-INFO")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(text)
        assert name_and_version(Distribution.at(tmp_path / folder)) == "theirs 1.2"
    assert name_and_version(None) == "unknown distribution"
