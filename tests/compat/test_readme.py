"""The sessions in README and tutorial print what the pages show."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import TREE

from windlass_conformance.boxes import BUSYBOX
from windlass_linux import cgroups

NEEDED = ("runc",)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts and containers"),
    *(
        pytest.mark.skipif(
            shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None,
            reason=f"{name} is not installed; apt install {name}",
        )
        for name in NEEDED
    ),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="no static busybox is installed; apt install busybox-static"),
]

NAME = f"windlass-readme-{os.getpid()}"

FINISH = """
finish() {
    set +e
    windlass rm --force sleeper
    kill %1; wait %1
} >/dev/null 2>&1
trap finish EXIT
"""
READY = 'for _ in $(seq 200); do [ -S "$SOCKET" ] && break; sleep 0.05; done'


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory whose name is short enough for sockets, and nothing left of what used it."""
    path = Path(tempfile.mkdtemp(prefix="w.", dir="/tmp"))
    yield path
    assert not cgroups.remove_within([f"{place}/{NAME}" for place, _, _ in cgroups.hierarchies()])
    assert str(path) not in Path("/proc/self/mountinfo").read_text()
    shutil.rmtree(path)


def shown_and_commands(block: str, scratch: Path) -> tuple[list[str], list[str]]:
    """Return the lines that a session shows and its commands, with files below ``scratch``."""
    block = (
        block.replace("$PWD/", "")
        .replace(".venv/bin", str(Path(sys.executable).parent))
        .replace("/tmp/w/", f"{scratch}/")
    )
    lines = block.splitlines()
    shown = [" ".join(line.split()) for line in lines if not line.startswith("# ")]
    return shown, [line[2:] for line in lines if line.startswith("# ")]


def run(daemon: str, commands: list[str], scratch: Path) -> list[str]:
    """Start a daemon, run the commands, stop it, and return the lines that they printed."""
    script = ["set -eu", daemon.replace("&", f">{scratch}/log 2>&1 &"), FINISH, READY, *commands]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    socket = f"{scratch}/windlass.sock"
    env = {
        **os.environ,
        "PATH": path,
        "SOCKET": socket,
        "CONTAINERD_ADDRESS": socket,
        "CONTAINERD_NAMESPACE": NAME,
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=TREE, env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr + (scratch / "log").read_text()
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


def assert_in_order(shown: list[str], printed: list[str]) -> None:
    rest = iter(printed)
    assert not [line for line in shown if line not in rest], printed


def test_the_readme_session(scratch: Path) -> None:
    """Every command succeeds, and every line that is shown is printed, in that order; ctr's where that is installed."""
    ours, ctrs = re.findall(r"^```console\n(.*?)^```", (TREE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert "# ctr " not in ours
    shown, commands = shown_and_commands(ours + (ctrs if shutil.which("ctr") else ""), scratch)
    assert commands[0].endswith("&")
    assert_in_order(shown, run(commands[0], commands[1:], scratch))


@pytest.mark.skipif(shutil.which("ctr") is None, reason="ctr is not installed; apt install containerd")
def test_the_tutorial_session(scratch: Path) -> None:
    """The commands of docs/writing-a-plugin.md that use the example show what the page shows."""
    page = (TREE / "docs" / "writing-a-plugin.md").read_text().partition("## 5. ")[2]
    block = re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    shown, commands = shown_and_commands(block.replace("image.tar", f"{scratch}/image.tar"), scratch)
    # The example is installed here, and a test installs nothing.
    assert commands[0] == "pip install ./examples/snapshot_copy"
    daemon = f"windlassd --root {scratch}/root --state {scratch}/state --address {scratch}/windlass.sock &"
    printed = run(daemon, commands[1:], scratch)
    assert_in_order(shown, printed)
