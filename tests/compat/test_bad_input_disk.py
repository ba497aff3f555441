"""A full disk: the error says so, what was there stays and works, and what takes up the space can be removed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from compat.conftest import IMAGE
from compat.disks import Disk, small_disk
from compat.images import Archive, layer
from compat.machines import Machine, Result, eventually

WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]
FULL = "no space left"
MEGABYTES = 40


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Disk]:
    """A disk that a daemon's root has for itself."""
    with small_disk(tmp_path_factory.mktemp("disk"), MEGABYTES) as disk:
        yield disk


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, disk: Disk, busy: Archive) -> Iterator[Machine]:
    """A windlassd on the small disk, with an image that has run."""
    machine = Machine("windlass", tmp_path_factory.mktemp("m"), disk.path / "root")
    try:
        machine.start()
        machine.ctr("images", "import", str(busy.path))
        assert machine.ctr("run", "--rm", IMAGE, "first", "/bin/echo", "runs") == "runs\n"
        yield machine
    finally:
        disk.release()
        machine.close()


@pytest.fixture
def small(machine: Machine, disk: Disk) -> Iterator[Machine]:
    """The machine; when the test is over and there is space again it has what it had, and the image runs."""
    before = collected(machine)
    try:
        yield machine
        disk.release()
        assert collected(machine) == before
        assert machine.ctr("run", "--rm", IMAGE, machine.new_id(), "/bin/echo", "runs") == "runs\n"
        machine.stop()
        machine.start()
        assert collected(machine) == before
    finally:
        disk.release()


def collected(machine: Machine) -> dict[str, object]:
    """Return what there is in the daemon's answers and on its disk, once garbage has been collected."""
    machine.collect_garbage()
    ingests = machine.root / "io.containerd.content.v1.content/ingest"
    return {
        "images": set(machine.ctr("images", "ls", "-q").split()),
        "containers": set(machine.ctr("containers", "ls", "-q").split()),
        "content": set(machine.ctr("content", "ls", "-q").split()),
        "ingests": [*machine.ctr("content", "active").splitlines()[1:], *ingests.iterdir()],
        "leases": machine.ctr("leases", "ls", "-q"),
        "snapshots": set(machine.rows("snapshots", "ls")),
        "snapshot directories": len(machine.snapshot_directories()),
    }


def windlass(machine: Machine, *arguments: str) -> Result:
    """Run our own command line to its end, however that is."""
    command = [*WINDLASS, "-a", machine.address, "-n", machine.namespace, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def load(machine: Machine, tool: str, archive: Archive) -> Result:
    """Import an archive with one of the two tools."""
    if tool == "ctr":
        return machine.try_ctr("images", "import", str(archive.path))
    return windlass(machine, "image", "import", str(archive.path))


@pytest.mark.parametrize("tool", ["ctr", "windlass"])
def test_an_archive_that_does_not_fit_is_refused(small: Machine, tmp_path: Path, tool: str) -> None:
    """The message names the ingest and where there is no space."""
    big = Archive(tmp_path / "big.tar", "docker.io/library/big:1", [layer({"f": os.urandom(MEGABYTES << 20)})])
    done = load(small, tool, big)
    assert done.returncode == 1
    assert FULL in done.stderr
    assert f"{small.root}/io.containerd.content.v1.content/ingest" in done.stderr
    assert big.layers[0] in done.stderr.replace("/", ":")


@pytest.mark.parametrize("tool", ["ctr", "windlass"])
def test_a_layer_that_does_not_fit_is_refused(small: Machine, tmp_path: Path, tool: str) -> None:
    """The message names the layer, its entry and the snapshot, of which nothing stays."""
    data = b"\1" * (2 * MEGABYTES << 20)
    wide = Archive(tmp_path / "wide.tar", "docker.io/library/wide:1", [layer({"wide-file": data})])
    done = load(small, tool, wide)
    assert done.returncode == 1
    for part in (FULL, wide.layers[0], "wide-file", f"{small.root}/io.containerd.snapshotter.v1.overlayfs/snapshots/"):
        assert part in done.stderr
    assert not [key for key in small.rows("snapshots", "ls") if key.startswith("extract-")]
    if tool == "ctr":  # it names an image before it unpacks it
        small.ctr("images", "rm", "--sync", wide.name)


@pytest.mark.parametrize("leave", [0, 8 << 10, 64 << 10])
def test_nothing_is_half_made_on_a_full_disk(small: Machine, disk: Disk, busy: Archive, leave: int) -> None:
    """Whichever step finds the disk full first: neither a snapshot, a container nor a lease is left of it."""
    disk.fill(leave)
    for number in range(4):
        prepared = small.try_ctr("snapshots", "prepare", f"key{number}", busy.chain_ids[0])
        created = small.try_ctr("containers", "create", IMAGE, f"created{number}")
        run = windlass(small, "run", "--name", f"run{number}", IMAGE, "/bin/true")
        disk.fill()
    for done in (prepared, created, run):
        assert done.returncode != 0, done.args
        assert FULL in done.stderr
        assert f"{small.root}/" in done.stderr
    assert small.ctr("images", "ls", "-q").split() == [IMAGE]
    for key in [each for each in small.rows("snapshots", "ls") if each.startswith("key")]:
        small.ctr("snapshots", "rm", key)
    for name in small.ctr("containers", "ls", "-q").split():
        small.ctr("containers", "rm", name)


def test_a_full_disk_can_be_emptied(small: Machine, disk: Disk, tmp_path: Path) -> None:
    """Also after a restart: tasks, containers and images go, and their space comes back without anybody's help."""
    extra = Archive(tmp_path / "extra.tar", "docker.io/library/extra:1", [layer({"f": os.urandom(4 << 20)})])
    small.ctr("images", "import", str(extra.path))
    small.ctr("containers", "create", IMAGE, "created")
    small.ctr("run", "-d", IMAGE, "running", "/bin/sleep", "1000")
    disk.fill()
    small.stop()
    disk.fill()
    small.start()
    disk.fill()
    assert disk.free() < 64 << 10

    assert small.status("running") == "RUNNING"
    small.ctr("tasks", "kill", "-s", "SIGKILL", "running")
    eventually(lambda: small.status("running") == "STOPPED")
    small.try_ctr("tasks", "rm", "running")
    assert small.status("running") == ""
    small.ctr("containers", "rm", "running", "created")
    small.ctr("images", "rm", "--sync", extra.name)

    eventually(lambda: disk.free() > 7 << 20)


def test_deletions_go_on_while_the_disk_stays_full(small: Machine, disk: Disk) -> None:
    """What is kept back for them is not used up: somebody else takes every block that comes free."""
    names = [f"many{number}" for number in range(30)]
    for name in names:
        small.ctr("leases", "create", "--id", name)
    disk.fill()
    for name in names:
        small.ctr("leases", "rm", name)
        disk.fill()


@contextmanager
def being_filled(disk: Disk) -> Iterator[None]:
    """Have somebody take every block the moment it is free."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.0005):
            disk.grab()

    taker = threading.Thread(target=work)
    taker.start()
    try:
        yield
    finally:
        over.set()
        taker.join()


@pytest.mark.parametrize("ended", ["stopped", "killed"])
def test_a_disk_that_is_filled_while_the_daemon_starts_costs_no_plugin(small: Machine, disk: Disk, ended: str) -> None:
    """Every start comes up with all that it had, and can be used; or it ends with exit code 1, to be started again."""
    before = small.ctr("plugins", "ls")
    assert "overlayfs" in before
    for _ in range(2):
        with being_filled(disk):
            small.stop() if ended == "stopped" else small.kill()
            try:
                small.start()
            except AssertionError:
                assert small.ended() == 1, small.log.read_text()
                assert "finds no room" in small.log.read_text()
                continue
            assert small.ctr("plugins", "ls") == before
            assert small.ctr("images", "ls", "-q").split() == [IMAGE]
    if small.ended() is not None:
        disk.release()
        small.start()


def test_a_daemon_that_died_on_a_full_disk_starts_again(small: Machine, disk: Disk) -> None:
    """Nothing was closed properly, and there is not a block to be had."""
    disk.fill()
    small.kill()
    disk.fill()
    small.start()
    assert small.ctr("images", "ls", "-q").split() == [IMAGE]


def test_what_a_daemon_keeps_is_its_owners_alone(small: Machine) -> None:
    """Directories of stores and files of databases; blobs are as containerd has them, in a directory like that.

    The runtime's can be passed through: a container with a user namespace finds its bundle by its path.
    """
    open_to_others = [
        f"{path.relative_to(small.root)} {path.stat().st_mode:o}"
        for path in [small.root, *small.root.iterdir(), *small.root.glob("*/*.db*"), *small.root.glob("*/snapshots")]
        if path.stat().st_mode & 0o077 and path.name not in ("lost+found", "io.containerd.runtime.v2.task")
    ]
    assert open_to_others == []
