"""The index of services: which family a service belongs to, and what its methods look like.

Nothing is imported until a family or a service is asked for, and grpc never is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Literal

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

Family = Literal["containerd", "health", "cri", "ttrpc", "shim", "nri"]

FAMILIES: Mapping[Family, tuple[str, ...]] = MappingProxyType(
    {
        # The daemon's gRPC socket.
        "containerd": (
            "windlass_api.containerd.services.containers.v1.containers_pb2",
            "windlass_api.containerd.services.content.v1.content_pb2",
            "windlass_api.containerd.services.diff.v1.diff_pb2",
            "windlass_api.containerd.services.events.v1.events_pb2",
            "windlass_api.containerd.services.images.v1.images_pb2",
            "windlass_api.containerd.services.introspection.v1.introspection_pb2",
            "windlass_api.containerd.services.leases.v1.leases_pb2",
            "windlass_api.containerd.services.mounts.v1.mounts_pb2",
            "windlass_api.containerd.services.namespaces.v1.namespaces_pb2",
            "windlass_api.containerd.services.sandbox.v1.sandbox_pb2",
            "windlass_api.containerd.services.snapshots.v1.snapshots_pb2",
            "windlass_api.containerd.services.streaming.v1.streaming_pb2",
            "windlass_api.containerd.services.tasks.v1.tasks_pb2",
            "windlass_api.containerd.services.transfer.v1.transfer_pb2",
            "windlass_api.containerd.services.version.v1.version_pb2",
        ),
        "health": ("windlass_api.grpc.health.v1.health_pb2",),
        "cri": ("windlass_api.runtime.v1.api_pb2",),
        # The daemon's ttrpc socket.
        "ttrpc": ("windlass_api.containerd.services.events.ttrpc.v1.events_pb2",),
        # What shims serve, over ttrpc or gRPC.
        "shim": (
            "windlass_api.containerd.task.v2.shim_pb2",
            "windlass_api.containerd.task.v3.shim_pb2",
            "windlass_api.containerd.runtime.sandbox.v1.sandbox_pb2",
        ),
        # Both ends of a plugin's connection, over ttrpc.
        "nri": ("windlass_api.nri.pkg.api.v1alpha1.api_pb2",),
    }
)


@dataclass(frozen=True)
class Method:
    """One method, with all that a generic handler or caller needs."""

    name: str
    path: str  # as gRPC sends it: /containerd.services.tasks.v1.Tasks/Create
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool


@dataclass(frozen=True)
class Service:
    """One service under its full name, methods in the order of the .proto file."""

    name: str
    methods: tuple[Method, ...]


def services(family: Family) -> tuple[Service, ...]:
    """Return the services of a family, importing its modules."""
    return tuple(
        _describe(descriptor) for module in FAMILIES[family] for descriptor in _file(module).services_by_name.values()
    )


def service(name: str) -> Service:
    """Return a service by its full name, importing its module alone; `KeyError` if it is in no family."""
    package, _, short = name.rpartition(".")
    for modules in FAMILIES.values():
        for module in modules:
            # Folders follow proto packages, so the module's name tells the package.
            if module.rpartition(".")[0] == f"windlass_api.{package}":
                return _describe(_file(module).services_by_name[short])
    raise KeyError(name)


def _file(module: str) -> FileDescriptor:
    descriptor: FileDescriptor = import_module(module).DESCRIPTOR
    return descriptor


def _describe(descriptor: ServiceDescriptor) -> Service:
    return Service(
        descriptor.full_name,
        tuple(
            Method(
                name=method.name,
                path=f"/{descriptor.full_name}/{method.name}",
                request=GetMessageClass(method.input_type),
                response=GetMessageClass(method.output_type),
                client_streaming=method.client_streaming,
                server_streaming=method.server_streaming,
            )
            for method in descriptor.methods
        ),
    )
