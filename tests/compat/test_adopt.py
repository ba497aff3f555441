"""`windlassd adopt`: Debian's containerd is taken over with what runs, and gets it back; nothing restarts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools
from compat.machines import eventually
from compat.takeovers import SLEEP, Takeover, name, running

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
        before = {"tasks": old.rows("tasks", "ls"), "images": sorted(old.ctr("images", "ls", "-q").split())}
        blobs = inodes(old.root)
        took = takeover.take_over()
        assert {id: row[1:] for id, row in new.rows("tasks", "ls").items()} == {
            id: row[1:] for id, row in before["tasks"].items()
        }
        assert len(before["tasks"]) == COUNT
        assert sorted(new.ctr("images", "ls", "-q").split()) == before["images"]
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


def test_a_containerd_that_runs_is_refused(takeover: Takeover) -> None:
    """And is not disturbed; a plan is refused too, since what it says would not hold."""
    before = takeover.old.rows("tasks", "ls")
    for options in ((), ("--dry-run",)):
        done = takeover.adopt(*options)
        assert done.returncode == 1
        assert "a containerd still runs: it answers on " in done.stderr
        assert "stop it first, for instance by systemctl stop containerd" in done.stderr
    assert takeover.old.rows("tasks", "ls") == before


def test_tasks_that_windlass_started_must_end_before_it_gives_back(takeover: Takeover) -> None:
    new = takeover.new
    takeover.take_over()
    new.ctr("run", "-d", name(0), "fresh", *SLEEP)
    new.stop()
    done = takeover.adopt("--back")
    assert (done.returncode, f"fresh in {new.namespace} were started by Windlass" in done.stderr) == (1, True)
    new.start()
    new.remove("fresh")
    takeover.give_back()


def test_containerd_does_not_start_on_what_it_gave_away(takeover: Takeover) -> None:
    """It would remove the bundles of containers that it does not know any more."""
    old, new = takeover.old, takeover.new
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


@pytest.mark.parametrize("snapshotter", ["native"])
def test_snapshots_of_other_snapshotters_are_taken_over(takeover: Takeover, snapshotter: str) -> None:
    """With a container that runs on one, and can run again."""
    old, new = takeover.old, takeover.new
    old.ctr("run", "-d", "--snapshotter", snapshotter, name(0), "other", *SLEEP)
    takeover.take_over()
    assert new.status("other") == "RUNNING"
    assert new.ctr("run", "--rm", "--snapshotter", snapshotter, name(0), "new", "/bin/echo", "x") == "x\n"
    new.ctr("tasks", "kill", "-s", "SIGKILL", "other")
    eventually(lambda: new.status("other") == "STOPPED")
    new.ctr("tasks", "rm", "other")
    new.ctr("tasks", "start", "-d", "other")
    assert new.ctr("tasks", "exec", "--exec-id", "x", "other", "/bin/echo", "again") == "again\n"
    new.remove("other")
    takeover.give_back()
    assert "c0" in old.rows("tasks", "ls")
