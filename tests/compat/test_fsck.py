"""`windlass fsck` on what a daemon has left: clean after work, damage in one line, and again clean after its repair."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools
from compat.images import Archive, busybox_layer, layer
from compat.machines import Machine, eventually

IMAGE = "docker.io/library/checked:1"
WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """windlassd that has imported an image and run a container."""
    require_foreign_tools()
    layers = [busybox_layer(), layer({"data/new": b"new\n"}, ("data",))]
    archive = Archive(tmp_path / "image.tar", IMAGE, layers)
    (tmp_path / "d").mkdir()
    machine = Machine("windlass", tmp_path / "d")
    try:
        machine.start()
        machine.ctr("images", "import", str(archive.path))
        machine.ctr("run", "--rm", IMAGE, "first", "/bin/true")
        yield machine
    finally:
        machine.close()


def fsck(machine: Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = ["--root", str(machine.root), "--state", str(machine.state)]
    return subprocess.run([*WINDLASS, "fsck", *where, *arguments], capture_output=True, text=True, timeout=60)


def test_damage_is_named_mended_and_gone(machine: Machine) -> None:
    """The daemon must be stopped; a lost layer is named with its image, which can be imported again then."""
    running = fsck(machine)
    assert running.returncode == 8 and str(machine.root) in running.stderr
    assert running.stderr.count("\n") == 1
    machine.kill()
    clean = fsck(machine, "--deep")
    assert (clean.returncode, clean.stdout) == (0, "clean\n"), clean.stderr

    blobs = sorted((machine.root / "io.containerd.content.v1.content/blobs/sha256").iterdir())
    largest = max(blobs, key=lambda path: path.stat().st_size)
    largest.unlink()
    stray = machine.state / "io.containerd.runtime.v2.task" / machine.namespace / "stray"
    stray.mkdir(parents=True)
    found = fsck(machine, "--json")
    assert found.returncode == 4
    problems = {problem["object"]: problem for problem in json.loads(found.stdout)}
    assert IMAGE in problems[f"blob sha256:{largest.name}"]["remedy"]
    assert problems[f"bundle {stray}"]["state"] == "belongs to no container"
    assert len(problems) == 2

    mended = fsck(machine, "--repair")
    assert mended.returncode == 1, mended.stdout
    assert fsck(machine).returncode == 0
    assert not stray.exists()
    machine.start()
    machine.ctr("images", "import", str(machine.directory.parent / "image.tar"))
    machine.ctr("run", "--rm", IMAGE, "second", "/bin/true")


def test_a_container_that_nobody_knows_is_found(machine: Machine) -> None:
    """Its bundle is gone and it runs on: process, control group and what runc keeps are named, each with its remedy."""
    machine.ctr("run", "-d", IMAGE, "lost", "/bin/sleep", "1000")
    machine.ctr("run", "-d", IMAGE, "kept", "/bin/sleep", "1000")
    pids = {id: int(words[1]) for id, words in machine.rows("tasks", "ls").items()}
    machine.kill()
    clean = fsck(machine)
    assert (clean.returncode, clean.stdout) == (0, "clean\n"), "what has a shim that lives is in order"
    lose(machine.state / "io.containerd.runtime.v2.task" / machine.namespace / "lost", pids["lost"])

    found = fsck(machine, "--json", "--repair")

    assert found.returncode == 4
    problems = {problem["object"]: problem for problem in json.loads(found.stdout)}
    assert problems.pop(f"process {pids['lost']} (sleep)")["remedy"] == f"end it: kill -9 {pids['lost']}"
    (group,) = [each for name, each in problems.items() if name.startswith("control group ")]
    assert f"has processes, {pids['lost']}, although" in group["state"]
    (kept,) = [each for name, each in problems.items() if name.startswith("container ")]
    assert kept["state"] == f"has no bundle and runs as process {pids['lost']}"
    assert len(problems) == 2
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(kept["remedy"].removeprefix("end it: ").split(), check=True, env={**os.environ, "PATH": path})
    assert fsck(machine).returncode == 0
    machine.start()
    assert machine.status("kept") == "RUNNING"


def lose(bundle: Path, pid: int) -> None:
    """Kill a container's shim and remove its bundle, as nothing but a defect does."""
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{shim}").exists() or "Z" in Path(f"/proc/{shim}/stat").read_text())
    subprocess.run(["umount", bundle / "rootfs"], check=True)
    shutil.rmtree((bundle / "work").resolve())
    shutil.rmtree(bundle)


def test_a_database_that_is_none_is_one_line(tmp_path: Path) -> None:
    """Nothing can be checked then, and what follows from it is not told as if it were more."""
    database = tmp_path / "io.containerd.metadata.v1.bolt/meta.db"
    database.parent.mkdir()
    database.write_bytes(b"garbage" * 1000)
    where = ["--root", str(tmp_path), "--state", str(tmp_path / "state")]
    done = subprocess.run([*WINDLASS, "fsck", *where], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (8, "")
    assert f"{database} is damaged" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_root_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run([*WINDLASS, "fsck", "--root", str(tmp_path / "none")], capture_output=True, text=True)
    assert done.returncode == 8
    assert (
        done.stderr
        == f"windlass: root {tmp_path}/none does not exist; name the daemon's with --root, or its --config\n"
    )
