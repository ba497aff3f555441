"""The small codec agrees with protobuf about every message that the shim speaks."""

from __future__ import annotations

import pytest

from windlass_api.containerd.task.v3 import shim_pb2
from windlass_api.ttrpc.framing import Malformed
from windlass_shim_runc import messages
from windlass_shim_runc.messages import Message, decode


def kinds() -> list[type[Message]]:
    """Every message class of the module."""
    return [k for k in vars(messages).values() if isinstance(k, type) and issubclass(k, Message) and k is not Message]


def filled(kind: type[Message]) -> Message:
    """A message with something in every field."""
    values: dict[str, object] = {}
    for at, (key, example) in kind._fields.items():
        element = example[0] if isinstance(example, tuple) else example
        value: object
        if isinstance(element, Message):
            value = filled(type(element))
        elif isinstance(element, bool):
            value = True
        elif isinstance(element, int):
            value = 1000 + at
        else:
            value = b"\x00\xff" if isinstance(element, bytes) else f"{key} ü"
        values[key] = (value, value) if isinstance(example, tuple) else value
    return kind(**values)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_a_message_comes_back_as_it_was(kind: type[Message]) -> None:
    """Encoding and decoding loses nothing, and an empty message has no bytes."""
    message = filled(kind)
    assert decode(kind, message.encode()) == message
    assert kind().encode() == b""


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        (messages.CreateTaskRequest, shim_pb2.CreateTaskRequest),
        (messages.ProcessRequest, shim_pb2.WaitRequest),
        (messages.ProcessRequest, shim_pb2.StateRequest),
        (messages.TaskRequest, shim_pb2.PidsRequest),
        (messages.PidResponse, shim_pb2.CreateTaskResponse),
        (messages.DeleteResponse, shim_pb2.DeleteResponse),
        (messages.ExecProcessRequest, shim_pb2.ExecProcessRequest),
        (messages.ResizePtyRequest, shim_pb2.ResizePtyRequest),
        (messages.StateResponse, shim_pb2.StateResponse),
        (messages.KillRequest, shim_pb2.KillRequest),
        (messages.CloseIORequest, shim_pb2.CloseIORequest),
        (messages.PidsResponse, shim_pb2.PidsResponse),
        (messages.WaitResponse, shim_pb2.WaitResponse),
        (messages.StatsResponse, shim_pb2.StatsResponse),
        (messages.ConnectResponse, shim_pb2.ConnectResponse),
        (messages.CheckpointTaskRequest, shim_pb2.CheckpointTaskRequest),
        (messages.ShutdownRequest, shim_pb2.ShutdownRequest),
    ],
)
def test_protobuf_reads_and_writes_the_same(kind: type[Message], theirs: type[shim_pb2.WaitRequest]) -> None:
    """protobuf knows every field by our name, and its own bytes decode to the same message."""
    message = filled(kind)

    parsed = theirs.FromString(message.encode())

    assert {field.name for field, _ in parsed.ListFields()} == {key for key, _ in kind._fields.values()}
    assert decode(kind, parsed.SerializeToString()) == message


REMOVED = {"containerd.runc.v1.Options": (8, "criu_path")}
"""Fields that the wire had before containerd 2.0 and whose numbers it keeps free."""


def test_names_and_numbers_of_events_and_options_are_the_wires() -> None:
    """Every message with a full name has the fields that protobuf's descriptor has."""
    from google.protobuf import descriptor_pool

    from windlass_api.containerd.events import task_pb2
    from windlass_api.containerd.runc.v1 import options_pb2

    assert task_pb2.DESCRIPTOR.name and options_pb2.DESCRIPTOR.name
    pool = descriptor_pool.Default()
    for kind in kinds():
        if kind._name:
            theirs = pool.FindMessageTypeByName(kind._name)
            ours = {(at, key) for at, (key, _) in kind._fields.items()} - {REMOVED.get(kind._name)}
            assert {(f.number, f.name) for f in theirs.fields} == ours


def test_many_elements_take_no_longer_each() -> None:
    """A message of 600 KB with 300,000 empty elements: as tuples that grow they would take minutes."""
    element = b"\x1a\x00"
    found = decode(messages.UpdateTaskRequest, element * 300_000)
    assert len(found.annotations) == 300_000


@pytest.mark.parametrize(
    "data", [b"\x0a\x01\xff", b"\x08\x01", b"\x0a\x7f", b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
)
def test_malformed_messages_are_refused(data: bytes) -> None:
    """Not UTF-8, wrong type, cut off, endless."""
    with pytest.raises(Malformed):
        decode(messages.KillRequest, data)
