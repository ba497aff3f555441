"""Discovery: what is installed is found, by entry points alone, and whatever is wrong with one stays with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from windlass import discovery
from windlass.config import factories
from windlass.config.settings import TopLevel
from windlass.errors import StartError

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that makes a distribution with one entry point visible to this process."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def make(name: str, entry: str, source: str, group: str = discovery.GROUP) -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry} = {module}:PLUGIN\n")
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
    assert str(found("test.type.v1.d").error) == "its entry point names a int, not a Plugin"


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


def test_a_distribution_with_one_uri_twice_is_a_failed_plugin(install: Install, tmp_path: Path) -> None:
    """Which of the two would run must not be chance; the record names both, and other plugins are found."""
    install("windlass-test-h", "test.type.v1.h", DECLARED.format(id="h"))
    install("windlass-test-i", "test.type.v1.i", DECLARED.format(id="i"))
    entries = tmp_path / "windlass_test_h-1.0.dist-info" / "entry_points.txt"
    entries.write_text(f"{entries.read_text()}test.type.v1.h = windlass_test_h:OTHER\n")
    entry = found("test.type.v1.h")
    told = "its distribution has two entry points of this name, windlass_test_h:PLUGIN and windlass_test_h:OTHER"
    assert (entry.plugin, entry.distribution) == (None, "windlass-test-h 1.0")
    assert str(entry.error) == f"{told}; remove one"
    assert found("test.type.v1.i").plugin is not None


VERSIONED = """
from windlass.plugin import Plugin, PluginType
MINE = PluginType("test.type.v1", version=(1, 2))
PLUGIN = Plugin({asks}, id="v", init=lambda context: None, requires={requires})
"""


@pytest.mark.parametrize(
    ("asks", "requires", "told"),
    [
        ("MINE", "()", ""),
        ("MINE.at(1, 0)", "()", ""),
        ("MINE.at(1, 2)", "()", ""),
        ("MINE.at(1, 3)", "()", "it was written for version 1.3 of test.type.v1, and this daemon has 1.2"),
        ("MINE.at(2, 0)", "()", "it was written for version 2.0 of test.type.v1, and this daemon has 1.2"),
        ("MINE.at(0, 9)", "()", "it was written for version 0.9 of test.type.v1, and this daemon has 1.2"),
        (
            "MINE",
            '(PluginType("test.other.v1").at(1, 1),)',
            "it was written for version 1.1 of test.other.v1, and this daemon has 1.0",
        ),
    ],
)
def test_a_plugin_for_another_contract_is_refused(
    install: Install, monkeypatch: pytest.MonkeyPatch, asks: str, requires: str, told: str
) -> None:
    """Its record has both numbers. It may ask for the contract that it keeps and for those that it uses."""
    monkeypatch.delitem(sys.modules, "windlass_test_v", raising=False)
    install("windlass-test-v", "test.type.v1.v", VERSIONED.format(asks=asks, requires=requires))
    entry = found("test.type.v1.v")
    assert (entry.plugin is None) == bool(told)
    assert str(entry.error or "") == (f"{told}; install a plugin and a kernel that fit" if told else "")


SHOW = """
import sys
from stevedore import _cache
print(_cache._c._dir, _cache._c._disable_caching)
from windlass import discovery
from windlass.config import factories
for each in discovery.discover():
    print(each.uri, each.plugin.id if each.plugin else repr(each.error))
print(sys.executable)
"""


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory outside of /tmp, for an interpreter: below /tmp stevedore keeps no cache."""
    place = Path(mkdtemp(prefix="windlass-test-", dir="/var/tmp"))  # a name of our own in it
    yield place
    shutil.rmtree(place)


def shown(outside: Path) -> list[str]:
    """Return what an interpreter outside of /tmp finds, in a process of its own."""
    python = outside / "python"
    if not python.exists():
        python.symlink_to(Path(sys.executable).resolve())
    environment = {
        "PYTHONPATH": os.pathsep.join([str(outside / "site"), *sys.path]),
        "XDG_CACHE_HOME": str(outside / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run([python, "-c", SHOW], env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == f"{outside}/cache/python-entrypoints False"
    assert lines[-1] == str(python)
    return [line for line in lines if line.startswith("test.type.v1.")]


def bring(outside: Path, attribute: str) -> None:
    """Install the distribution anew, as pip may do within a second: the times that stevedore goes by stay."""
    site = outside / "site"
    info = site / "thirdparty-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    entries = info / "entry_points.txt"
    entries.write_text(f"[windlass.plugins]\ntest.type.v1.{attribute} = thirdparty:{attribute.upper()}\n")
    lines = [f"{name.upper()} = Plugin(PluginType('test.type.v1'), id='{name}', init=print)" for name in ("a", "b")]
    (site / "thirdparty.py").write_text("from windlass.plugin import Plugin, PluginType\n" + "\n".join(lines))
    for path in (entries, info, site):
        os.utime(path, (10**9, 10**9))


def test_what_was_installed_a_moment_ago_is_found(outside: Path) -> None:
    """And what has gone is not, however little the clock has moved."""
    bring(outside, "a")
    assert shown(outside) == ["test.type.v1.a a"]
    bring(outside, "b")
    assert shown(outside) == ["test.type.v1.b b"]
    assert not (outside / "cache").exists()


def test_a_cache_that_somebody_planted_is_not_read(outside: Path) -> None:
    """stevedore would load whatever it names, into a daemon that is root."""
    bring(outside, "a")
    plant = outside / "plant.py"
    plant.write_text("import sys\nfrom stevedore import _cache\n_cache.get_group_all('windlass.plugins')\n")
    bring(outside, "b")
    environment = {
        "PYTHONPATH": os.pathsep.join([str(outside / "site"), *sys.path]),
        "XDG_CACHE_HOME": f"{outside}/cache",
    }
    shown(outside)
    subprocess.run([outside / "python", plant], env=environment, check=True)
    planted = list((outside / "cache" / "python-entrypoints").iterdir())
    for file in planted:
        cached = json.loads(file.read_text())
        cached["groups"]["windlass.plugins"] = [["test.type.v1.b", "os:abort", "windlass.plugins"]]
        file.write_text(json.dumps(cached))
    assert planted
    assert shown(outside) == ["test.type.v1.b b"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def PLUGIN(settings):\n    return settings['x']", "TypeError: 'TopLevel' object is not subscriptable"),
    ],
)
def test_a_factory_that_is_broken_stops_the_daemon_by_name(install: Install, source: str, reason: str) -> None:
    """Whatever it raises, the operator gets the distribution and the remedy."""
    install("windlass-test-h", "factory", source, group=factories.FACTORIES)
    with pytest.raises(StartError, match=f"windlass-test-h 1.0 cannot make .*: {reason}; mend it or uninstall it"):
        factories.made(TopLevel(), [])
