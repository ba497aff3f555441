"""Workers that hang, die, or lose their daemon."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any  # fixtures whose classes live in conftest, which tests cannot import

import pytest

from windlass.contracts.diff import LAYER
from windlass.contracts.mounts import Mount
from windlass.errors import Cancelled, DeadlineExceeded, Internal, Unavailable
from windlass_diff.channel import Channel
from windlass_diff.job import Job
from windlass_diff.messages import Request


def hang(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Say what is done and do nothing; an entry of a worker."""
    channel = Channel(descriptors[0])
    channel.request()
    channel.step("apply")
    time.sleep(60)
    return 0


def die(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Die without a word; an entry of a worker."""
    return 3


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> str:
    """This module, under a name that the zygote can import."""
    import sys

    monkeypatch.setitem(sys.modules, "diff_entries", sys.modules[__name__])
    return "diff_entries"


def test_a_worker_that_makes_no_progress_is_killed(zygote: Any, entry: str) -> None:
    """The error names the step it was in."""
    job = Job(zygote, f"{entry}:hang", "layer x", {})
    with pytest.raises(DeadlineExceeded, match=r"layer x: the worker made no progress for 0\.3 s \(step: apply\)"):
        job.result(0.3)
    job.close()
    os.waitpid(zygote.children.pop(), 0)


def test_a_worker_that_dies_is_noticed_at_once(zygote: Any, entry: str) -> None:
    """By the end of its socket."""
    job = Job(zygote, f"{entry}:die", "layer x", {})
    with pytest.raises(Internal, match="the worker died"):
        job.result(30.0)
    job.close()


def test_a_worker_can_be_stopped_from_another_thread(zygote: Any, entry: str) -> None:
    """Who waits for it gets Cancelled."""
    job = Job(zygote, f"{entry}:hang", "layer x", {})
    timer = threading.Timer(0.3, job.kill)
    timer.start()
    with pytest.raises(Cancelled):
        job.result(30.0)
    timer.join()
    job.close()


def test_a_worker_dies_with_the_daemon(zygote: Any, entry: str) -> None:
    """When nobody holds the other end of its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = zygote.spawn(f"{entry}:hang", [], [theirs.fileno()])
    theirs.close()
    ours.send(b"{}")
    ours.recv(1000)
    ours.close()
    pid, status = os.waitpid(zygote.children.pop(), 0)
    os.close(child.pidfd)
    assert (pid, os.waitstatus_to_exitcode(status)) == (child.pid, 1)


def test_a_closed_differ_takes_no_calls(differ: Any, content: Any, members: Any, root: Path) -> None:
    """And leaves no worker."""
    differ.close()
    with pytest.raises(Unavailable):
        differ.apply(content, content.add(members().bytes(), LAYER), [Mount("bind", str(root), ("rbind",))])


def test_a_worker_leaves_no_mount_when_it_is_killed(differ: Any, zygote: Any, root: Path) -> None:
    """Its namespace goes with it; the blob here is a terabyte of zeros."""
    blob = os.memfd_create("blob")
    os.ftruncate(blob, 1 << 40)
    request: Request = {
        "mounts": [["bind", str(root), "", "rbind"]],
        "directory": str(root.parent / "target"),
        "sync": False,
        "compressed": False,
        "processors": [],
        "detached": False,
    }
    job = Job(zygote, "windlass_diff.worker:apply", "layer x", request, [blob])
    os.close(blob)
    timer = threading.Timer(0.3, job.kill)
    timer.start()
    with pytest.raises(Cancelled):
        job.result(10.0)
    timer.join()
    job.close()
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
    root.rmdir()
