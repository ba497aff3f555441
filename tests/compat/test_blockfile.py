"""`ctr run --snapshotter blockfile`: a container in a filesystem of its own, bounded in size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools
from compat.images import Archive, busybox_layer, layer
from compat.machines import Machine, eventually
from snapshot_blockfile.conftest import MEGABYTES, make, missing

IMAGE = "docker.io/library/layers:1"
SNAPSHOTTER = ("--snapshotter", "blockfile")


def devices(machine: Machine) -> list[str]:
    """Return the loop devices of files of this machine."""
    files = []
    for each in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            files.append(each.read_text())
        except OSError:  # it was freed meanwhile
            continue
    return [file for file in files if file.startswith(f"{machine.directory}/")]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """windlassd with an image of three layers, the last of which deletes."""
    require_foreign_tools()
    if missing():
        pytest.skip(missing())
    directory = tmp_path_factory.mktemp("blockfile")
    upper = layer({"data/new": b"new", "data/.wh..wh..opq": b"", "etc/.wh.group": b""}, ("data",))
    layers = [busybox_layer(), layer({"data/old": b"old", "file": b"lower"}, ("data",)), upper]
    archive = Archive(directory / "layers.tar", IMAGE, layers)
    machine = Machine("windlass", directory)
    machine.configure(
        '[plugins."io.containerd.snapshotter.v1.blockfile"]\n'
        f'scratch_file = "{make(directory / "scratch.ext4")}"\nmount_options = ["noatime"]'
    )
    try:
        machine.start()
        machine.ctr("images", "import", *SNAPSHOTTER, str(archive.path))
        yield machine
    finally:
        machine.close()
        eventually(lambda: not devices(machine))


def test_a_container_runs_on_a_file(machine: Machine) -> None:
    """It sees every layer, deletions too, and nothing but them; afterwards nothing is mounted."""
    script = "cat /file; echo; ls /data; ls -a / | grep lost; echo x > /y; cat /y"
    shown = machine.ctr("run", "--rm", *SNAPSHOTTER, IMAGE, machine.new_id(), "/bin/sh", "-c", script)
    assert shown.split() == ["lower", "new", "x"]
    assert " Active" not in machine.ctr("snapshots", *SNAPSHOTTER, "ls")
    assert not machine.mounts()
    eventually(lambda: not devices(machine))


def test_a_container_cannot_fill_more_than_its_file(machine: Machine) -> None:
    """And is told so."""
    script = f"dd if=/dev/zero of=/big bs=1M count={2 * MEGABYTES} 2>&1 || ls -s /big"
    shown = machine.ctr("run", "--rm", *SNAPSHOTTER, IMAGE, machine.new_id(), "/bin/sh", "-c", script)
    assert "No space left" in shown


def test_what_a_container_wrote_becomes_a_layer(machine: Machine) -> None:
    """When it has ended: its file cannot be mounted twice."""
    name = machine.new_id()
    machine.ctr("run", *SNAPSHOTTER, IMAGE, name, "/bin/sh", "-c", "echo mine > /mine; rm /file")
    machine.try_ctr("tasks", "rm", "-f", name)
    plain = ("--media-type", "application/vnd.oci.image.layer.v1.tar")
    layer = machine.ctr("snapshots", *SNAPSHOTTER, "diff", *plain, name)
    assert "mine\n" in layer and ".wh.file" in layer
    machine.ctr("snapshots", *SNAPSHOTTER, "commit", "mine", name)
    machine.ctr("containers", "rm", name)
    machine.ctr("snapshots", *SNAPSHOTTER, "rm", "mine")
