"""Sandboxes' records as messages."""

from __future__ import annotations

from windlass.contracts.sandboxes import Sandbox
from windlass_api.containerd.types import sandbox_pb2 as types_pb
from windlass_remote.messages import any_of, from_any, payloads, to_any, to_timestamp


def to_record(sandbox: Sandbox) -> types_pb.Sandbox:
    """Return a sandbox's record as a message."""
    message = types_pb.Sandbox(
        sandbox_id=sandbox.id,
        runtime=types_pb.Sandbox.Runtime(name=sandbox.runtime, options=to_any(sandbox.runtime_options)),
        spec=to_any(sandbox.spec),
        labels=sandbox.labels,
        created_at=to_timestamp(sandbox.created_at),
        updated_at=to_timestamp(sandbox.updated_at),
        sandboxer=sandbox.sandboxer,
    )
    for key, payload in sandbox.extensions.items():
        message.extensions[key].CopyFrom(any_of(payload))
    return message


def from_record(message: types_pb.Sandbox) -> Sandbox:
    """Return a sandbox's record; its times are ours to set."""
    return Sandbox(
        id=message.sandbox_id,
        runtime=message.runtime.name,
        runtime_options=from_any(message.runtime.options),
        spec=from_any(message.spec),
        labels=dict(message.labels),
        extensions=payloads(message.extensions),
        sandboxer=message.sandboxer,
    )
