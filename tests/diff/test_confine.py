"""What a worker has: no more capabilities than it needs, and the OOM killer's attention."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any  # fixtures whose classes live in conftest, which tests cannot import

import pytest

from windlass_diff.channel import Channel
from windlass_diff.confine import KEPT, SCORE
from windlass_diff.job import Job
from windlass_diff.messages import Result
from windlass_diff.worker import prepare

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux")

ALLOWED = sum(1 << number for number in KEPT)


def status(text: str) -> dict[str, int]:
    """Return the capability sets of a /proc/PID/status, and whether new privileges are out of reach."""
    rows = dict(line.split(":", 1) for line in text.splitlines())
    found = {name: int(rows[name], 16) for name in ("CapEff", "CapPrm", "CapInh")}
    return found | {"NoNewPrivs": int(rows["NoNewPrivs"])}


def show(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """An entry of a worker: be one, and say what it, its threads, and what it executes may."""
    channel = Channel(descriptors[0])
    channel.request(prepare)

    def work() -> Result:
        tasks = [status((task / "status").read_text()) for task in Path("/proc/self/task").iterdir()]
        executed = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
        score = int(Path("/proc/self/oom_score_adj").read_text())
        return Result(digest=json.dumps({"threads": tasks, "executed": status(executed), "score": score}), size=0)

    return channel.run(work)


@pytest.fixture
def found(zygote: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What such a worker says, as JSON in the text of its result."""
    monkeypatch.setitem(sys.modules, "diff_entries", sys.modules[__name__])
    job = Job(zygote, "diff_entries:show", "layer x", {})
    try:
        return dict(json.loads(job.result(30.0)["digest"]))
    finally:
        job.close()


def test_a_worker_has_only_what_it_needs(found: dict[str, Any]) -> None:
    """So have its threads, and whatever it executes."""
    ours = status(Path("/proc/self/status").read_text())
    assert ours["CapPrm"] & ~ALLOWED, "the test has more to begin with"
    assert len(found["threads"]) > 1
    for each in (*found["threads"], found["executed"]):
        assert (each["CapEff"], each["CapPrm"]) == (ours["CapEff"] & ALLOWED, ours["CapPrm"] & ALLOWED)
        assert (each["CapInh"], each["NoNewPrivs"]) == (0, 1)


def test_a_worker_dies_before_the_daemon_and_containers(found: dict[str, Any]) -> None:
    """When memory is short: a pull can be done again."""
    ours = int(Path("/proc/self/oom_score_adj").read_text())
    assert found["score"] == min(1000, max(ours + 1, SCORE))
