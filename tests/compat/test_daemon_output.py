"""The daemon's standard output and error are its own: nothing that outlives it holds them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from compat.conftest import IMAGE
from compat.images import Archive
from compat.machines import Machine, eventually


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Machine]:
    """A daemon of this test's own, with the image."""
    machine = Machine("windlass", tmp_path_factory.mktemp("m"))
    try:
        machine.start()
        machine.ctr("images", "import", str(busy.path))
        yield machine
    finally:
        machine.close()


def holders(file: Path) -> list[str]:
    """Return the processes that have a file open."""
    found = []
    for directory in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            if any(os.readlink(entry) == str(file) for entry in directory.iterdir()):
                found.append((directory.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_holds_the_output_of_a_daemon_that_has_ended(alone: Machine, end: signal.Signals) -> None:
    """Whoever reads it by a pipe sees its end while containers, execs and loggers run on."""
    ids = [alone.new_id() for _ in range(2)]
    alone.ctr("run", "-d", IMAGE, ids[0], "/bin/sleep", "1000")
    alone.ctr("run", "-d", "--log-uri", "binary:///bin/cat", IMAGE, ids[1], "/bin/sleep", "1000")
    alone.ctr("tasks", "exec", "-d", "--exec-id", "e", ids[0], "/bin/sleep", "1000")
    assert holders(alone.log)

    alone.stop() if end == signal.SIGTERM else alone.kill()

    eventually(lambda: holders(alone.log) == [])
    alone.start()
    assert [alone.status(id) for id in ids] == ["RUNNING"] * 2
