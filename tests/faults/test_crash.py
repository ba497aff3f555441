"""Killed at every write, rename, sync and commit point: what was acknowledged is there, and all is in step.

python tests/faults/test_crash.py [--kills N] [--seed N] runs the same for longer.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from compat.disks import small_disk
from faults.workload import owed, verify

from windlass.process import faultpoints

WORKLOAD = Path(__file__).with_name("workload.py")
POINTS = [point for point in faultpoints.POINTS if point != "adopt.step"]  # which no daemon comes to
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="owners of files and loop devices need root")


def work(root: Path, journal: Path, seed: int, armed: str, *more: str) -> int:
    """Run the workload with faults and return how it ended."""
    environment = {**os.environ, faultpoints.VARIABLE: armed}
    command = [sys.executable, str(WORKLOAD), str(root), str(journal), str(seed), *more]
    return subprocess.run(command, env=environment, timeout=60).returncode


def killed_at(directory: Path, point: str, passes: int, seed: int) -> bool:
    """Kill the workload at a point and assert what must hold then; tells whether it came there."""
    root, journal = directory / "root", directory / "journal"
    before = f"{passes}*off->" if passes else ""
    code = work(root, journal, seed, f"{point}={before}kill")
    assert code in (0, -signal.SIGKILL)
    assert verify(root, journal) == []
    return code != 0


@root_only
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point(point: str, tmp_path: Path) -> None:
    """After the restart all that was acknowledged is there, and fsck finds nothing."""
    assert killed_at(tmp_path, point, passes=2, seed=7), f"the workload never comes to {point}"


@root_only
def test_a_power_cut_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """What was not synced is lost, as the control without syncs shows."""
    assert not power_cut(tmp_path / "sound", "metadata.committed", 30)
    assert len(owed(tmp_path / "sound/journal")) > 5
    lost = power_cut(tmp_path / "control", "metadata.committed", 30, "nosync")
    assert any(line.startswith("missing ") for line in lost), "this disk loses nothing, so it proves nothing"


@root_only
@pytest.mark.parametrize("point", POINTS)
def test_a_power_cut_at_a_point(point: str, tmp_path: Path) -> None:
    """Wherever it happens, what was acknowledged is on the disk."""
    assert not power_cut(tmp_path / "cut", point, 2, seed=7)


def power_cut(directory: Path, point: str, passes: int, *more: str, seed: int = 11) -> list[str]:
    """Return what is wrong on a disk of which only that is kept that had reached it when the workload was killed."""
    directory.mkdir()
    journal = directory / "journal"
    with small_disk(directory, 64) as disk:
        code = work(disk.path / "root", journal, seed, f"{point}={passes}*off->kill", *more)
        # Dirty pages are in memory only; what ext4 has sent to its device is in the file.
        shutil.copyfile(directory / "disk.img", directory / "after.img")
        assert code in (0, -signal.SIGKILL)
    place = directory / "after"
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", directory / "after.img", place], check=True)
    try:
        return verify(place / "root", journal)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    choice, kills, cuts = random.Random(options.seed), 0, 0
    while kills + cuts < options.kills:
        point, passes, seed = choice.choice(POINTS), choice.randrange(20), choice.randrange(10**6)
        with tempfile.TemporaryDirectory(prefix="windlass-crash-") as directory:
            if choice.random() < 0.8:
                kills += killed_at(Path(directory), point, passes, seed)
            else:
                wrong = power_cut(Path(directory) / "cut", point, passes + 1, seed=seed)
                assert not wrong, (point, passes + 1, seed, wrong)
                cuts += 1
    sys.stdout.write(f"{kills} kills and {cuts} power cuts, nothing lost, seed {options.seed}\n")


if __name__ == "__main__":
    main()
