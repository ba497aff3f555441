"""What a verbose ContainerStatus says beyond the status (docs/containerd 5.4)."""

from __future__ import annotations

import base64
import json

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from windlass.contracts.containers import Container as Row
from windlass_cri.record import Container
from windlass_oci.payloads import spec_of


def container_info(container: Container, row: Row, pid: int, options: dict[str, object]) -> dict[str, str]:
    """Return the documents by name, as containerd has them."""
    document = {
        "sandboxID": container.data.pod,
        "pid": pid,
        "removing": container.removing,
        "snapshotKey": row.snapshot_key,
        "snapshotter": row.snapshotter,
        "runtimeType": row.runtime,
        "runtimeOptions": options or None,
        "config": plain(container.config),
        "runtimeSpec": spec_of(row),
    }
    return {"info": json.dumps(document)}


def plain(message: Message) -> dict[str, object]:
    """Return a message as Go's encoding/json has it: numbers as numbers, enumerations too, bytes in base64."""
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: FieldDescriptor, value: object) -> object:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        assert hasattr(value, "items")
        return dict(value.items())
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (str, int, float)):
        return value
    return [_value(field, each) for each in value]  # type: ignore[attr-defined] # what is left are repeated fields
