"""What clients are told of a plugin, and of a runtime: `ctr plugins inspect-runtime` of 2.x asks so."""

from __future__ import annotations

import json
import shutil
from typing import Any

import grpc
import pytest
from compat.machines import Machine

from windlass_api.containerd.services.introspection.v1 import introspection_pb2 as pb
from windlass_api.containerd.services.introspection.v1 import introspection_pb2_grpc as stubs
from windlass_api.containerd.types.introspection_pb2 import RuntimeInfo, RuntimeRequest

TASKS: dict[str, Any] = {"type": "io.containerd.runtime.v2", "id": "task"}


# Any, here and below: fields of the two messages
def ask(machine: Machine, own: bytes | dict[str, Any] | None = None, **fields: str) -> pb.PluginInfoResponse:
    """Ask for a plugin, with a request of its own if there is one."""
    request = pb.PluginInfoRequest(type=fields.get("type", ""), id=fields.get("id", ""))
    if own is not None:
        request.options.type_url = "types.containerd.io/containerd.types.RuntimeRequest"
        request.options.value = own if isinstance(own, bytes) else RuntimeRequest(**own).SerializeToString()
    with grpc.insecure_channel(f"unix:{machine.address}") as channel:
        metadata = (("containerd-namespace", machine.namespace),)
        return stubs.IntrospectionStub(channel).PluginInfo(request, metadata=metadata, timeout=20)


def refused(machine: Machine, **fields: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        ask(machine, **fields)
    return caught.value.code(), caught.value.details() or ""


def test_a_plugin_is_described(windlass: Machine) -> None:
    """By its record."""
    assert ask(windlass, **TASKS).plugin.id == "task"
    code, told = refused(windlass, type="io.containerd.nope.v1", id="x")
    assert code == grpc.StatusCode.NOT_FOUND and "io.containerd.nope.v1.x" in told


def test_a_runtime_says_what_it_can_do(windlass: Machine) -> None:
    """With what runc says of itself."""
    answer = ask(windlass, **TASKS, own={"runtime_path": "io.containerd.runc.v2"})
    assert answer.extra.type_url.endswith("containerd.types.RuntimeInfo")
    found = RuntimeInfo.FromString(answer.extra.value)
    assert found.name == "io.containerd.runc.v2"
    assert "mountOptions" in json.loads(found.features.value)


def test_what_does_not_say_is_told(windlass: Machine) -> None:
    """An unknown runtime, a shim that is too old, another plugin, and nonsense."""
    code, told = refused(windlass, **TASKS, own={"runtime_path": "io.containerd.nope.v1"})
    assert code == grpc.StatusCode.UNKNOWN and '"containerd-shim-nope-v1" is not installed' in told
    code, told = refused(windlass, **TASKS, own={"runtime_path": shutil.which("containerd-shim-runc-v2") or ""})
    assert code == grpc.StatusCode.UNKNOWN and "-info ended with" in told
    code, _ = refused(windlass, type="io.containerd.metadata.v1", id="bolt", own={"runtime_path": "x"})
    assert code == grpc.StatusCode.UNIMPLEMENTED
    code, _ = refused(windlass, **TASKS, own=b"\xff\xff")
    assert code == grpc.StatusCode.INVALID_ARGUMENT
