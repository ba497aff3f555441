"""The memory watch with a cgroup of version 2, as a directory of plain files: inotify does not tell them apart."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from windlass_shim_runc import oom
from windlass_shim_runc.loop import Loop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify and cgroups need Linux")


def set_kills(directory: Path, count: int) -> None:
    """Write memory.events as Linux has it."""
    (directory / "memory.events").write_text(f"low 0\nhigh 3\nmax 9\noom 5\noom_kill {count}\noom_group_kill 0\n")


def test_a_growing_counter_is_an_event_and_any_other_change_is_none(tmp_path: Path) -> None:
    """TaskOOM whenever oom_kill grows (docs/containerd 4.7), not for those that were there before."""
    set_kills(tmp_path, 2)
    loop, seen = Loop(), []
    watch = oom.watch_directory(loop, str(tmp_path), lambda: seen.append(len(seen)))

    async def change() -> None:
        set_kills(tmp_path, 2)
        await loop.sleep(0.01)
        assert seen == []
        set_kills(tmp_path, 3)
        await loop.sleep(0.01)
        assert seen == [0]
        set_kills(tmp_path, 7)
        await loop.sleep(0.01)
        loop.stop()

    loop.spawn(change())
    loop.run()
    assert seen == [0, 1]
    watch.close()
    loop.close()


def test_closing_has_a_last_look(tmp_path: Path) -> None:
    """A kill that nobody has had time to read is told before the exit event, and nothing stays open."""
    set_kills(tmp_path, 0)
    before = len(os.listdir("/proc/self/fd"))
    loop, seen = Loop(), []
    watch = oom.watch_directory(loop, str(tmp_path), lambda: seen.append("oom"))
    set_kills(tmp_path, 1)

    watch.close()
    loop.close()

    assert seen == ["oom"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_cgroup_that_is_gone_ends_quietly(tmp_path: Path) -> None:
    """Its files vanish before the watch is closed."""
    set_kills(tmp_path, 4)
    loop, seen = Loop(), []
    watch = oom.watch_directory(loop, str(tmp_path), lambda: seen.append("oom"))
    (tmp_path / "memory.events").unlink()

    watch.close()
    loop.close()

    assert seen == []


def test_a_missing_cgroup_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Nothing to watch is not silence."""
    with pytest.raises(OSError, match=str(tmp_path)):
        oom.watch_directory(Loop(), str(tmp_path / "gone"), lambda: None)
