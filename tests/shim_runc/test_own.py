"""Our own OCI runtime is killed at any moment, with the shim that it is in: nothing is left, and the name is free."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from polling import is_readable
from shim_runc.harness import OWN_ENTRY, Shim, shims

from windlass import errors
from windlass_conformance.boxes import BUSYBOX
from windlass_linux import cgroups, mounting
from windlass_shim_runc import messages
from windlass_shim_runc.leftovers import clean

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="a static busybox is missing: apt install busybox-static"),
]

Make = Callable[..., Shim]
LONGEST = 0.04
"""Seconds from a request for a creation to its end, or more; a kill comes at any moment of them."""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A function that makes shims with our runtime."""
    with shims(tmp_path, OWN_ENTRY) as made:
        yield made


def left(shim: Shim) -> list[str]:
    """Return what there is of the container besides its bundle."""
    groups = cgroups.groups_of((shim.bundle / "config.json").read_bytes(), shim.id)
    found = [group for group in groups if Path(group).exists()]
    directory = shim.state / "runc" / shim.namespace / shim.id
    return found + ([str(directory)] if directory.exists() else []) + mounting.mounts_below(shim.state)


def cleaned(shim: Shim) -> bytes:
    """Have what is left of a dead shim removed, and return what that says."""
    ours, theirs = os.pipe()
    try:
        clean((str(shim.bundle), shim.namespace, shim.id, "10"), (theirs,))
        return os.read(ours, 1000)
    finally:
        os.close(ours)
        os.close(theirs)


def inits(shim: Shim) -> list[int]:
    """Return the init that is being made."""
    children = Path(f"/proc/{shim.child.pid}/task/{shim.child.pid}/children").read_text().split()
    return [int(pid) for pid in children if comm(pid) == "windlass-init"]


def comm(pid: str) -> str:
    """Return a process's name, "" when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_shim_that_is_killed_while_it_makes_a_container_leaves_nothing(make: Make) -> None:
    """Keeper and worker die at once, at any moment; the next creation of the same name succeeds."""
    chance = random.Random(seed := random.randrange(1 << 32))
    for number in range(12):
        shim = make(f"box{number}")
        shim.make_bundle(["/bin/sleep", "1000"])
        shim.client.send("Create", messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle)))
        time.sleep(chance.random() * LONGEST)
        os.kill(shim.child.pid, signal.SIGSTOP)
        for pid in shim.workers():
            os.kill(pid, signal.SIGKILL)
        os.kill(shim.child.pid, signal.SIGKILL)
        assert is_readable(shim.child.pidfd, 5)
        assert cleaned(shim) == b"done", seed
        assert not left(shim), seed


def test_an_init_that_is_killed_while_it_is_made_fails_the_creation(make: Make) -> None:
    """The error says so, nothing is left, and the same name is made again."""
    chance = random.Random(seed := random.randrange(1 << 32))
    shim, failed = make(), 0
    for _ in range(16):
        shim.make_bundle(["/bin/sleep", "1000"])
        stream = shim.client.send("Create", messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle)))
        deadline = time.monotonic() + 2
        while not (found := inits(shim)) and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(chance.random() * LONGEST / 4)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if shim.client.receive(stream).code:
            failed += 1
            assert not left(shim), seed
        else:
            shim.delete()
    shim.create(["/bin/true"])
    shim.start()
    assert shim.wait() == 0
    shim.delete()
    assert not left(shim)


def test_what_runs_when_its_shim_is_killed_is_ended(make: Make) -> None:
    shim = make()
    pid = shim.create(["/bin/sleep", "1000"])
    shim.start()
    shim.exec("e", ["/bin/sleep", "1000"])
    other = shim.start("e")
    os.kill(shim.child.pid, signal.SIGKILL)
    assert cleaned(shim) == b"done"
    assert not left(shim)
    # The first process waits for the other's end to be noticed by whoever adopts that.
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{each}/exe").exists() for each in (pid, other)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_checkpoints_are_refused_by_name(make: Make, tmp_path: Path) -> None:
    """Neither is begun: the container runs on, and no name is taken."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    with pytest.raises(errors.Unimplemented, match="windlass-oci cannot write a checkpoint of one"):
        shim.call(messages.Message, "Checkpoint", messages.CheckpointTaskRequest(id=shim.id, path=str(tmp_path)))
    assert shim.status().status == 2
    other = make("other")
    other.make_bundle(["/bin/true"])
    request = messages.CreateTaskRequest(id=other.id, bundle=str(other.bundle), checkpoint=str(tmp_path))
    other.call(messages.PidResponse, "Create", request)
    with pytest.raises(errors.Unimplemented, match="cannot restore other from a checkpoint"):
        other.start()
    other.delete()
    shim.kill(9)
    assert shim.wait() == 137
    shim.delete()


@pytest.mark.parametrize("script", ["exit 0", "echo no >&2; exit 3"])
def test_hooks_of_the_end_run_in_a_process_apart(make: Make, tmp_path: Path, script: str) -> None:
    """They get the state; one that fails is logged only, as the specification says, and the container is gone."""
    shim = make()
    said = tmp_path / "said"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat > {said}; {script}"]}
    shim.make_bundle(["/bin/true"], hooks={"poststop": [hook]})
    request = messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle))
    shim.call(messages.PidResponse, "Create", request)
    shim.start()
    assert shim.wait() == 0
    assert not said.exists()
    shim.delete()
    assert json.loads(said.read_text())["status"] == "stopped"
    assert not [each for each in left(shim) if "rootfs" not in each]


def test_limits_of_a_running_container_change(make: Make) -> None:
    """By the control group; what Linux does not take is named, and nothing has changed."""
    shim = make()
    shim.create(["/bin/sleep", "1000"])
    shim.start()
    groups = cgroups.groups_of((shim.bundle / "config.json").read_bytes(), shim.id)
    place = next(Path(group) for group in groups if (Path(group) / "pids.max").exists())
    for limit, expected in ((123, "123"), (-1, "max")):
        resources = messages.AnyMessage(type_url="x", value=json.dumps({"pids": {"limit": limit}}).encode())
        shim.call(messages.Message, "Update", messages.UpdateTaskRequest(id=shim.id, resources=resources))
        assert (place / "pids.max").read_text().strip() == expected
    shim.kill(9)
    shim.wait()
    shim.delete()


def test_an_option_that_is_not_built_is_refused_by_name(make: Make) -> None:
    shim = make()
    with pytest.raises(errors.Unimplemented, match="NoPivotRoot"):
        shim.create(["/bin/true"], options=messages.pack(messages.Options(no_pivot_root=True)))
    assert not left(shim)
    shim.create(["/bin/true"])
    shim.start()
    assert shim.wait() == 0
    shim.delete()
