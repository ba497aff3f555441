"""What `ps` shows of containers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from windlass_client import format, labels, output
from windlass_client.datadir import DataDirectory
from windlass_client.lifecycle import states
from windlass_client.shortnames import familiar

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_api.containerd.v1.types.task_pb2 import Process
    from windlass_client.client import Client

WIDTH = 20
ID_WIDTH = 12


@dataclass
class Seen:
    """A container and its task, at one moment."""

    container: Container
    task: Process | None
    state: states.State
    size: str = ""
    shadowed: bool = False
    """Whether another container is called what this one's ID is, after a rename."""

    @property
    def name(self) -> str:
        """What people call it."""
        return self.container.labels.get(labels.NAME) or self.container.id

    @property
    def word(self) -> str:
        """What means this container and no other."""
        return self.name if self.shadowed else self.container.id

    @property
    def created(self) -> float:
        """When it was created, in seconds since 1970."""
        return self.container.created_at.seconds + self.container.created_at.nanos / 1e9

    @cached_property
    def command(self) -> str:
        """What its first process is."""
        try:
            return " ".join(map(str, json.loads(self.container.spec.value)["process"]["args"]))
        except (ValueError, KeyError, TypeError):
            return ""

    @property
    def networks(self) -> list[str]:
        """The networks that it is attached to."""
        try:
            found = json.loads(self.container.labels.get(labels.NETWORKS, "[]"))
        except ValueError:
            return []
        return [str(each) for each in found] if isinstance(found, (list, dict)) else []

    def row(self, short: bool) -> dict[str, object]:
        """Return it with docker's names of fields."""
        command = self.command
        if short and len(command) > WIDTH:
            command = f"{command[: WIDTH - 1]}…"
        held = dict(self.container.labels)
        return {
            "ID": self.container.id[:ID_WIDTH] if short and _is_digest(self.container.id) else self.container.id,
            "Image": familiar(self.container.image),
            "Command": f'"{command}"',
            "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(self.created)),
            "RunningFor": f"{format.age(time.time() - self.created)} ago",
            "Status": self.state.status(),
            "State": self.state.word,
            "Ports": self._ports(),
            "Names": self.name,
            "Labels": ",".join(f"{key}={value}" for key, value in sorted(held.items())),
            "Label": held,
            "Networks": ",".join(self.networks),
            "Size": self.size or "0B",
        }

    def _ports(self) -> str:
        if labels.PORTS not in self.container.labels or self.state.word not in ("running", "paused"):
            return ""
        from windlass_client.networks.published import summary

        return summary(self.container.labels)

    def record(self) -> dict[str, object]:
        """Return it with the daemon's words."""
        ended = self.state.word in ("exited", "restarting")
        word = "stopped" if ended else self.state.word
        return {
            "container": self.container.id,
            "name": self.name,
            "image": self.container.image,
            "pid": self.task.pid if self.task else None,
            "status": word,
            "health": self.state.health,
            "exit_status": self.state.exit_code if ended else None,
            "runtime": self.container.runtime.name,
            "snapshotter": self.container.snapshotter,
            "labels": dict(self.container.labels),
            "created": output.moment(self.container.created_at),
        }


def _is_digest(id: str) -> bool:
    return len(id) == 64 and not set(id) - set("0123456789abcdef")


async def seen(client: Client, everything: bool) -> list[Seen]:
    """Return the containers that run, or all, the newest first."""
    containers, tasks = await asyncio.gather(client.containers.list(), client.tasks.list())
    # Task.id is a container's; some daemons leave container_id empty.
    processes = {task.id or task.container_id: task for task in tasks}
    data = DataDirectory.of(client.connection)
    names = {each.labels.get(labels.NAME) for each in containers}
    found = []
    for container in containers:
        task = processes.get(container.id)
        state = states.of(container, task, data)
        if everything or state.word in ("running", "paused", "restarting"):
            found.append(Seen(container, task, state, shadowed=container.id in names))
    return sorted(found, key=lambda each: each.created, reverse=True)


async def measure(client: Client, found: Sequence[Seen]) -> None:
    """Find out how much each has written, and how much it shows with its image."""
    for each in found:
        own, whole = 0, 0
        key = each.container.snapshot_key
        while key:
            usage = await client.snapshots.usage(each.container.snapshotter, key)
            own, whole = own or usage.size, whole + usage.size
            key = (await client.snapshots.stat(each.container.snapshotter, key)).parent
        each.size = f"{format.size(own)} (virtual {format.size(whole)})"
