"""CRI's pods and containers: containerd's records of them, made into those of Windlass (docs/containerd 5.6).

containerd 1.6 keeps a pod's record with its pause container, newer versions with a sandbox. Both are JSON as Go writes
it: the names of Go's fields, and within `Config` those of the protocol.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from windlass.contracts.containers import Container
from windlass.contracts.sandboxes import Sandbox
from windlass.contracts.values import Payload
from windlass.errors import DataLoss
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri import record
from windlass_metadata.restoring import Contents

if TYPE_CHECKING:
    from google._upb import _message as fast
    from google.protobuf import descriptor as slow

    Descriptor: TypeAlias = slow.Descriptor | fast.Descriptor
    Field: TypeAlias = slow.FieldDescriptor | fast.FieldDescriptor

POD = "io.cri-containerd.sandbox.metadata"
CONTAINER = "io.cri-containerd.container.metadata"
VERSION = "v1"
PAUSE_CONTAINERS = "podsandbox"
LARGEST = 16 << 20
STATUS = {
    "CreatedAt": "created_at",
    "StartedAt": "started_at",
    "FinishedAt": "finished_at",
    "ExitCode": "exit_code",
    "Reason": "reason",
    "Message": "message",
}

# Any: JSON as parsed.
Fields: TypeAlias = dict[str, Any]
M = TypeVar("M", bound=Message)


def convert(contents: Contents) -> list[str]:
    """Add to the records of a namespace what Windlass's CRI keeps in them, and return what cannot be understood."""
    left: list[str] = []
    sandboxes = {each.id: each for each in contents.sandboxes}
    for number, container in enumerate(contents.containers):
        kind = container.labels.get(record.KIND)
        try:
            if kind == "sandbox":
                sandboxes[container.id] = _sandbox(container, sandboxes.get(container.id))
            elif kind == "container" and CONTAINER in container.extensions:
                contents.containers[number] = _container(container)
        except DataLoss as error:
            left.append(str(error))
    for id, sandbox in sandboxes.items():
        if POD in sandbox.extensions and record.POD_DATA not in sandbox.extensions:
            try:
                sandboxes[id] = _pod(sandbox, sandbox)
            except DataLoss as error:
                left.append(str(error))
    contents.sandboxes = list(sandboxes.values())
    return left


def status(path: Path) -> record.Status:
    """Return a container's status as containerd wrote it into a file; one that is damaged says nothing."""
    try:
        with path.open("rb") as file:
            found = dict(json.loads(file.read(LARGEST)))
        known = {field: found[name] for name, field in STATUS.items() if found.get(name)}
        if found["Version"] != VERSION or any(type(value) not in (int, str) for value in known.values()):
            return record.Status(unknown=True)
        return record.Status(**known)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return record.Status(unknown=True)


def _sandbox(pause: Container, sandbox: Sandbox | None) -> Sandbox:
    """Return the record of a pod whose pause container is there."""
    if sandbox is not None and POD in sandbox.extensions:
        return _pod(sandbox, sandbox)
    if POD not in pause.extensions:
        raise DataLoss(f"pod {pause.id}: its record is missing")
    empty = Sandbox(pause.id, created_at=pause.created_at, updated_at=pause.updated_at)
    made = replace(sandbox or empty, runtime=pause.runtime, runtime_options=pause.runtime_options)
    return _pod(made, pause)


def _pod(sandbox: Sandbox, holder: Sandbox | Container) -> Sandbox:
    """Return a sandbox with what CRI keeps of a pod, taken from the record that has it."""
    known = _metadata(f"pod {sandbox.id}", holder.extensions[POD])
    config = _message(f"pod {sandbox.id}", known, cri.PodSandboxConfig())
    others = known.get("AdditionalIPs")
    addresses = [known.get("IP"), *(others if isinstance(others, list) else ())]
    sandboxer = sandbox.sandboxer or PAUSE_CONTAINERS
    data = record.PodData(
        name=_text(known, "Name"),
        handler=_text(known, "RuntimeHandler"),
        netns=_text(known, "NetNSPath"),
        addresses=tuple(str(each) for each in addresses if each),
        created_at=sandbox.created_at,
        sandboxer=sandboxer,
        process_label=_text(known, "ProcessLabel"),
    )
    made = record.Pod(sandbox.id, config, data).to_sandbox(sandbox.runtime, sandboxer, sandbox.runtime_options)
    return replace(
        sandbox,
        sandboxer=sandboxer,
        labels={**sandbox.labels, **made.labels},
        extensions={**sandbox.extensions, **made.extensions},
    )


def _container(container: Container) -> Container:
    known = _metadata(f"container {container.id}", container.extensions[CONTAINER])
    data = record.ContainerData(
        name=_text(known, "Name"),
        pod=_text(known, "SandboxID"),
        log=_text(known, "LogPath"),
        image_id=_text(known, "ImageRef"),
        stop_signal=_text(known, "StopSignal"),
    )
    config = _message(f"container {container.id}", known, cri.ContainerConfig())
    made = record.Container(container.id, config, data, Path(), record.Status())
    return replace(container, extensions={**container.extensions, **made.extensions()})


def _metadata(what: str, payload: Payload) -> Mapping[str, object]:
    try:
        if len(payload.value) > LARGEST:
            raise ValueError("it is too long")
        document: Fields = json.loads(payload.value)
        if document["Version"] != VERSION:
            raise DataLoss(f"{what}: its record has version {document['Version']!r:.32}, known is {VERSION}")
        found: Fields = document["Metadata"]
        return dict(found)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataLoss(f"{what}: its record is damaged: {error}") from None


def _message(what: str, known: Mapping[str, object], into: M) -> M:
    """Return the configuration that a client sent."""
    config = known.get("Config")
    if not isinstance(config, dict):
        raise DataLoss(f"{what}: its record has no configuration")
    try:
        return json_format.ParseDict(_fields(config, into.DESCRIPTOR), into, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError) as error:  # ValueError for half a surrogate pair
        raise DataLoss(f"{what}: its configuration is not understood: {error}") from None


def _fields(message: Fields, descriptor: Descriptor) -> Fields:
    """Return a message in JSON, with strings that our protocol has as bytes written as `json_format` reads bytes."""
    known = descriptor.fields_by_name
    return {name: _encoded(value, known[name]) for name, value in message.items() if name in known}


def _encoded(value: object, field: Field) -> object:
    if isinstance(value, list):
        return [_encoded(each, field) for each in value]
    if isinstance(value, str) and field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value.encode()).decode()
    inner = field.message_type
    if isinstance(value, dict) and inner is not None and not inner.GetOptions().map_entry:
        return _fields(value, inner)
    return value


def _text(known: Mapping[str, object], key: str) -> str:
    value = known.get(key)
    return value if isinstance(value, str) else ""
