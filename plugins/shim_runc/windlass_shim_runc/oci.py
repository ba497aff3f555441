"""What the shim needs of an OCI runtime, whether that is a program or runs in the shim's own process."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from windlass_shim_runc.loop import Flag
    from windlass_shim_runc.messages import AnyMessage, CheckpointTaskRequest
    from windlass_shim_runc.oom import MemoryWatch
else:
    Protocol = object


class Runtime(Protocol):
    """One container's OCI runtime: the container has an ID, a bundle and options from the beginning.

    Methods raise Error with the runtime's own words, and DeadlineExceeded. ``stdio`` maps the new process's descriptors
    0 to 2 to ours; those that are not in it are /dev/null. ``console`` is the path of a socket to which the master
    of a terminal is sent, "" for a process without one.
    """

    async def create(self, stdio: Mapping[int, int], console: str) -> int:
        """Make the container, whose init waits for `start`, and return init's pid.

        Init becomes a child of the shim. When this fails, `abandon` removes what there is.
        """

    async def restore(self, stdio: Mapping[int, int], console: str, checkpoint: str) -> int:
        """Make the container from a checkpoint, running, and return init's pid."""

    async def start(self, exited: Flag) -> None:
        """Let init run its program; ``exited`` is set when init ends."""

    async def exec(self, exec_id: str, spec: bytes, stdio: Mapping[int, int], console: str) -> int:
        """Run a further process, given as JSON, and return its pid; it becomes a child of the shim."""

    async def kill(self, number: int, all: bool) -> None:
        """Send a signal to init, or to all processes; raises NotFound when they have ended."""

    async def pause(self) -> None:
        """Freeze all processes."""

    async def resume(self) -> None:
        """Thaw all processes."""

    async def update(self, resources: bytes) -> None:
        """Change resource limits, given as JSON LinuxResources."""

    async def checkpoint(self, request: CheckpointTaskRequest) -> str:
        """Write the state of all processes to a directory, and return which."""

    async def delete(self) -> None:
        """Remove a container whose init has ended, with what is kept of it; one that is not known is not an error."""

    async def abandon(self) -> None:
        """Remove what `create` or `restore` has left when it failed, also when it was killed."""

    def forget(self) -> bool:
        """Do at once what `delete` does, if that is possible; False when it is not."""

    def pids(self, init: int) -> list[int]:
        """Return all processes of the container whose init is ``init``."""

    def metrics(self, init: int) -> AnyMessage:
        """Return what the container uses."""

    def watch_memory(self, init: int, on_oom: Callable[[], None]) -> MemoryWatch | None:
        """Call ``on_oom`` when a process is killed for the container's memory; None when that cannot be seen.

        Raises OSError.
        """
