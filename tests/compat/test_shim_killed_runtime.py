"""A runtime that is killed while it makes a container leaves nothing: the name can be used again at once."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim_runc.harness import Shim, shims

from windlass import errors
from windlass_linux import cgroups, mounting
from windlass_shim_runc import messages
from windlass_shim_runc.leftovers import clean, runtimes

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: apt install runc"),
]

LONGEST = 0.05
"""Seconds from a runtime's start to its end, or more; a kill comes at any moment of them."""


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Shim]:
    """A shim, whose containers are gone afterwards."""
    with shims(tmp_path) as make:
        yield make()


def left(shim: Shim) -> list[str]:
    """Return what there is of the container besides its bundle."""
    directory = shim.state / "runc" / shim.namespace / shim.id
    groups = cgroups.groups_of((shim.bundle / "config.json").read_bytes(), shim.id)
    found = [str(directory)] if directory.exists() else []
    found += [group for group in groups if Path(group).exists()]
    return found + mounting.mounts_below(shim.state)


def begun(shim: Shim, after: float) -> list[int]:
    """Return the runtimes that work for the shim, some seconds after they have begun."""
    deadline = time.monotonic() + 5
    while not (found := runtimes(str(shim.bundle))) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(after)
    return found


def kill_groups(pids: list[int]) -> None:
    """Kill processes with their groups; those that have ended are fine."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def test_kills_at_any_moment_of_a_creation_leave_nothing(shim: Shim) -> None:
    """24 kills of `runc create`: no directory, no control group, no mount stays, and the same name is made again."""
    chance = random.Random(seed := random.randrange(1 << 32))
    failed = 0
    for _ in range(24):
        shim.make_bundle(["/bin/sleep", "1000"])
        request = messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle))
        stream = shim.client.send("Create", request)
        kill_groups(begun(shim, chance.random() * LONGEST))
        if shim.client.receive(stream).code:
            failed += 1
            assert not left(shim), seed
        else:
            shim.kill(9)
            shim.delete()
    assert failed
    shim.create(["/bin/true"])
    shim.start()
    assert shim.wait() == 0
    shim.delete()
    assert not left(shim)


def test_what_shim_and_runtime_leave_when_both_are_killed(tmp_path: Path) -> None:
    """What cleans up after the shim removes it, whatever the runtime had written; it says that nothing is left."""
    chance = random.Random(seed := random.randrange(1 << 32))
    with shims(tmp_path) as make:
        for number in range(8):
            shim = make(f"box{number}")
            shim.make_bundle(["/bin/sleep", "1000"])
            shim.client.send("Create", messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle)))
            found = begun(shim, chance.random() * LONGEST)
            os.kill(shim.child.pid, signal.SIGKILL)
            kill_groups(found)
            ours, theirs = os.pipe()
            try:
                assert clean((str(shim.bundle), shim.namespace, shim.id, "10"), (theirs,)) == 0, seed
                assert os.read(ours, 100) == b"done"
            finally:
                os.close(ours)
                os.close(theirs)
            assert not left(shim), seed


def test_a_container_of_another_daemon_is_left_alone(tmp_path: Path) -> None:
    """Two are told to keep their containers in one place, and get the same name: the second creation fails, alone."""
    options = messages.pack(messages.Options(root=str(tmp_path / "shared")))
    with shims(tmp_path) as make:
        first = make("box")
        first.create(["/bin/sleep", "1000"], options=options)
        first.start()
        second = make("other")
        second.id = "box"
        with pytest.raises(errors.Error, match="given ID"):
            second.create(["/bin/true"], options=options)
        assert first.status().status == 2
        first.kill(9)
        assert first.wait() == 137
        first.delete()


def test_what_cleans_up_leaves_another_daemons_container_alone(tmp_path: Path) -> None:
    """A shim that was refused a name and then dies leaves nothing; the container of that name runs on."""
    options = messages.pack(messages.Options(root=str(tmp_path / "shared")))
    with shims(tmp_path) as make:
        first, second = make("box"), make("other")
        first.create(["/bin/sleep", "1000"], options=options)
        first.start()
        second.id = "box"
        with pytest.raises(errors.Error, match="given ID"):
            second.create(["/bin/true"], options=options)
        os.kill(second.child.pid, signal.SIGKILL)
        assert clean((str(second.bundle), second.namespace, second.id, "10"), ()) == 0
        assert first.status().status == 2


def test_a_container_that_another_daemon_makes_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """Both creations begin when the name is free; the one that is refused undoes nothing of the other's."""
    shared = tmp_path / "shared"
    late = tmp_path / "late"
    late.write_text(f'#!/bin/sh\nuntil [ -d {shared}/test/box ]; do sleep 0.01; done\nexec runc "$@"\n')
    late.chmod(0o755)
    hooks = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1"]}]}
    with shims(tmp_path) as make:
        first, second = make("box"), make("other")
        second.id = "box"
        streams = []
        for shim, program in ((second, str(late)), (first, "runc")):
            shim.make_bundle(["/bin/sleep", "1000"], hooks=hooks)
            options = messages.pack(messages.Options(root=str(shared), binary_name=program))
            request = messages.CreateTaskRequest(id="box", bundle=str(shim.bundle), options=options)
            streams.append(shim.client.send("Create", request))
        assert "given ID" in second.client.receive(streams[0]).message
        assert not first.client.receive(streams[1]).code
        first.start()
        assert first.status().status == 2


def test_a_failed_creation_is_told_by_the_runtimes_own_words(shim: Shim) -> None:
    """And leaves nothing: what the runtime has removed already is no trouble."""
    with pytest.raises(errors.Error, match="no/such/program"):
        shim.create(["/no/such/program"])
    assert not left(shim)
