"""Between the Task API's messages and the contract's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from windlass.contracts.mounts import Mount
from windlass.contracts.sandboxes import SandboxOptions, SandboxStatus
from windlass.contracts.tasks import IO, CreateOptions, Exit, Process, ProcessInfo, Status
from windlass.contracts.values import Payload
from windlass_api.containerd.events import task_pb2 as events_pb
from windlass_api.containerd.runtime.sandbox.v1 import sandbox_pb2 as sandbox_pb
from windlass_api.containerd.task.v3 import shim_pb2 as pb
from windlass_api.containerd.types import mount_pb2 as mount_pb

NANOSECONDS = 1_000_000_000


class Ended(Protocol):
    """What the answers to Wait and Delete have in common."""

    exit_status: int

    @property
    def exited_at(self) -> Timestamp:
        """Return when the process ended."""
        ...


def nanoseconds(time: Timestamp) -> int:
    """Return nanoseconds since the epoch, 0 for Go's zero time, which lies in the year 1."""
    return max(0, time.seconds * NANOSECONDS + time.nanos)


def timestamp(at: int) -> Timestamp:
    """Return ``at``, nanoseconds since the epoch, as the wire has it."""
    return Timestamp(seconds=at // NANOSECONDS, nanos=at % NANOSECONDS)


def exit_of(answer: Ended, pid: int) -> Exit:
    """Read how a process ended."""
    return Exit(pid, answer.exit_status, nanoseconds(answer.exited_at))


def any_of(payload: Payload | None) -> AnyMessage | None:
    """Wrap a payload, byte for byte."""
    return None if payload is None else AnyMessage(type_url=payload.type_url, value=payload.value)


def payload_of(value: AnyMessage) -> Payload:
    """Unwrap a payload, byte for byte."""
    return Payload(value.type_url, value.value)


def _mounts(mounts: Iterable[Mount]) -> list[mount_pb.Mount]:
    return [
        mount_pb.Mount(type=mount.type, source=mount.source, target=mount.target, options=mount.options)
        for mount in mounts
    ]


def create_request(id: str, bundle: str, options: CreateOptions, runtime: Payload | None) -> pb.CreateTaskRequest:
    """Ask for a task; ``runtime`` are the options that the container has."""
    return pb.CreateTaskRequest(
        id=id,
        bundle=bundle,
        rootfs=_mounts(options.rootfs),
        terminal=options.io.terminal,
        stdin=options.io.stdin,
        stdout=options.io.stdout,
        stderr=options.io.stderr,
        checkpoint=options.checkpoint,
        options=any_of(options.options or runtime),
    )


def exec_request(id: str, exec_id: str, spec: Payload, io: IO) -> pb.ExecProcessRequest:
    """Ask for a further process."""
    return pb.ExecProcessRequest(
        id=id,
        exec_id=exec_id,
        terminal=io.terminal,
        stdin=io.stdin,
        stdout=io.stdout,
        stderr=io.stderr,
        spec=any_of(spec),
    )


def process_of(answer: pb.StateResponse, id: str, exec_id: str) -> Process:
    """Read a process's state."""
    status = Status(answer.status) if answer.status in Status._value2member_map_ else Status.UNKNOWN
    return Process(
        container_id=id,
        exec_id=exec_id,
        pid=answer.pid,
        status=status,
        io=IO(answer.stdin, answer.stdout, answer.stderr, answer.terminal),
        exit_status=answer.exit_status,
        exited_at=nanoseconds(answer.exited_at),
        bundle=answer.bundle,
    )


def processes_of(answer: pb.PidsResponse) -> list[ProcessInfo]:
    """Read a task's processes."""
    return [
        ProcessInfo(found.pid, payload_of(found.info) if found.HasField("info") else None) for found in answer.processes
    ]


def create_sandbox_request(id: str, bundle: str, options: SandboxOptions) -> sandbox_pb.CreateSandboxRequest:
    """Ask for a sandbox."""
    return sandbox_pb.CreateSandboxRequest(
        sandbox_id=id,
        bundle_path=bundle,
        rootfs=_mounts(options.rootfs),
        options=any_of(options.options),
        netns_path=options.netns_path,
        annotations=dict(options.annotations),
    )


def sandbox_status(answer: sandbox_pb.SandboxStatusResponse, id: str, address: str, version: int) -> SandboxStatus:
    """Read a sandbox's state."""
    return SandboxStatus(
        id=answer.sandbox_id or id,
        pid=answer.pid,
        state=answer.state,
        info=dict(answer.info),
        created_at=nanoseconds(answer.created_at),
        exited_at=nanoseconds(answer.exited_at),
        extra=payload_of(answer.extra) if answer.HasField("extra") else None,
        address=address,
        version=version,
    )


def exit_events(id: str, exit: Exit) -> Mapping[str, Payload]:
    """Return, by topic and in order, the events of a task whose shim cannot send them any more."""
    at = timestamp(exit.at)
    ended = events_pb.TaskExit(container_id=id, id=id, pid=exit.pid, exit_status=exit.status, exited_at=at)
    deleted = events_pb.TaskDelete(container_id=id, pid=exit.pid, exit_status=exit.status, exited_at=at)
    return {
        "/tasks/exit": Payload("containerd.events.TaskExit", ended.SerializeToString()),
        "/tasks/delete": Payload("containerd.events.TaskDelete", deleted.SerializeToString()),
    }
