"""`windlassd adopt`: Debian's containerd is taken over with what runs, and gets it back; nothing restarts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools
from compat.disks import small_disk
from compat.images import Archive, busybox_layer
from compat.machines import eventually
from compat.takeovers import SLEEP, Takeover, name, running
from compat.test_dockerd import IMAGE, RUN, dockerd

pytestmark = pytest.mark.root

COUNT = 20
KINDS = ("debian", "newer")


@pytest.fixture(params=KINDS)
def takeover(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Takeover]:
    """A containerd with a few containers."""
    require_foreign_tools()
    with running(request.param, tmp_path) as found:
        found.fill(2, 2)
        yield found


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_images_and_twenty_containers_are_taken_over(kind: str, tmp_path: Path) -> None:
    """Processes, images, snapshots and blobs are the same ones: nothing was started, pulled or copied."""
    require_foreign_tools()
    with running(kind, tmp_path) as takeover:
        takeover.fill(COUNT, COUNT)
        old, new = takeover.old, takeover.new
        tasks, images = old.rows("tasks", "ls"), sorted(old.ctr("images", "ls", "-q").split())
        blobs = inodes(old.root)
        took = takeover.take_over()
        assert len(tasks) == COUNT
        assert new.rows("tasks", "ls") == tasks
        assert sorted(new.ctr("images", "ls", "-q").split()) == images
        assert inodes(new.root) == blobs
        for number in (0, COUNT - 1):
            assert new.ctr("tasks", "exec", "--exec-id", "x", f"c{number}", "/bin/echo", "within") == "within\n"
        assert took < 60, "5 s are promised on a quiet machine, docs/performance.md"


def inodes(root: Path) -> dict[str, int]:
    """Return the blobs of a root, by which file they are on the disk."""
    blobs = root / "io.containerd.content.v1.content/blobs/sha256"
    return {each.name: each.stat().st_ino for each in blobs.iterdir()}


def test_what_was_taken_over_lives_on(takeover: Takeover) -> None:
    """Its containers can be ended and removed, its images are run; then it is containerd's again, as it was."""
    old, new = takeover.old, takeover.new
    pids = {id: row[1] for id, row in old.rows("tasks", "ls").items()}
    takeover.take_over()
    # containerd's clients reach it where containerd was.
    assert old.ctr("containers", "ls", "-q").split() == ["c0", "c1"]
    assert new.ctr("run", "--rm", name(1), "fresh", "/bin/echo", "new") == "new\n"
    with new.background("events") as events:
        assert events.stdout is not None
        eventually(lambda: new.try_ctr("tasks", "kill", "-s", "SIGKILL", "c1").returncode == 0)
        eventually(lambda: new.status("c1") == "STOPPED")
        seen = b""
        while b"/tasks/exit" not in seen:
            seen += os.read(events.stdout.fileno(), 1 << 16)
    new.ctr("tasks", "rm", "c1")
    new.ctr("run", "-d", name(0), "ours", *SLEEP)
    new.stop()
    refused = takeover.adopt("--back")
    assert (refused.returncode, f"ours in {new.namespace} were started by Windlass" in refused.stderr) == (1, True)
    new.start()
    new.remove("ours")
    printed = takeover.give_back()
    assert "is containerd's again" in printed
    assert {id: row[1] for id, row in old.rows("tasks", "ls").items()} == {"c0": pids["c0"]}
    assert old.ctr("tasks", "exec", "--exec-id", "y", "c0", "/bin/echo", "back") == "back\n"
    assert old.ctr("run", "--rm", name(0), "fresh", "/bin/echo", "old") == "old\n"


def test_an_adoption_that_was_killed_goes_on(takeover: Takeover) -> None:
    """windlassd does not start on half of it, containerd neither; the containers run all the while."""
    old, new = takeover.old, takeover.new
    pids = {id: row[1] for id, row in old.rows("tasks", "ls").items()}
    old.stop()
    killed = takeover.adopt(faults="adopt.step=6*off->kill")
    assert killed.returncode == -signal.SIGKILL
    new.begin()
    eventually(lambda: new.ended() is not None, 60)
    assert "finish it by windlassd adopt, or windlassd adopt --back" in new.log.read_text()
    done = takeover.adopt()
    assert (done.returncode, "is finished" in done.stdout) == (0, True), done.stderr
    new.start()
    assert {id: row[1] for id, row in new.rows("tasks", "ls").items()} == pids


def test_an_adoption_that_was_killed_can_be_given_back(takeover: Takeover) -> None:
    old = takeover.old
    pids = {id: row[1] for id, row in old.rows("tasks", "ls").items()}
    old.stop()
    assert takeover.adopt(faults="adopt.step=9*off->kill").returncode == -signal.SIGKILL
    assert takeover.adopt("--back", faults="adopt.step=3*off->kill").returncode == -signal.SIGKILL
    done = takeover.adopt("--back")
    assert done.returncode == 0, done.stderr
    old.start()
    assert {id: row[1] for id, row in old.rows("tasks", "ls").items()} == pids
    assert old.ctr("run", "--rm", name(0), "fresh", "/bin/echo", "old") == "old\n"


def test_two_daemons_never_have_the_same_containers(takeover: Takeover) -> None:
    """A containerd that runs is refused and not disturbed, and none starts on what it gave away.

    It would remove the bundles of containers that it does not know any more.
    """
    old, new = takeover.old, takeover.new
    before = old.rows("tasks", "ls")
    for options in ((), ("--dry-run",)):
        done = takeover.adopt(*options)
        assert done.returncode == 1
        assert "a containerd still runs: it answers on " in done.stderr
        assert "stop it first, for instance by systemctl stop containerd" in done.stderr
    assert old.rows("tasks", "ls") == before
    takeover.take_over()
    pids = {id: row[1] for id, row in new.rows("tasks", "ls").items()}
    new.stop()
    old.begin()
    eventually(lambda: "invalid database" in old.log.read_text() or "file size too small" in old.log.read_text(), 30)
    old.stop()
    for link in (old.address, f"{old.address}.ttrpc"):
        Path(link).unlink(missing_ok=True)
    new.start()
    assert {id: row[1] for id, row in new.rows("tasks", "ls").items()} == pids


@pytest.mark.parametrize("kind", KINDS)
def test_snapshots_of_native_are_taken_over(kind: str, tmp_path: Path) -> None:
    require_foreign_tools()
    with running(kind, tmp_path) as takeover:
        lives_on(takeover, "native")


def lives_on(takeover: Takeover, snapshotter: str) -> None:
    """A container that runs on a snapshot runs on, and can run again; so can one of the image's snapshots."""
    old, new = takeover.old, takeover.new
    options = ("--snapshotter", snapshotter)
    old.ctr("snapshots", *options, "ls")
    image = str(Archive(takeover.archives / "other.tar", "docker.io/library/other:1", [busybox_layer()]).path)
    old.ctr("images", "import", *options, image)
    write = "echo kept > /file; sleep 1000"
    old.ctr("run", "-d", *options, "docker.io/library/other:1", "other", "/bin/sh", "-c", write)
    takeover.take_over()
    assert new.status("other") == "RUNNING"
    assert new.ctr("run", "--rm", *options, "docker.io/library/other:1", "new", "/bin/echo", "x") == "x\n"
    new.ctr("tasks", "kill", "-a", "-s", "SIGKILL", "other")
    eventually(lambda: new.status("other") == "STOPPED")
    new.ctr("tasks", "rm", "other")
    new.ctr("tasks", "start", "-d", "other")
    assert new.ctr("tasks", "exec", "--exec-id", "x", "other", "/bin/cat", "/file") == "kept\n"
    assert all(row[-1] != "Active" or key == "other" for key, row in new.rows("snapshots", *options, "ls").items())
    new.ctr("tasks", "kill", "-a", "-s", "SIGKILL", "other")
    eventually(lambda: new.status("other") == "STOPPED")
    new.ctr("tasks", "rm", "other")
    takeover.give_back()
    old.ctr("tasks", "start", "-d", "other")
    assert old.ctr("tasks", "exec", "--exec-id", "y", "other", "/bin/cat", "/file") == "kept\n"
    assert old.ctr("run", "--rm", *options, "docker.io/library/other:1", "new", "/bin/echo", "y") == "y\n"


def test_dockerd_goes_on_with_its_containers(tmp_path: Path) -> None:
    """It runs all the while, connects to Windlass where containerd was, and has lost nothing."""
    require_foreign_tools()
    with running("debian", tmp_path) as takeover, dockerd(takeover.old) as docker:
        counting = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done"
        docker.ask(*RUN, "-d", "--name", "box", IMAGE, "/bin/sh", "-c", counting)
        docker.ask(*RUN, "-d", "--name", "quiet", IMAGE, *SLEEP)
        before = docker.ask("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}", "box", "quiet")
        takeover.take_over()
        eventually(lambda: docker.run("exec", "box", "/bin/true").returncode == 0, 60)
        after = docker.ask("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}", "box", "quiet")
        assert after == before
        assert docker.ask(*RUN, "--rm", IMAGE, "/bin/echo", "new") == "new"
        docker.ask("kill", "quiet")
        eventually(lambda: docker.ask("inspect", "-f", "{{.State.Status}}", "quiet") == "exited", 20)
        lines = [int(line) for line in docker.ask("logs", "box").split()]
        assert lines == list(range(1, len(lines) + 1))
        docker.ask("rm", "-f", "box", "quiet")


def test_a_disk_that_fills_leaves_everything_with_containerd(tmp_path: Path) -> None:
    """What needs space is made before anything is moved; with room there, the same command succeeds."""
    require_foreign_tools()
    with small_disk(tmp_path, 64) as disk, running("debian", disk.path) as takeover:
        takeover.fill(1, 1)
        old = takeover.old
        pids = {id: row[1] for id, row in old.rows("tasks", "ls").items()}
        old.stop()
        for leave in (0, 64 << 10):
            disk.fill(leave)
            done = takeover.adopt()
            assert done.returncode == 1
            assert "no space left" in done.stderr.lower()
            disk.release()
            assert not (takeover.new.root / "adoption" / "unfinished").exists()
        old.start()
        assert {id: row[1] for id, row in old.rows("tasks", "ls").items()} == pids
        assert old.ctr("run", "--rm", name(0), "fresh", "/bin/echo", "old") == "old\n"
        takeover.take_over()
        assert {id: row[1] for id, row in takeover.new.rows("tasks", "ls").items()} == pids


def test_subvolumes_of_btrfs_are_taken_over(tmp_path: Path) -> None:
    """Frozen ones too, which Linux does not let anybody rename."""
    require_foreign_tools()
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("mkfs.btrfs is missing: apt-get install btrfs-progs")
    with small_disk(tmp_path, 512, "btrfs") as disk, running("debian", disk.path) as takeover:
        lives_on(takeover, "btrfs")


def test_snapshots_in_files_are_taken_over(tmp_path: Path) -> None:
    require_foreign_tools()
    with running("newer", tmp_path) as takeover:
        scratch = takeover.old.root / "io.containerd.snapshotter.v1.blockfile/scratch"
        takeover.old.stop()
        subprocess.run(["truncate", "-s", "32M", str(scratch)], check=True)
        subprocess.run(["mkfs.ext4", "-q", str(scratch)], check=True)
        takeover.old.start()
        lives_on(takeover, "blockfile")
