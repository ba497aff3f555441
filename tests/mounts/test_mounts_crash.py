"""A daemon that is killed while it mounts: the next one knows all that is mounted, and leaves nothing else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass_linux import loop_calls, mounting
from windlass_mounts.loops import LoopHandler
from windlass_mounts.manager import ActiveMounts
from windlass_mounts.mkfs import make_image

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")

ROUNDS = 6
VICTIM = """
import sys
from itertools import count
from pathlib import Path
from threading import Thread
from windlass.contracts.activations import ActivateOptions
from windlass.contracts.mounts import Mount
from windlass_mounts.loops import LoopHandler
from windlass_mounts.manager import ActiveMounts

state, image = map(Path, sys.argv[1:])
manager = ActiveMounts(state, {"loop": LoopHandler()}, (state,), lambda *_: None)
mounts = [Mount("loop", str(image), ("ro",)), Mount("format/ext4", "{{ mount 0 }}", ("ro",)), Mount("tmpfs", "tmpfs")]

def work(name):
    for number in count():
        manager.activate("ns", f"{name}-{number % 3}-{number}", mounts, ActivateOptions(temporary=True))
        if number % 3:
            manager.deactivate("ns", f"{name}-{number % 3}-{number}")

manager.activate("ns", "kept", mounts, ActivateOptions(temporary=True))
for each in "ab":
    Thread(target=work, args=(each,), daemon=True).start()
print("begun", flush=True)
sys.stdin.read()
"""


def devices(top: Path) -> set[str]:
    """Return the loop devices that carry the name of a place below ``top``."""
    found = set()
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if not entry.read_text().startswith(f"{top}/"):
                continue
            descriptor = os.open(f"/dev/{entry.parts[3]}", os.O_RDONLY)
        except OSError:
            continue  # freed, or of another, meanwhile
        try:
            found.add(loop_calls.loop_get_status(descriptor)[1])
        except OSError:
            pass
        finally:
            os.close(descriptor)
    return found


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    manager = ActiveMounts(tmp_path / "state", {"loop": LoopHandler()}, (), lambda *_: None)
    for row in manager.collectibles():
        manager.discard(row.namespace, row.id)
    manager.clean()
    manager.close()
    assert not mounting.mounts_below(tmp_path)


def test_killed_at_any_moment(top: Path) -> None:
    """What is recorded is mounted in full; what is not recorded is neither mounted nor attached."""
    chance = random.Random(2211)
    make_image(top / "image", 1 << 20, "ext2")
    for _ in range(ROUNDS):
        command = [sys.executable, "-c", VICTIM, str(top / "state"), str(top / "image")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"begun\n"
            time.sleep(chance.uniform(0.02, 0.2))
            victim.kill()
        manager = ActiveMounts(top / "state", {"loop": LoopHandler()}, (), lambda *_: None)
        manager.clean()
        active = [mount for each in manager.list("ns") for mount in each.active]
        places = {mount.mount_point for mount in active if mount.mount.type != "loop"}
        assert {row.id for row in manager.collectibles()} == {each.name for each in manager.targets.iterdir()}
        assert set(mounting.mounts_below(top)) == places
        assert devices(top) == {mount.mount_point[-63:] for mount in active if mount.mount.type == "loop"}
        assert len(manager.collectibles()) == len(manager.list("ns"))
        assert manager.info("ns", "kept").name == "kept"
        for each in manager.list("ns"):
            manager.deactivate("ns", each.name)
        manager.close()
    assert not devices(top)
