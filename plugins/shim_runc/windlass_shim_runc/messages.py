"""The protobuf messages that a shim speaks, with a codec of 60 lines.

protobuf's runtime is several megabytes, more than all the rest of a shim. A
message is a class whose attributes are its fields in the order of their
numbers; each default says the type, and a tuple shows one of its elements.
Names and numbers are those of wire/containerd.json and wire/options.json.
"""

from __future__ import annotations

import struct

from windlass.errors import InvalidArgument
from windlass_api.ttrpc.framing import (
    BYTES,
    FIXED64,
    VARINT,
    Malformed,
    as_bytes,
    blob,
    fields,
    number,
    prefixed,
    string,
    tag,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar, TypeVar

    M = TypeVar("M", bound="Message")

Value = object
DOUBLE = struct.Struct("<d")


class Message:
    """A message; fields that were not given have their type's zero."""

    _fields: ClassVar[dict[int, tuple[str, Value]]] = {}
    _name = ""

    def __init_subclass__(cls, name: str = "", skip: Sequence[int] = ()) -> None:
        """Number the fields; ``name`` is the full protobuf name where one is needed, ``skip`` lists unused numbers."""
        cls._name, cls._fields, at = name, {}, 0
        for key, example in list(vars(cls).items()):
            if key.startswith("_") or callable(example) or isinstance(example, (property, staticmethod, classmethod)):
                continue
            at += 1
            while at in skip:
                at += 1
            cls._fields[at] = (key, example)
            if isinstance(example, tuple):
                setattr(cls, key, ())

    def __init__(self, **values: Value) -> None:
        vars(self).update(values)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.encode() == self.encode()

    __hash__ = None  # type: ignore[assignment] # messages are mutable

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"

    def encode(self) -> bytes:
        """Return the message on the wire."""
        out = bytearray()
        for at, (key, example) in self._fields.items():
            value = getattr(self, key)
            if isinstance(example, tuple):
                for item in value:
                    # An element is written even when it is zero.
                    out += _encode_field(at, item) or tag(at, VARINT if isinstance(item, int) else BYTES) + b"\0"
            else:
                out += _encode_field(at, value)
        return bytes(out)


def _encode_field(at: int, value: Value) -> bytes:
    if isinstance(value, int):
        return number(at, int(value))
    if isinstance(value, str):
        return string(at, value)
    if isinstance(value, bytes):
        return blob(at, value)
    if isinstance(value, float):
        return tag(at, FIXED64) + DOUBLE.pack(value) if value else b""
    assert isinstance(value, Message)
    return blob(at, value.encode())


def decode(kind: type[M], data: bytes) -> M:
    """Parse a message, skipping unknown fields; raises Malformed, InvalidArgument for zero bytes in texts."""
    message = kind()
    values = vars(message)
    lists: dict[str, list[Value]] = {}
    for at, wire_type, raw in fields(data):
        if at not in kind._fields:
            continue
        key, example = kind._fields[at]
        if isinstance(example, tuple):
            lists.setdefault(key, []).append(_decode_field(key, wire_type, raw, example[0]))
        else:
            values[key] = _decode_field(key, wire_type, raw, example)
    for key, elements in lists.items():
        values[key] = tuple(elements)
    return message


def _decode_field(key: str, wire_type: int, raw: int | bytes, example: Value) -> Value:
    expected = VARINT if isinstance(example, int) else FIXED64 if isinstance(example, float) else BYTES
    if wire_type != expected:
        raise Malformed(f"field {key} has wire type {wire_type}, not {expected}")
    if isinstance(example, bool):
        return bool(raw)
    if isinstance(raw, int):
        return raw
    if isinstance(example, str):
        if b"\0" in raw:
            # Strings become paths and arguments, which end there.
            raise InvalidArgument(f"field {key} has a zero byte")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"field {key} is not UTF-8") from error
    if isinstance(example, Message):
        return decode(type(example), raw)
    if isinstance(example, float):
        return float(DOUBLE.unpack(as_bytes(raw))[0])
    return raw


class Timestamp(Message):
    """google.protobuf.Timestamp."""

    seconds = 0
    nanos = 0


def timestamp(nanoseconds: int) -> Timestamp:
    """Return nanoseconds since the epoch as the wire has them; 0 is "not set"."""
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


class AnyMessage(Message):
    """google.protobuf.Any."""

    type_url = ""
    value = b""


def pack(message: Message) -> AnyMessage:
    """Return a message in an Any, under its bare name."""
    return AnyMessage(type_url=message._name, value=message.encode())


class Mount(Message):
    """containerd.types.Mount."""

    type = ""
    source = ""
    target = ""
    options: tuple[str, ...] = ("",)


class CreateTaskRequest(Message):
    """containerd.task.v3.CreateTaskRequest."""

    id = ""
    bundle = ""
    rootfs: tuple[Mount, ...] = (Mount(),)
    terminal = False
    stdin = ""
    stdout = ""
    stderr = ""
    checkpoint = ""
    parent_checkpoint = ""
    options = AnyMessage()


class ProcessRequest(Message):
    """Start, Delete, State and Wait: a process, by task and exec."""

    id = ""
    exec_id = ""


class TaskRequest(Message):
    """Pause, Resume, Pids, Stats and Connect: a task."""

    id = ""


class PidResponse(Message):
    """Create and Start."""

    pid = 0


class DeleteResponse(Message):
    """containerd.task.v3.DeleteResponse."""

    pid = 0
    exit_status = 0
    exited_at = Timestamp()


class ExecProcessRequest(Message):
    """containerd.task.v3.ExecProcessRequest."""

    id = ""
    exec_id = ""
    terminal = False
    stdin = ""
    stdout = ""
    stderr = ""
    spec = AnyMessage()


class ResizePtyRequest(Message):
    """containerd.task.v3.ResizePtyRequest."""

    id = ""
    exec_id = ""
    width = 0
    height = 0


class StateResponse(Message):
    """containerd.task.v3.StateResponse."""

    id = ""
    bundle = ""
    pid = 0
    status = 0
    stdin = ""
    stdout = ""
    stderr = ""
    terminal = False
    exit_status = 0
    exited_at = Timestamp()
    exec_id = ""


class KillRequest(Message):
    """containerd.task.v3.KillRequest."""

    id = ""
    exec_id = ""
    signal = 0
    all = False


class CloseIORequest(Message):
    """containerd.task.v3.CloseIORequest."""

    id = ""
    exec_id = ""
    stdin = False


class ProcessInfo(Message):
    """containerd.v1.types.ProcessInfo."""

    pid = 0
    info = AnyMessage()


class PidsResponse(Message):
    """containerd.task.v3.PidsResponse."""

    processes: tuple[ProcessInfo, ...] = (ProcessInfo(),)


class KeyValue(Message):
    """An entry of a map, and ttrpc.KeyValue."""

    key = ""
    value = ""


class UpdateTaskRequest(Message):
    """containerd.task.v3.UpdateTaskRequest."""

    id = ""
    resources = AnyMessage()
    annotations: tuple[KeyValue, ...] = (KeyValue(),)


class WaitResponse(Message):
    """containerd.task.v3.WaitResponse."""

    exit_status = 0
    exited_at = Timestamp()


class StatsResponse(Message):
    """containerd.task.v3.StatsResponse."""

    stats = AnyMessage()


class ConnectResponse(Message):
    """containerd.task.v3.ConnectResponse."""

    shim_pid = 0
    task_pid = 0
    version = ""


class CheckpointTaskRequest(Message):
    """containerd.task.v3.CheckpointTaskRequest."""

    id = ""
    path = ""
    options = AnyMessage()


class ShutdownRequest(Message):
    """containerd.task.v3.ShutdownRequest."""

    id = ""
    now = False


class Options(Message, name="containerd.runc.v1.Options"):
    """How to run runc; `reference/containerd.md` 4.8 says what each is for."""

    no_pivot_root = False
    no_new_keyring = False
    shim_cgroup = ""
    io_uid = 0
    io_gid = 0
    binary_name = ""
    root = ""
    criu_path = ""
    """From clients of containerd before 2.0, which reserves the number."""
    systemd_cgroup = False
    criu_image_path = ""
    criu_work_path = ""
    task_api_address = ""
    task_api_version = 0


class CheckpointOptions(Message, name="containerd.runc.v1.CheckpointOptions"):
    """How to make a checkpoint."""

    exit = False
    open_tcp = False
    external_unix_sockets = False
    terminal = False
    file_locks = False
    empty_namespaces: tuple[str, ...] = ("",)
    cgroups_mode = ""
    image_path = ""
    work_path = ""
    parent_path = ""


class ProcessDetails(Message, name="containerd.runc.v1.ProcessDetails"):
    """Which exec a pid belongs to."""

    exec_id = ""


class TaskIO(Message):
    """containerd.events.TaskIO."""

    stdin = ""
    stdout = ""
    stderr = ""
    terminal = False


class TaskCreate(Message, name="containerd.events.TaskCreate"):
    """Topic /tasks/create."""

    container_id = ""
    bundle = ""
    rootfs: tuple[Mount, ...] = (Mount(),)
    io = TaskIO()
    checkpoint = ""
    pid = 0


class TaskStart(Message, name="containerd.events.TaskStart"):
    """Topic /tasks/start."""

    container_id = ""
    pid = 0


class TaskExit(Message, name="containerd.events.TaskExit"):
    """Topic /tasks/exit."""

    container_id = ""
    id = ""
    pid = 0
    exit_status = 0
    exited_at = Timestamp()


class TaskDelete(Message, name="containerd.events.TaskDelete"):
    """Topic /tasks/delete."""

    container_id = ""
    pid = 0
    exit_status = 0
    exited_at = Timestamp()
    id = ""


class TaskExecAdded(Message, name="containerd.events.TaskExecAdded"):
    """Topic /tasks/exec-added."""

    container_id = ""
    exec_id = ""


class TaskExecStarted(Message, name="containerd.events.TaskExecStarted"):
    """Topic /tasks/exec-started."""

    container_id = ""
    exec_id = ""
    pid = 0


class TaskOOM(Message, name="containerd.events.TaskOOM"):
    """Topic /tasks/oom."""

    container_id = ""


class TaskPaused(Message, name="containerd.events.TaskPaused"):
    """Topic /tasks/paused."""

    container_id = ""


class TaskResumed(Message, name="containerd.events.TaskResumed"):
    """Topic /tasks/resumed."""

    container_id = ""


class TaskCheckpointed(Message, name="containerd.events.TaskCheckpointed"):
    """Topic /tasks/checkpointed."""

    container_id = ""
    checkpoint = ""


class Envelope(Message):
    """containerd.types.Envelope."""

    timestamp = Timestamp()
    namespace = ""
    topic = ""
    event = AnyMessage()


class ForwardRequest(Message):
    """containerd.services.events.ttrpc.v1.ForwardRequest."""

    envelope = Envelope()


def repeated(at: int, messages: Sequence[bytes]) -> bytes:
    """Encode messages that are encoded already as elements of field ``at``."""
    return b"".join(tag(at, BYTES) + prefixed(message) for message in messages)
