"""The events of one container (docs/containerd 4.7).

They are published in the order create, start, exit, delete; the exit of init comes after those of all execs.
"""

from __future__ import annotations

from windlass_shim_runc import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_shim_runc.process import Process
    from windlass_shim_runc.publisher import Publisher


class Events:
    """Publishes what happens to a container."""

    __slots__ = ("_id", "_publisher")

    def __init__(self, publisher: Publisher, id: str) -> None:
        self._publisher = publisher
        self._id = id

    def created(self, request: messages.CreateTaskRequest, pid: int) -> None:
        """The container is there, as ``request`` wanted it."""
        event = messages.TaskCreate(
            container_id=self._id,
            bundle=request.bundle,
            rootfs=request.rootfs,
            io=messages.TaskIO(
                stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=request.terminal
            ),
            checkpoint=request.checkpoint,
            pid=pid,
        )
        self._publisher.publish("/tasks/create", event)

    def started(self, pid: int) -> None:
        """Its program runs."""
        self._publisher.publish("/tasks/start", messages.TaskStart(container_id=self._id, pid=pid))

    def exec_added(self, exec_id: str) -> None:
        """An exec waits for `Start`."""
        self._publisher.publish("/tasks/exec-added", messages.TaskExecAdded(container_id=self._id, exec_id=exec_id))

    def exec_started(self, process: Process) -> None:
        """An exec runs."""
        event = messages.TaskExecStarted(container_id=self._id, exec_id=process.exec_id, pid=process.pid)
        self._publisher.publish("/tasks/exec-started", event)

    def exited(self, process: Process) -> None:
        """Init or an exec has ended."""
        event = messages.TaskExit(
            container_id=self._id,
            id=process.exec_id or self._id,
            pid=process.pid,
            exit_status=process.exit_status,
            exited_at=messages.timestamp(process.exited_at),
        )
        self._publisher.publish("/tasks/exit", event)

    def deleted(self, init: Process) -> None:
        """The container is gone."""
        event = messages.TaskDelete(
            container_id=self._id,
            pid=init.pid,
            exit_status=init.exit_status,
            exited_at=messages.timestamp(init.exited_at),
        )
        self._publisher.publish("/tasks/delete", event)

    def out_of_memory(self) -> None:
        """Linux has killed a process of it for its memory."""
        self._publisher.publish("/tasks/oom", messages.TaskOOM(container_id=self._id))

    def paused(self) -> None:
        """All its processes are frozen."""
        self._publisher.publish("/tasks/paused", messages.TaskPaused(container_id=self._id))

    def resumed(self) -> None:
        """They run again."""
        self._publisher.publish("/tasks/resumed", messages.TaskResumed(container_id=self._id))

    def checkpointed(self, path: str) -> None:
        """Its checkpoint is complete."""
        event = messages.TaskCheckpointed(container_id=self._id, checkpoint=path)
        self._publisher.publish("/tasks/checkpointed", event)
