"""`run --snapshotter erofs`: layers as images, under a container that outlives its daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools
from compat.images import Archive, busybox_layer, layer
from compat.machines import Machine, eventually
from snapshot_erofs.conftest import missing

IMAGE = "docker.io/library/layers:1"
WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]
MANAGED = "io.containerd.mount-manager.v1.bolt/t"


def devices(machine: Machine) -> list[str]:
    """Return the loop devices of files of this machine."""
    found = (each.read_text().strip() for each in Path("/sys/block").glob("loop*/loop/backing_file"))
    return [path for path in found if path.startswith(f"{machine.directory}/")]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """windlassd with an image of three layers, the second of which deletes what the first has."""
    require_foreign_tools()
    if missing():
        pytest.skip(missing())
    upper = layer({"data/new": b"new", "data/.wh..wh..opq": b"", "etc/.wh.group": b""}, ("data",))
    layers = [busybox_layer(), layer({"data/old": b"old", "file": b"lower"}, ("data",)), upper]
    archive = Archive(tmp_path_factory.mktemp("image") / "layers.tar", IMAGE, layers)
    machine = Machine("windlass", tmp_path_factory.mktemp("erofs"))
    try:
        machine.start()
        machine.ctr("images", "import", "--snapshotter", "erofs", str(archive.path))
        yield machine
    finally:
        machine.close()
        assert not devices(machine)


def managed(machine: Machine) -> list[Path]:
    return list((machine.state / MANAGED).iterdir())


class Windlass:
    """`windlass` for a machine: Debian's `ctr` mounts by itself what it looks users up in, and cannot mount these."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "WINDLASS_ADDRESS": self.machine.address,
            "CONTAINERD_NAMESPACE": self.machine.namespace,
            "WINDLASS_CLIENT_DATA": str(self.machine.directory / "client"),
        }
        command = [*WINDLASS, "run", "--network", "none", "--snapshotter", "erofs", *arguments]
        return subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=60)


def test_a_container_runs_on_images(machine: Machine) -> None:
    """It sees every layer, deletions too, and can change what it sees; afterwards nothing is mounted."""
    script = "cat /file; ls /data; cd /etc; ls group passwd 2>/dev/null; echo changed > /file; cat /file; id -u"
    done = Windlass(machine).run("--rm", "--user", "nobody", IMAGE, "/bin/sh", "-c", script.replace("echo", "false &&"))
    assert done.stdout.split() == ["lowernew", "passwd", "lower65534"], done.stderr
    done = Windlass(machine).run("--rm", IMAGE, "/bin/sh", "-c", script)
    assert done.stdout.split() == ["lowernew", "passwd", "changed", "0"], done.stderr
    images = list((machine.root / "io.containerd.snapshotter.v1.erofs/snapshots").glob("*/layer.erofs"))
    assert len(images) == 3
    assert not (machine.mounts() or managed(machine) or devices(machine))


def test_a_container_on_images_outlives_the_daemon(machine: Machine) -> None:
    """Its mounts are found again, and go when it does; `ctr` handles its task as any other."""
    done = Windlass(machine).run("-d", "--name", "box", IMAGE, "/bin/sleep", "1000")
    assert done.returncode == 0, done.stderr
    before = sorted(machine.mounts())
    assert len([each for each in before if MANAGED in each]) == 3
    machine.kill()
    machine.start()
    machine.collect_garbage()
    assert sorted(machine.mounts()) == before
    assert machine.ctr("tasks", "exec", "--exec-id", "look", "box", "/bin/cat", "/data/new") == "new"
    machine.ctr("tasks", "kill", "-s", "SIGKILL", "box")
    eventually(lambda: machine.status("box") == "STOPPED")
    machine.ctr("tasks", "rm", "box")
    assert not (machine.mounts() or managed(machine))
    machine.ctr("tasks", "start", "-d", "box")
    assert len(managed(machine)) == 1
    machine.remove("box")
    eventually(lambda: not machine.mounts())
    assert not managed(machine)


def test_what_a_container_wrote_becomes_a_layer(machine: Machine) -> None:
    """`ctr` makes a layer of the change, and of a commit of it an image that others run on."""
    done = Windlass(machine).run("--name", "writer", IMAGE, "/bin/sh", "-c", "echo mine > /mine")
    assert done.returncode == 0, done.stderr
    snapshots = ("snapshots", "--snapshotter", "erofs")
    layer = machine.ctr(*snapshots, "diff", "--media-type", "application/vnd.oci.image.layer.v1.tar", "writer")
    assert "mine\n" in layer
    machine.try_ctr("tasks", "rm", "-f", "writer")
    machine.ctr(*snapshots, "commit", "mine", "writer")
    machine.ctr(*snapshots, "prepare", "next", "mine")
    assert "format/overlay" in machine.ctr(*snapshots, "mounts", "/mnt", "next")
    for name in ("next", "mine"):
        machine.ctr(*snapshots, "rm", name)
    machine.remove("writer")
    assert not (machine.mounts() or managed(machine) or devices(machine))


def test_a_task_that_cannot_be_made_leaves_nothing(machine: Machine) -> None:
    """Its layers are unmounted again."""
    done = Windlass(machine).run("--rm", IMAGE, "/none")
    assert done.returncode
    assert "none" in done.stderr
    eventually(lambda: not machine.mounts())
    assert not (managed(machine) or devices(machine))
    # what would remove the container, had the client been killed
    eventually(lambda: not any(b"lifecycle.removal" in commandline(pid) for pid in machine.processes()))


def commandline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""
