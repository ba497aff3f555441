"""Blocks of plugins, and names of plugins, against what is installed: who gets a setting, and who a message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from windlass.config.blocks import check_blocks, check_names
from windlass.config.known import containerd_knows, is_containerds, uri_of
from windlass.config.toml import Table, parse
from windlass.config.validate import ERROR, NOTE, WARNING
from windlass.discovery import Found
from windlass.plugin import InitContext, Plugin, PluginType

OVERLAY = "io.containerd.snapshotter.v1.overlayfs"
CRI = "io.containerd.cri.v1.runtime"


@dataclass(frozen=True)
class Config:
    """Settings of a plugin."""

    root_path: str = ""
    size: int = 1


def nothing(context: InitContext) -> object:
    return None


def installed(uri: str, config: type[object] | None = Config) -> Found:
    name, _, id = uri.rpartition(".")
    kind: PluginType[object] = PluginType(name)
    return Found(uri, "test 1.0", Plugin(kind, id=id, init=nothing, config=config))


def checked(text: str, *found: Found) -> tuple[dict[str, object], list[tuple[str, str]]]:
    """Return the settings by URI, and severity and text of each problem."""
    plugins: Table = parse(text, "c.toml").get("plugins", parse("", "c.toml"))
    settings, problems = check_blocks(plugins, found)
    return dict(settings), [(each.severity, str(each)) for each in problems]


def named(text: str, *found: Found) -> list[tuple[str, str]]:
    return [(each.severity, str(each)) for each in check_names([parse(text, "c.toml")], found)]


def test_every_plugin_with_settings_gets_some() -> None:
    """With a block those of the block, without one the defaults; without a class none."""
    settings, problems = checked(
        "[plugins.'type.a.1']\nsize = 2\n", installed("type.a.1"), installed("type.a.2"), installed("type.a.3", None)
    )

    assert settings == {"type.a.1": Config(size=2), "type.a.2": Config()}
    assert problems == []


@pytest.mark.parametrize(
    ("text", "severity", "words"),
    [
        ("[plugins.'type.a.1']\nsiez = 1", ERROR, 'c.toml:2: unknown key "siez"'),
        ("[plugins.'type.a.1']\nsize = 'x'", ERROR, 'c.toml:2: "size" in [plugins.type.a.1] must be an integer'),
        ("[plugins.'type.a.3']\nsize = 1", ERROR, 'c.toml:2: unknown key "size": type.a.3 has no settings'),
        (f"[plugins.'{OVERLAY}']\nslow_chown = true", WARNING, f'c.toml:2: "slow_chown" of {OVERLAY} has no effect'),
        (f"[plugins.'{CRI}']\nx = 1", NOTE, f"c.toml:1: no plugin {CRI} is installed"),
        ("[plugins.'type.a.11']\nsize = 1", WARNING, "no plugin type.a.11 is installed"),
        ("[plugins.'com.example.v1.thing']\nx = 1", NOTE, "no plugin com.example.v1.thing is installed"),
    ],
)
def test_what_is_wrong_with_a_block(text: str, severity: str, words: str) -> None:
    """A slip is an error, what only containerd has a warning, a plugin that is elsewhere a note."""
    found = (installed("type.a.1"), installed("type.a.3", None), installed(OVERLAY))
    _, problems = checked(text, *found)

    [(grade, message)] = problems
    assert grade == severity
    assert words in message and "\n" not in message


def test_an_empty_block_is_no_mistake() -> None:
    """Not of a plugin without settings either: a generated file has a block for everybody."""
    assert checked("[plugins.'type.a.3']\n", installed("type.a.3", None))[1] == []


def test_a_plugin_that_is_disabled_or_broken_keeps_its_block() -> None:
    """It is installed, so that nothing is said about its settings, and they come back with it."""
    disabled = Found("type.a.1", "test 1.0")
    broken = Found("type.a.2", "test 1.0", None, ImportError("no"))
    text = "[plugins.'type.a.1']\nanything = 1\n[plugins.'type.a.2']\nanything = 1\n"

    assert checked(text, disabled, broken) == ({}, [])


@pytest.mark.parametrize(
    ("text", "found", "severity", "words"),
    [
        ("required_plugins = ['type.a.9']", ["type.a.1"], ERROR, "required plugin type.a.9 is not installed"),
        ("required_plugins = ['type.b.1']", ["-type.b.1"], ERROR, "required plugin type.b.1 is disabled"),
        ("disabled_plugins = ['type.c.1']", ["type.a.1"], NOTE, "disabled plugin type.c.1 is not installed"),
    ],
)
def test_names_of_plugins_that_are_not_there(text: str, found: Sequence[str], severity: str, words: str) -> None:
    """The daemon must not run without what it needs; to disable what is not there is harmless."""
    entries = [Found(uri[1:], "test 1.0") if uri.startswith("-") else installed(uri) for uri in found]

    [(grade, message)] = named(text, *entries)

    assert grade == severity
    assert message.startswith("c.toml:1: ") and words in message


def test_names_of_plugins_that_are_there() -> None:
    """Nothing is said."""
    text = "required_plugins = ['type.a.1']\ndisabled_plugins = ['type.a.2']"
    assert named(text, installed("type.a.1"), installed("type.a.2")) == []


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("cri", "io.containerd.grpc.v1.cri"),
        ("overlayfs", OVERLAY),
        ("bolt", "io.containerd.metadata.v1.bolt"),
        ("content-service", "io.containerd.service.v1.content-service"),
        ("healthcheck", "io.containerd.grpc.v1.healthcheck"),
        (OVERLAY, OVERLAY),
        ("com.example.v1.thing", "com.example.v1.thing"),
    ],
)
def test_short_names_of_old_files(name: str, uri: str) -> None:
    """What containerd called its plugins before version 2 of the configuration."""
    assert uri_of(name) == uri


def test_what_containerd_has() -> None:
    """Its plugins and the first level of their keys; what it does not have is a mistake, not a difference."""
    assert is_containerds(OVERLAY) and containerd_knows(OVERLAY, "slow_chown")
    assert not containerd_knows(OVERLAY, "slow_chow")
    assert not is_containerds("com.example.v1.thing") and not containerd_knows("com.example.v1.thing", "x")
