"""What state a container is in, as docker says it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from windlass_client import format, labels
from windlass_client.containers import EXIT_STATUS
from windlass_client.lifecycle import healthfile, restarts

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_api.containerd.v1.types.task_pb2 import Process
    from windlass_client.datadir import DataDirectory

FINISHED = "windlass.client/finished-at"
"""Label: when a task that was deleted had ended, in nanoseconds since 1970."""
LOST = 255
"""Exit status of a container whose end nobody saw: the machine was restarted. docker says the same."""
CREATED, RUNNING, PAUSED, STOPPED = 1, 2, 4, 3
UNKNOWN = 0
PAUSING = 5


@dataclass(frozen=True)
class State:
    """A container's state; times are in seconds since 1970, 0 if not known."""

    word: str
    """created, running, paused, restarting or exited."""
    pid: int = 0
    exit_code: int = 0
    started: float = 0.0
    finished: float = 0.0
    health: str = ""

    def status(self, now: float | None = None) -> str:
        """Return it as `ps` shows it: ``Up 5 seconds (healthy)``, ``Exited (3) 2 minutes ago``."""
        now = time.time() if now is None else now
        if self.word == "created":
            return "Created"
        if self.word in ("running", "paused"):
            extra = {"": "", "starting": " (health: starting)"}.get(self.health, f" ({self.health})")
            up = f"Up {format.age(now - self.started)}" if self.started else "Up"
            return f"{up} (Paused)" if self.word == "paused" else f"{up}{extra}"
        ago = f" {format.age(now - self.finished)} ago" if self.finished else ""
        return f"{self.word.title()} ({self.exit_code}){ago}"


def of(container: Container, task: Process | None, data: DataDirectory) -> State:
    """Return the state of a container, given what the daemon says of its task."""
    if task is None:
        return _without_task(container, data)
    if task.status in (RUNNING, PAUSED, PAUSING):
        word = "running" if task.status == RUNNING else "paused"
        health = ""
        if labels.HEALTH in container.labels:
            health = str(healthfile.read(data, container.id, task.pid)["Status"])
        return State(word, task.pid, started=started(task.pid), health=health)
    if task.status == CREATED and task.pid:
        return State("created", task.pid)
    again = container.labels.get(restarts.STATUS) == "running" and _restarts(container, task.exit_status)
    finished = task.exited_at.seconds + task.exited_at.nanos / 1e9
    return State("restarting" if again else "exited", 0, task.exit_status, 0.0, max(0.0, finished))


def _restarts(container: Container, exit_code: int) -> bool:
    policy = container.labels.get(restarts.POLICY, "")
    if policy.startswith("on-failure"):
        limit, count = policy.partition(":")[2], container.labels.get(restarts.COUNT, "0")
        return bool(exit_code) and (not limit or int(count or 0) < int(limit))
    return policy not in restarts.NEVER


def _without_task(container: Container, data: DataDirectory) -> State:
    # Written when a client deleted the task; another client may have written anything.
    code, finished = container.labels.get(EXIT_STATUS, ""), container.labels.get(FINISHED, "")
    if code.isascii() and code.isdigit() and len(code) < 11:
        at = int(finished) / 1e9 if finished.isascii() and finished.isdigit() else 0.0
        return State("exited", exit_code=int(code), finished=at)
    try:
        # The log's program made it when the container started; the task has gone with the machine.
        os.stat(data.container(container.id) / "lock")  # noqa: PTH116 - quicker, for each line of ps
    except OSError:
        return State("created")
    return State("exited", exit_code=LOST)


def started(pid: int) -> float:
    """Return when a process was started, 0 if it has gone or is on another machine; proc_pid_stat(5), field 22."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0.0
    return _boot() + ticks / os.sysconf("SC_CLK_TCK")


@cache
def _boot() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
