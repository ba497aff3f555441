"""Out of memory, live: a container above its limit, told before its exit."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import groups
import pytest
from shim_runc.harness import Shim, shims

from windlass_shim_runc import messages

V1 = Path("/sys/fs/cgroup/memory/memory.oom_control")
V2 = Path("/sys/fs/cgroup/cgroup.controllers")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: apt install runc"),
    pytest.mark.skipif(not V1.exists() and not V2.exists(), reason="no memory cgroup is mounted where it usually is"),
]

Make = Callable[..., Shim]
HUNGRY = "a=x; while :; do a=$a$a; done"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A maker of shims, whose containers are gone afterwards."""
    with shims(tmp_path) as maker:
        yield maker


def limit(shim: Shim, program: list[str]) -> None:
    """Create the container with eight megabytes."""
    shim.make_bundle(program)
    path = shim.bundle / "config.json"
    spec = json.loads(path.read_text())
    spec["linux"]["resources"]["memory"] = {"limit": 8 << 20, "swap": 8 << 20}
    spec["linux"]["cgroupsPath"] = groups.path_of(f"oom-{shim.state.name}")
    path.write_text(json.dumps(spec))
    shim.call(messages.PidResponse, "Create", messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle)))


def test_the_event_comes_before_the_exit_that_it_explains(make: Make) -> None:
    """init eats all memory: oom, then exit 137."""
    shim = make()
    limit(shim, ["/bin/sh", "-c", HUNGRY])
    shim.start()

    assert shim.wait() == 137
    shim.delete()

    shim.sink.wait_for("/tasks/delete")
    assert shim.sink.topics[:2] == ["create", "start"]
    assert shim.sink.topics[-2:] == ["exit", "delete"]
    assert set(shim.sink.topics[2:-2]) == {"oom"}
    kinds = [value for topic, value in shim.sink.received if topic == "/tasks/oom"]
    assert messages.decode(messages.TaskOOM, kinds[0]).container_id == shim.id


def test_a_child_that_is_killed_is_told_while_the_container_runs_on(make: Make) -> None:
    """The loop hears of it without an exit of init."""
    shim = make()
    limit(shim, ["/bin/sh", "-c", f"sh -c '{HUNGRY}'; sleep 1000"])
    shim.start()

    shim.sink.wait_for("/tasks/oom")

    assert shim.status().status == 2
    assert "exit" not in shim.sink.topics


def test_a_container_that_ends_otherwise_tells_nothing(make: Make) -> None:
    """The removal of its cgroup wakes the watch, and is no event."""
    shim = make()
    limit(shim, ["/bin/true"])
    shim.start()
    shim.wait()
    shim.delete()

    shim.sink.wait_for("/tasks/delete")
    assert shim.sink.topics == ["create", "start", "exit", "delete"]
