"""A little of what `stress.py` does at length: load, and `kill -9` of everything in its midst."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.accounts import SHIM, ZYGOTE, family, shim_of, take_account
from compat.images import Archive
from compat.machines import Machine, eventually
from compat.ordeal import put_under_strain

IMAGE = "docker.io/library/busy:1"


@pytest.fixture
def own(tmp_path: Path, busy: Archive) -> Iterator[Machine]:
    """A windlassd of the test's own."""
    machine = Machine("windlass", tmp_path)
    try:
        machine.start()
        machine.ctr("images", "import", str(busy.path))
        yield machine
    finally:
        machine.close()


async def test_load_leaves_nothing_behind(own: Machine) -> None:
    """Containers made, entered, killed and deleted at once, by the API and by ctr: all is as it was."""
    found = await put_under_strain(own, IMAGE, workers=4, seconds=1, seed=1)
    assert not found.violations


async def test_kills_lose_block_and_leak_nothing(own: Machine) -> None:
    """Daemon, zygotes and shims are killed meanwhile: what lives goes on, what died is told of, all can be deleted."""
    found = await put_under_strain(own, IMAGE, workers=4, seconds=0, kills=10, seed=2)
    assert not found.violations


def test_an_account_names_what_is_there(own: Machine) -> None:
    """A running container is a process, mounts, a cgroup, files, descriptors and rows more; its shim can be told."""
    before = take_account(own)
    own.ctr("run", "-d", IMAGE, "kept", "/bin/sleep", "1000")
    more = "\n".join(take_account(own).more_than(before))
    for name in ("processes", "mounts", "cgroups", "files", "descriptors", "rows"):
        assert f"left: {name}: " in more
    (shim,) = (pid for pid, name, title in family(own) if name == SHIM and shim_of(name, title) == "kept")
    assert any(name == ZYGOTE for _, name, _ in family(own))
    os.kill(shim, signal.SIGKILL)
    eventually(lambda: own.status("kept") == "")
