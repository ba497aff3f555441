"""Plugins that cannot be imported or started: `ctr plugins ls -d` says so, and everything else runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.scratch_daemon import ScratchDaemon, distribution, needs_ctr, needs_root

pytestmark = [needs_root, needs_ctr]

SOURCES = {
    "importerror": "import no_such_module\n",
    "syntaxerror": "def broken(:\n",
    "exits": "raise SystemExit(3)\n",
    "asserts": "assert 1 == 2\n",
    "panics": "class Panic(BaseException): ...\nraise Panic('as extensions in Rust do')\n",
    "raises": """
from windlass.plugin import Plugin, PluginType
def init(context):
    raise RuntimeError("its state file is damaged")
ONE = Plugin(PluginType("org.example.raises"), id="x", init=init)
""",
    "initexits": """
from windlass.plugin import Plugin, PluginType
def init(context):
    raise SystemExit("an init that ends the process")
ONE = Plugin(PluginType("org.example.initexits"), id="x", init=init)
""",
    "noplugin": "ONE = 7\n",
    "nosuchname": "TWO = 7\n",
    "othername": """
from windlass.plugin import Plugin, PluginType
ONE = Plugin(PluginType("org.example.something.else"), id="x", init=lambda context: None)
""",
    "badmeta": """
from windlass.plugin import Plugin, PluginType
def init(context):
    context.meta.exports["number"] = 7
    context.meta.capabilities.append(None)
    return object()
ONE = Plugin(PluginType("org.example.badmeta"), id="x", init=init)
""",
    "returnsnone": """
from windlass.contracts.content import CONTENT
from windlass.plugin import Plugin, PluginType
ONE = Plugin(PluginType("org.example.returnsnone", CONTENT.contract), id="x", init=lambda context: None)
""",
    "newer": """
from windlass.plugin import Plugin, PluginType
ONE = Plugin(PluginType("org.example.newer", version=(1, 4)).at(2, 0), id="x", init=lambda context: None)
""",
    "stopraises": """
from windlass.plugin import Plugin, PluginType
def init(context):
    def stop():
        raise RuntimeError("cannot stop")
    context.on_stop(stop)
    return object()
ONE = Plugin(PluginType("org.example.stopraises"), id="x", init=init)
""",
}
MESSAGES = {
    "importerror": "no_such_module",
    "syntaxerror": "invalid syntax",
    "exits": "3",
    "panics": "Panic: as extensions in Rust do",
    "raises": "its state file is damaged",
    "initexits": "an init that ends the process",
    "noplugin": "not a Plugin",
    "nosuchname": "ONE",
    "othername": "org.example.something.else",
    "asserts": "AssertionError",
    "badmeta": "publishes 7",
    "returnsnone": "its init returned None; it must return an object with the methods of ContentStore",
    "newer": "it was written for version 2.0 of org.example.newer, and this daemon has 1.4",
    "twice": "its distribution has two entry points of this name, twice:ONE and twice:TWO",
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScratchDaemon]:
    """A daemon with every broken plugin at once."""
    scratch = tmp_path_factory.mktemp("d")
    for name, source in SOURCES.items():
        distribution(scratch / "site", name, {f"org.example.{name}.x": f"{name}:ONE"}, source)
    distribution(scratch / "site", "twice", {"org.example.twice.x": "twice:ONE\norg.example.twice.x = twice:TWO"}, "")
    daemon = ScratchDaemon(scratch, env={"PYTHONPATH": str(scratch / "site")})
    daemon.start()
    yield daemon
    daemon.close()


def described(daemon: ScratchDaemon, type: str) -> str:
    """Return what `ctr plugins ls -d` says about a type."""
    listed = daemon.ctr("plugins", "ls", "-d", f"type=={type}")
    assert listed.returncode == 0, listed.stderr
    return listed.stdout


@pytest.mark.parametrize("name", MESSAGES)
def test_a_broken_plugin_is_listed_with_its_reason(daemon: ScratchDaemon, name: str) -> None:
    """An operator looks there first."""
    told = described(daemon, f"org.example.{name}")
    assert "Error:" in told, told
    assert MESSAGES[name] in told


def test_the_rest_runs(daemon: ScratchDaemon) -> None:
    """Everything of ours is there, and the daemon answers."""
    lines = daemon.ctr("plugins", "ls").stdout.splitlines()[1:]
    broken = [line.split()[0] for line in lines if line.split()[-1] not in ("ok", "skip")]
    assert sorted(broken) == sorted(f"org.example.{name}" for name in MESSAGES)
    assert daemon.ctr("version").returncode == 0
    assert daemon.ctr("images", "ls").returncode == 0


def test_the_log_names_each_once(daemon: ScratchDaemon) -> None:
    """With the distribution that brought it, or the URI."""
    log = Path(daemon.log).read_text().splitlines()
    for name in MESSAGES:
        assert len([line for line in log if f"org.example.{name}.x" in line]) == 1, name


def test_a_plugin_that_cannot_stop_does_not_keep_the_daemon(daemon: ScratchDaemon) -> None:
    """The exit code is 0 and the log says which it was."""
    assert daemon.stop() == 0
    assert "org.example.stopraises.x" in daemon.log.read_text()
