"""Discovery: what is installed is found, by entry points alone, and whatever is wrong with one stays with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from stevedore import ExtensionManager

from windlass import discovery
from windlass.errors import StartError

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that makes a distribution with one entry point visible to this process."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(ExtensionManager, "ENTRY_POINT_CACHE", {})

    def make(name: str, entry: str, source: str) -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[windlass.plugins]\n{entry} = {module}:PLUGIN\n")
        (info / "RECORD").write_text("")

    return make


DECLARED = """
from windlass.plugin import Plugin, PluginType
PLUGIN = Plugin(PluginType("test.type.v1"), id={id!r}, init=lambda context: None)
"""


def found(uri: str, *disabled: str) -> discovery.Found:
    return next(each for each in discovery.discover(disabled) if each.uri == uri)


def test_an_installed_plugin_is_found(install: Install) -> None:
    """With the distribution that brought it."""
    install("windlass-test-a", "test.type.v1.a", DECLARED.format(id="a"))
    entry = found("test.type.v1.a")
    assert entry.plugin is not None
    assert (entry.plugin.uri, entry.distribution) == ("test.type.v1.a", "windlass-test-a 1.0")


def test_a_disabled_plugin_is_listed_and_not_imported(install: Install) -> None:
    """Its module may even be broken."""
    install("windlass-test-b", "test.type.v1.b", "raise RuntimeError('imported')")
    entry = found("test.type.v1.b", "test.type.v1.b")
    assert (entry.plugin, entry.error) == (None, None)


def test_a_plugin_that_raises_on_import_is_found_with_its_error(install: Install) -> None:
    """The record says what was wrong."""
    install("windlass-test-c", "test.type.v1.c", "raise RuntimeError('boom')")
    assert str(found("test.type.v1.c").error) == "boom"


def test_an_entry_point_that_names_no_plugin_says_so(install: Install) -> None:
    """An author sees the mistake in `ctr plugins ls -d`."""
    install("windlass-test-d", "test.type.v1.d", "PLUGIN = 7")
    assert str(found("test.type.v1.d").error) == "its entry point names a int, no Plugin"


def test_an_entry_point_under_a_wrong_name_says_so(install: Install) -> None:
    """The URI in the declaration is the truth."""
    install("windlass-test-e", "test.type.v1.e", DECLARED.format(id="other"))
    assert str(found("test.type.v1.e").error) == "its declaration calls itself test.type.v1.other"


def test_two_distributions_with_one_uri_stop_the_daemon(install: Install) -> None:
    """Which one would run must not be chance; both are named."""
    install("windlass-test-f", "test.type.v1.f", DECLARED.format(id="f"))
    install("windlass-test-g", "test.type.v1.f", DECLARED.format(id="f"))
    expected = r"test\.type\.v1\.f is brought by windlass-test-[fg] 1\.0 and by windlass-test-[fg] 1\.0"
    with pytest.raises(StartError, match=expected):
        discovery.installed()
