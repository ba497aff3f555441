"""`ctr run --snapshotter btrfs`: a container on a subvolume, and the reason why there is none elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools
from compat.disks import small_disk
from compat.images import Archive, busybox_layer, layer
from compat.machines import Machine

IMAGE = "docker.io/library/layers:1"


@pytest.fixture
def machine(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """windlassd with its btrfs snapshots on a btrfs, and an image of three layers."""
    require_foreign_tools()
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("mkfs.btrfs is missing: apt-get install btrfs-progs")
    upper = layer({"data/new": b"new", "data/.wh..wh..opq": b"", "etc/.wh.group": b""}, ("data",))
    layers = [busybox_layer(), layer({"data/old": b"old", "file": b"lower"}, ("data",)), upper]
    archive = Archive(tmp_path / "layers.tar", IMAGE, layers)
    with small_disk(tmp_path_factory.mktemp("disk"), 512, "btrfs") as disk:
        machine = Machine("windlass", tmp_path, disk.path / "root")
        try:
            machine.start()
            machine.ctr("images", "import", "--snapshotter", "btrfs", str(archive.path))
            yield machine
        finally:
            machine.close()


def test_a_container_runs_on_a_subvolume(machine: Machine) -> None:
    shown = machine.ctr(
        "run",
        "--rm",
        "--snapshotter",
        "btrfs",
        IMAGE,
        "box",
        "/bin/sh",
        "-c",
        "cat /file; echo; ls /data; echo x > /y; cat /y",
    )
    assert shown.split() == ["lower", "new", "x"]
    assert " Active" not in machine.ctr("snapshots", "--snapshotter", "btrfs", "ls")
