"""`windlass plugins check`: plugins that behave badly, each in its own way, and what the report says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windlass.errors import InvalidArgument, NotFound
from windlass_client import cli
from windlass_client.plugincheck import run, target
from windlass_client.plugincheck.result import FAILED, NOTE, PASSED, Result
from windlass_client.scaffold.kinds import kind_of
from windlass_client.scaffold.write import write

URI = "dev.example.bad.v1.one"
HEAD = """
import os, threading, time
from typing import Protocol
from windlass.plugin import Plugin, PluginType, SkipPlugin, contract
@contract
class Bad(Protocol):
    def get(self, name: str) -> str:
        "Return it."
        ...
    async def ask(self, name: str) -> str:
        "Return it."
        ...
BAD = PluginType("dev.example.bad.v1", Bad)
kept = []
class One:
    def get(self, name: str) -> str:
        GET
        return name
    async def ask(self, name: str) -> str:
        ASK
        return name
def init(context):
    INIT
    return One()
PLUGIN = Plugin(BAD, id="one", init=init)
"""


def package(folder: Path, uri: str = URI, **parts: str) -> target.Target:
    """Return a package whose plugin does these things."""
    text = HEAD
    for name in ("GET", "ASK", "INIT"):
        text = text.replace(name, parts.get(name.lower(), "pass"))
    (folder / "bad_one.py").write_text(parts.get("top", "") + text + parts.get("end", ""))
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "bad-one"\n[project.entry-points."windlass.plugins"]\n"{uri}" = "bad_one:PLUGIN"\n'
    )
    return target.find(str(folder))


def checked(found: target.Target, patience: float = 120.0) -> dict[str, Result]:
    """Return the results by check; of several of one check, the worst."""
    results: dict[str, Result] = {}
    for each in run.probe(found, next(iter(found.plugins)), patience):
        if each.check not in results or each.result == FAILED:
            results[each.check] = each
    return results


def test_a_good_plugin_passes(tmp_path: Path) -> None:
    """Every check."""
    found = checked(package(tmp_path))
    assert {each.result for each in found.values()} == {PASSED}
    assert set(found) == {
        *("import", "init", "contract", "calls", "stop", "loop", "second start", "threads", "descriptors")
    }


@pytest.mark.parametrize(
    ("parts", "check", "says"),
    [
        ({"top": "raise SystemExit(3)"}, "import", "SystemExit"),
        ({"top": "import nosuchmodule"}, "import", "nosuchmodule"),
        ({"end": "PLUGIN = 5"}, "import", "not a Plugin"),
        ({"init": "raise KeyError('x')"}, "init", "KeyError"),
        ({"init": "return object()"}, "init", "lacks ask, get of Bad"),
        ({"get": "raise KeyError(name)"}, "calls", "get('windlass-check-nothing',) raises KeyError"),
        ({"ask": "raise ValueError('a\\nb')"}, "calls", "ValueError"),
        ({"get": "time.sleep(30)"}, "calls", "did not answer"),
        ({"ask": "time.sleep(1.5)"}, "loop", "stood still"),
        ({"init": "kept.append(os.open('/dev/null', 0))"}, "descriptors", "/dev/null"),
        ({"init": "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"}, "threads", "leaves 1"),
        ({"init": "os._exit(7)"}, "init", "exit code 7"),
        ({"get": "os.kill(os.getpid(), 9)"}, "call of get", "signal 9"),
        ({"init": "context.on_stop(lambda: time.sleep(7))"}, "stop", "took"),
        ({"init": "context.root.mkdir(parents=True)"}, "second start", "File exists"),
    ],
)
def test_bad_behaviour_is_found(tmp_path: Path, parts: dict[str, str], check: str, says: str) -> None:
    """The check that fails, and what it says."""
    found = checked(package(tmp_path, **parts))
    assert found[check].result == FAILED, found
    assert says in found[check].detail
    assert "\n" not in found[check].detail


def test_a_plugin_that_hangs_is_killed(tmp_path: Path) -> None:
    """The step is named in which it did not end."""
    found = checked(package(tmp_path, top="import time; time.sleep(600)"), patience=3.0)
    assert found["import"].result == FAILED and "did not end within 3 s" in found["import"].detail


def test_another_name_is_found(tmp_path: Path) -> None:
    """The entry point and the declaration have to agree."""
    found = checked(package(tmp_path, uri="dev.example.bad.v1.two"))
    assert found["import"].result == FAILED and "calls itself dev.example.bad.v1.one" in found["import"].detail


def test_a_plugin_that_skips_itself_is_no_failure(tmp_path: Path) -> None:
    """It may be right on another machine."""
    found = checked(package(tmp_path, init="raise SkipPlugin('no such disk; buy one')"))
    assert found["init"].result == NOTE and "buy one" in found["init"].detail


# What is named


def test_what_is_not_a_package_is_refused(tmp_path: Path) -> None:
    """A directory, or an installed distribution that brings a plugin."""
    with pytest.raises(NotFound, match="does not exist"):
        target.find(str(tmp_path))
    with pytest.raises(NotFound, match="pip install it first"):
        target.find("no-such-distribution")
    with pytest.raises(InvalidArgument, match="brings no plugin"):
        target.find("pytest")
    (tmp_path / "pyproject.toml").write_text("[project")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        target.find(str(tmp_path))
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(InvalidArgument, match="brings no plugin"):
        target.find(str(tmp_path))


def test_an_installed_distribution_is_found() -> None:
    """By its name."""
    assert list(target.find("windlass-content").plugins) == ["io.containerd.content.v1.content"]


# The command


def test_a_generated_package_passes_with_its_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that `plugins new` names next."""
    made = write(kind_of("events"), "mine", tmp_path)
    assert cli.main(["plugins", "check", str(made), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (suite,) = (each for each in found if each["check"] == "suite")
    assert suite["result"] == PASSED and "passed" in suite["detail"]


def test_a_failing_suite_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first case that fails is named."""
    made = write(kind_of("events"), "mine", tmp_path)
    file = made / "mine" / "implementation.py"
    file.write_text(file.read_text().replace("super().publish(namespace, topic, event)", "raise KeyError(topic)"))
    assert cli.main(["plugins", "check", str(made)]) == 1
    assert "test_events_arrive_as_they_were_published" in capsys.readouterr().out
