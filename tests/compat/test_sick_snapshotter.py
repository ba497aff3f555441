"""A snapshotter that hangs or fails: its own callers wait or are told, everybody else works."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from compat.conftest import IMAGE, require_foreign_tools
from compat.images import Archive
from compat.machines import Machine, eventually

NATIVE = "io.containerd.snapshotter.v1.native"
CALLERS = 24
"""More than a plugin has threads."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    require_foreign_tools()
    machine = Machine("windlass", tmp_path)
    try:
        yield machine
    finally:
        machine.close()


def test_one_that_hangs_keeps_nobody_else(machine: Machine, busy: Archive) -> None:
    """Containers run, garbage is collected, and when it answers again it is used again, by itself."""
    machine.environment["WINDLASS_FAULTS"] = f"{NATIVE}.prepare={CALLERS}*delay(6000)"
    machine.start()
    machine.ctr("images", "import", str(busy.path))

    def prepare(number: int) -> int:
        return machine.try_ctr("snapshots", "--snapshotter", "native", "prepare", f"key{number}").returncode

    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(prepare, number) for number in range(CALLERS)]
        assert machine.ctr("run", "--rm", IMAGE, "beside", "/bin/echo", "runs") == "runs\n"
        machine.ctr("leases", "create", "--id", "last")
        machine.ctr("leases", "rm", "--sync", "last")
        assert not all(call.done() for call in calls), "nothing hung, so nothing was shown"
        assert [call.result() for call in calls] == [0] * CALLERS
    assert prepare(CALLERS) == 0


def test_one_that_fails_fails_its_own_callers(machine: Machine, busy: Archive) -> None:
    """With what it says; afterwards it is used again."""
    machine.environment["WINDLASS_FAULTS"] = f"{NATIVE}.prepare=3*error(EIO)"
    machine.start()
    machine.ctr("images", "import", str(busy.path))
    for number in range(3):
        failed = machine.try_ctr("snapshots", "--snapshotter", "native", "prepare", f"key{number}")
        assert failed.returncode and "Input/output error" in failed.stderr
        assert machine.ctr("run", "--rm", IMAGE, f"beside{number}", "/bin/echo", "runs") == "runs\n"
    eventually(lambda: machine.try_ctr("snapshots", "--snapshotter", "native", "prepare", "key").returncode == 0)
    assert len(machine.rows("snapshots", "--snapshotter", "native", "ls")) == 1
