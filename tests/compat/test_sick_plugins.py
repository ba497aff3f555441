"""Third-party plugins that block, break or do not start: their callers wait or are refused, with the plugin's name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from compat.images import Archive, layer
from compat.scratch_daemon import ScratchDaemon, distribution, needs_root, run_windlassd

pytestmark = needs_root

VERIFIER = "io.containerd.image-verifier.v1.test"
HOOK = "io.windlass.hook.v1.test"
HOOKED = """
import time
from windlass.contracts.images import ImageHooks
from windlass.hooks import hookimpl
from windlass.plugin import HOOK, Plugin

class Admits:
    @hookimpl
    {step}

def init(context):
    {init}

ONE = Plugin(HOOK, id="test", init=init, steps=(ImageHooks,))
"""
HEAD = """
import time
from dataclasses import dataclass
from windlass.plugin import Plugin, SkipPlugin
from windlass.contracts.verifiers import IMAGE_VERIFIER, Judgement

@dataclass(frozen=True)
class Config:
    keys: str = "default"

class Verifier:
    async def verify(self, name, desc):
        {body}

def init(context):
    {init}

ONE = Plugin(IMAGE_VERIFIER, id="test", init=init, config=Config)
"""
ADMITS = "return Judgement(True)"

Start = Callable[..., ScratchDaemon]


def source(body: str = ADMITS, init: str = "return Verifier()") -> str:
    return HEAD.format(body=body, init=init)


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose name is short enough for sockets."""
    return tmp_path_factory.mktemp("d")


@pytest.fixture
def start(scratch: Path) -> Iterator[Start]:
    """Return a function that starts a daemon with a verifier of that source and a configuration."""
    daemons = []

    def run(text: str, config: str = "") -> ScratchDaemon:
        daemon = ScratchDaemon(scratch, arguments=configured(scratch, text, config), env=site(scratch))
        daemons.append(daemon)
        daemon.start()
        return daemon

    yield run
    for daemon in daemons:
        daemon.close()


def configured(scratch: Path, text: str, config: str) -> list[str]:
    uri = HOOK if "HOOK" in text else VERIFIER
    distribution(scratch / "site", "thirdparty", {uri: "thirdparty:ONE"}, text)
    file = scratch / "config.toml"
    file.write_text(f"version = 4\n{config}")
    return ["--config", str(file)]


def site(scratch: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(scratch / "site")}


def taken(daemon: ScratchDaemon) -> dict[str, Any]:
    """Have an image imported; return what was said, and how many new clients were answered meanwhile."""
    archive = Archive(daemon.scratch / "image.tar", "example.org/sick:1", [layer({"file": b"x"})])
    command = [sys.executable, "-m", "compat.transferring", str(daemon.address), "sick", "take", str(archive.path)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_verifier_that_blocks_delays_its_image_and_no_other_client(start: Start) -> None:
    """New clients are answered all the while, and the log names the plugin and the place."""
    daemon = start(source(f"time.sleep(5); {ADMITS}"))
    result = taken(daemon)
    assert result["said"] == "taken"
    assert result["answered"] >= 5
    log = daemon.log.read_text()
    assert "has been held up for " in log
    assert f"by plugin {VERIFIER} at {daemon.scratch}/site/thirdparty.py:13 (Verifier.verify)" in log


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        (source(init="raise KeyError('keys')"), "KeyError: 'keys'"),
    ],
    ids=["import", "init"],
)
def test_while_a_verifier_has_failed_every_image_is_refused(start: Start, text: str, reason: str) -> None:
    """It might have refused: the client gets its name, the reason and the remedy."""
    said = taken(start(text))["said"]
    assert said.startswith(f"PermissionDenied: image taken/it:1 is refused, because {VERIFIER} did not start")
    assert "disabled_plugins" in said
    assert reason in said


def test_a_verifier_that_is_disabled_is_not_missed(start: Start) -> None:
    """The operator has decided."""
    assert taken(start("import no_such_module", f'disabled_plugins = ["{VERIFIER}"]'))["said"] == "taken"


def test_a_verifier_that_skips_is_not_missed(start: Start) -> None:
    """Nor does its block, or one for a plugin that is not installed, keep the daemon from starting."""
    blocks = f'[plugins."{VERIFIER}"]\nkeys = "mine"\n[plugins."io.containerd.image-verifier.v1.other"]\nx = 1\n'
    assert taken(start(source(init="raise SkipPlugin('no keys here')"), blocks))["said"] == "taken"


def hooked(step: str = "def admit_image(self): ...", init: str = "return Admits()") -> str:
    return HOOKED.format(step=step, init=init)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module  # HOOK", f"because {HOOK} did not start and might refuse it"),
        (hooked(init="return None"), "takes part in no step"),
        (hooked("def admit_imag(self): ..."), 'there is no step "admit_imag"; did you mean "admit_image"?'),
        (hooked("def admit_image(self, label): ..."), 'admit_image has no argument "label"'),
        (hooked("def admit_image(self): raise KeyError('x')"), f"{HOOK} refuses admit_image: KeyError: 'x'"),
        (hooked("async def admit_image(self): raise KeyError('x')"), f"{HOOK} refuses admit_image: KeyError: 'x'"),
    ],
    ids=["import", "none", "step", "argument", "raises", "coroutine"],
)
def test_while_a_hook_plugin_is_broken_every_image_is_refused(start: Start, text: str, reason: str) -> None:
    """The client gets the plugin's name and the reason; the daemon serves on."""
    result = taken(start(text))
    assert result["said"].startswith("PermissionDenied: image taken/it:1")
    assert HOOK in result["said"]
    assert reason in result["said"]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_hook_that_blocks_delays_its_image_and_no_other_client(start: Start, kind: str) -> None:
    """In a thread or on a loop of its own; new clients are answered all the while."""
    result = taken(start(hooked(f"{kind} admit_image(self): time.sleep(5)")))
    assert result["said"] == "taken"
    assert result["answered"] >= 5


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_hook_that_hangs_is_refused_after_its_deadline(start: Start, kind: str) -> None:
    """The client learns which plugin and step did not end."""
    result = taken(start(hooked(f"{kind} admit_image(self): time.sleep(600)")))
    assert f"{HOOK} refuses admit_image: it did not end within 10 s" in result["said"]
    assert result["answered"] >= 5


@pytest.mark.parametrize(
    "text", ["import no_such_module", source(init="raise KeyError('keys')")], ids=["import", "init"]
)
def test_a_plugin_with_a_block_must_not_fail(scratch: Path, text: str) -> None:
    """What the operator has set up is not missing without a word: file, line, reason and remedy."""
    arguments = configured(scratch, text, f'[plugins."{VERIFIER}"]\nkeys = "mine"\n')
    places = ["--root", f"{scratch}/root", "--state", f"{scratch}/state", "--address", f"{scratch}/w.sock"]
    code, told = run_windlassd([*arguments, *places], site(scratch))
    assert code == 1
    assert f"{scratch}/config.toml:2: plugin {VERIFIER}, which has a block here, did not start: " in told
    assert "disabled_plugins" in told


def test_a_verifiers_defect_refuses_the_image_and_names_it(start: Start) -> None:
    """The client gets the verifier and the exception, each time, and the daemon goes on."""
    defects = "[lambda: {}['x'], lambda: exit(3), lambda: None, lambda: 7]"
    daemon = start(source("return WAYS.pop(0)()") + f"WAYS = {defects}\n")
    for reason in ("KeyError: 'x'", "SystemExit: 3", "it returned None", "it returned 7"):
        said = taken(daemon)["said"]
        assert said.startswith("PermissionDenied: image taken/it:1 could not be judged by verifier test: ")
        assert reason in said
    assert daemon.log.read_text().count(f"{VERIFIER} failed") == 4
