"""Contract: checkpoints, which keep the state of a running task as blobs, and make tasks of them."""

from __future__ import annotations

from typing import Protocol

from windlass.contracts.containers import Container
from windlass.contracts.tasks import CreateOptions
from windlass.contracts.values import Descriptor, Payload
from windlass.plugin import PluginType, contract

CHECKPOINT = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
"""Media type of a plain tar of criu's image directory."""
CONFIG = "application/vnd.containerd.container.checkpoint.config.v1+proto"
"""Media type of a container's spec, a protobuf Any."""


@contract
class Checkpoints(Protocol):
    """Turns tasks into blobs and back Both calls take as long as it takes to write all memory.

    Source: docs/containerd 3.11.
    """

    async def save(
        self, namespace: str, lease: str, container: Container, options: Payload | None
    ) -> tuple[Descriptor, ...]:
        """Checkpoint a container's task; return what was written to the content store, held by ``lease``.

        That is the checkpoint and the container's spec. A client that goes away
        meanwhile changes nothing: the work is done to its end. Raises as
        `windlass.contracts.tasks.Tasks.checkpoint`; then the task runs on. When the disk is
        full after the task has ended with its checkpoint, the message says where that is.
        """
        ...

    async def restore(
        self, namespace: str, container: Container, options: CreateOptions, checkpoint: Descriptor
    ) -> int:
        """Create a task from a checkpoint in the content store, as `windlass.contracts.tasks.Tasks.create` does.

        The checkpoint is not trusted: raises InvalidArgument for one that is damaged or
        holds anything but files and directories inside its own. Raises NotFound (blob).
        """
        ...


CHECKPOINTS: PluginType[Checkpoints] = PluginType("io.windlass.checkpoint.v1", Checkpoints)
