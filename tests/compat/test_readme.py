"""The session that the README shows gives what it shows."""

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


def test_the_readme_session(scratch: Path) -> None:
    """Every command succeeds, and every line that is shown is printed, in that order; ctr's where that is installed."""
    ours, ctrs = re.findall(r"^```console\n(.*?)^```", (TREE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert "# ctr " not in ours
    block = ours + (ctrs if shutil.which("ctr") else "")
    block = (
        block.replace("$PWD/", "")
        .replace(".venv/bin", str(Path(sys.executable).parent))
        .replace("/tmp/w/", f"{scratch}/")
    )
    commands = [line[2:] for line in block.splitlines() if line.startswith("# ")]
    shown = [" ".join(line.split()) for line in block.splitlines() if not line.startswith("# ")]
    assert commands[0].endswith("&")

    script = ["set -eu", commands[0].replace("&", f">{scratch}/log 2>&1 &"), FINISH, READY, *commands[1:]]
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    env = {**os.environ, "PATH": path, "SOCKET": f"{scratch}/windlass.sock", "CONTAINERD_NAMESPACE": NAME}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=TREE, env=env, capture_output=True, text=True, timeout=240
    )

    assert done.returncode == 0, done.stderr + (scratch / "log").read_text()
    printed = iter([" ".join(line.split()) for line in done.stdout.splitlines()])
    assert not [line for line in shown if line not in printed], done.stdout
