"""Requests that a CRI client should not send: for each of the 43 RPCs, what is missing, unknown, wrong or too long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import grpc
from google.protobuf.message import Message

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_api.runtime.v1.api_pb2 import DESCRIPTOR

LONG = "x" * 100_000
CONTROL = "a\nb\x1b\x7f"
OPTIONS = "linux.security_context.namespace_options"
STRANGE = {"unknown": "f" * 64, "short": "zz", "long": LONG, "control": CONTROL}
"""IDs that nothing has."""
IDS = {
    "StopPodSandbox": "pod_sandbox_id",
    "RemovePodSandbox": "pod_sandbox_id",
    "PodSandboxStatus": "pod_sandbox_id",
    "PodSandboxStats": "pod_sandbox_id",
    "PortForward": "pod_sandbox_id",
    "UpdatePodSandboxResources": "pod_sandbox_id",
    "StartContainer": "container_id",
    "StopContainer": "container_id",
    "RemoveContainer": "container_id",
    "ContainerStatus": "container_id",
    "ContainerStats": "container_id",
    "UpdateContainerResources": "container_id",
    "ReopenContainerLog": "container_id",
    "ExecSync": "container_id",
    "Exec": "container_id",
    "Attach": "container_id",
    "CheckpointContainer": "container_id",
    "CheckpointPod": "pod_sandbox_id",
}
ENDLESS = {"GetContainerEvents"}


@dataclass(frozen=True)
class Stage:
    """What is there when bad requests are sent."""

    pod: str
    container: str
    """Runs."""
    image: str
    call: Callable[[str, Message], tuple[grpc.StatusCode, str]]
    """Calls an RPC by its name."""


@dataclass(frozen=True)
class Case:
    """One request, and the name of what is wrong with it."""

    rpc: str
    name: str
    request: Message


def rpcs() -> dict[str, Callable[..., Message]]:
    """Return the request's class of each RPC of both services."""
    services = DESCRIPTOR.services_by_name
    return {
        method.name: getattr(cri, method.input_type.name)
        for name in ("RuntimeService", "ImageService")
        for method in services[name].methods
    }


def cases(stage: Stage) -> Iterator[Case]:
    """Yield all bad requests."""
    for rpc, request in rpcs().items():
        if rpc not in ENDLESS:
            yield Case(rpc, "empty", request())
        for name, id in STRANGE.items() if rpc in IDS else ():
            made = request(**{IDS[rpc]: id})
            if isinstance(made, (cri.ExecRequest, cri.AttachRequest)):
                made.stdout = True
            if isinstance(made, (cri.ExecSyncRequest, cri.ExecRequest)):
                made.cmd.append("true")
            yield Case(rpc, f"id {name}", made)
    yield from _pods()
    yield from _containers(stage)
    yield from _streams(stage)
    yield from _images(stage)
    yield from _filters()


def pod_config(name: str) -> cri.PodSandboxConfig:
    """Return the configuration of a pod in the host's network, which needs least."""
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name=name, namespace="n", uid=name))
    config.linux.cgroup_parent = "/bad-requests"
    config.linux.security_context.namespace_options.network = cri.NODE
    return config


def _pods() -> Iterator[Case]:
    def changed(name: str, change: Callable[[cri.PodSandboxConfig], object], handler: str = "") -> Case:
        config = pod_config(f"bad-{name.replace(' ', '-')}")
        change(config)
        return Case("RunPodSandbox", name, cri.RunPodSandboxRequest(config=config, runtime_handler=handler))

    yield changed("no metadata", lambda config: config.ClearField("metadata"))
    yield changed("long name", lambda config: setattr(config.metadata, "name", LONG))
    yield changed("control name", lambda config: setattr(config.metadata, "name", CONTROL))
    yield changed("long label", lambda config: config.labels.update({"key": LONG}))
    yield changed("parent outside", lambda config: setattr(config.linux, "cgroup_parent", "/../../bad-requests"))
    yield changed("relative log directory", lambda config: setattr(config, "log_directory", "logs"))
    for name in ("network", "pid", "ipc"):
        yield changed(f"{name} of no kind", partial(_set, path=f"{OPTIONS}.{name}", value=99))
    yield changed("protocol of no kind", lambda config: config.port_mappings.add(protocol=99, host_port=-1))
    yield changed("unknown handler", lambda config: None, handler="nope")
    yield changed("long handler", lambda config: None, handler=LONG)
    yield changed("control handler", lambda config: None, handler=CONTROL)
    yield changed("hostname of the host's network", lambda config: setattr(config, "hostname", "h"))
    yield changed(
        "untrusted in the host's network",
        lambda config: config.annotations.update({"io.kubernetes.cri.untrusted-workload": "true"}),
    )
    yield Case("RestorePod", "no metadata", cri.RestorePodRequest(config=cri.PodSandboxConfig()))
    for name, path in {"no path": "", "relative": "x.tar", "absent": "/absent/x.tar", "long": f"/{LONG}"}.items():
        yield Case("RestorePod", name, cri.RestorePodRequest(config=pod_config("r"), checkpoint_path=path))
    for name, cidr in {"no address": "x", "long": LONG, "control": CONTROL}.items():
        config = cri.RuntimeConfig(network_config=cri.NetworkConfig(pod_cidr=cidr))
        yield Case("UpdateRuntimeConfig", name, cri.UpdateRuntimeConfigRequest(runtime_config=config))


def _containers(stage: Stage) -> Iterator[Case]:
    def changed(name: str, change: Callable[[cri.ContainerConfig], object], pod: str = stage.pod) -> Case:
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=f"bad-{name.replace(' ', '-')}"),
            image=cri.ImageSpec(image=stage.image),
            command=["/bin/sleep", "1"],
        )
        config.linux.security_context.namespace_options.pid = cri.CONTAINER
        change(config)
        request = cri.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=pod_config("x"))
        return Case("CreateContainer", name, request)

    yield changed("no metadata", lambda config: config.ClearField("metadata"))
    for name, id in {"no": "", **STRANGE}.items():
        yield changed(f"{name} pod", lambda config: None, id)
    for name, image in {"no": "", "unknown": "nope:1", "malformed": "UP//:x", "control": CONTROL, "long": LONG}.items():
        yield changed(f"{name} image", partial(_set, path="image.image", value=image))
    yield changed("stop signal", lambda config: setattr(config, "stop_signal", 9999))
    yield changed("long name", lambda config: setattr(config.metadata, "name", LONG))
    yield changed("control name", lambda config: setattr(config.metadata, "name", CONTROL))
    yield changed("log outside", lambda config: setattr(config, "log_path", "../../x"))
    yield changed("target of nothing", lambda config: _set(config, f"{OPTIONS}.pid", cri.TARGET))
    yield changed("pid of no kind", lambda config: _set(config, f"{OPTIONS}.pid", 99))
    yield changed(
        "propagation of no kind",
        lambda config: config.mounts.add(host_path="/tmp", container_path="/x", propagation=99),
    )
    yield changed("group without user", lambda config: config.linux.security_context.run_as_group.SetInParent())
    yield changed("unknown user", lambda config: _set(config, "linux.security_context.run_as_username", "nobody-here"))
    yield changed("seccomp", lambda config: _set(config, "linux.security_context.seccomp.localhost_ref", "rel.json"))
    yield changed("device", lambda config: config.devices.add(host_path="/dev/nope", container_path="/dev/x"))
    yield changed("mount of nothing", lambda config: config.mounts.add(container_path="/x"))
    yield changed(
        "recursive without readonly",
        lambda config: config.mounts.add(host_path="/tmp", container_path="/x", recursive_read_only=True),
    )
    yield Case("StartContainer", "twice", cri.StartContainerRequest(container_id=stage.container))
    yield Case("ReopenContainerLog", "no log", cri.ReopenContainerLogRequest(container_id=stage.container))


def _set(message: Message, path: str, value: object) -> None:
    *outer, last = path.split(".")
    for name in outer:
        message = getattr(message, name)
        message.SetInParent()
    if last == "localhost_ref":
        message.profile_type = cri.SecurityProfile.Localhost  # type: ignore[attr-defined] # only it has such a reference
    setattr(message, last, value)


def _streams(stage: Stage) -> Iterator[Case]:
    id = stage.container
    yield Case("ExecSync", "no command", cri.ExecSyncRequest(container_id=id))
    yield Case("ExecSync", "unknown program", cri.ExecSyncRequest(container_id=id, cmd=["/nope"], timeout=10))
    yield Case("ExecSync", "too slow", cri.ExecSyncRequest(container_id=id, cmd=["/bin/sleep", "60"], timeout=1))
    yield Case("Exec", "no streams", cri.ExecRequest(container_id=id, cmd=["true"]))
    yield Case("Exec", "tty with stderr", cri.ExecRequest(container_id=id, cmd=["true"], tty=True, stderr=True))
    yield Case("Attach", "no streams", cri.AttachRequest(container_id=id))
    yield Case("Attach", "tty with stderr", cri.AttachRequest(container_id=id, tty=True, stderr=True))


def _images(stage: Stage) -> Iterator[Case]:
    strange = {
        "malformed": "UPPER:1",
        "scheme": "http://x/y",
        "control": CONTROL,
        "long": LONG,
        "digest": "sha256:abcd",
    }
    for name, text in strange.items():
        image = cri.ImageSpec(image=text)
        yield Case("ImageStatus", name, cri.ImageStatusRequest(image=image))
        yield Case("RemoveImage", name, cri.RemoveImageRequest(image=image))
        if name != "digest":
            yield Case("PullImage", name, cri.PullImageRequest(image=image))


def _filters() -> Iterator[Case]:
    for name, id in STRANGE.items():
        for rpc, request, kind in (
            ("ListPodSandbox", cri.ListPodSandboxRequest, cri.PodSandboxFilter),
            ("StreamPodSandboxes", cri.StreamPodSandboxesRequest, cri.PodSandboxFilter),
            ("ListContainers", cri.ListContainersRequest, cri.ContainerFilter),
            ("StreamContainers", cri.StreamContainersRequest, cri.ContainerFilter),
            ("ListContainerStats", cri.ListContainerStatsRequest, cri.ContainerStatsFilter),
            ("StreamContainerStats", cri.StreamContainerStatsRequest, cri.ContainerStatsFilter),
            ("ListPodSandboxStats", cri.ListPodSandboxStatsRequest, cri.PodSandboxStatsFilter),
            ("StreamPodSandboxStats", cri.StreamPodSandboxStatsRequest, cri.PodSandboxStatsFilter),
        ):
            made: Message = request()
            getattr(made, "filter").CopyFrom(kind(id=id))  # noqa: B009 - each request has a filter of its own kind
            yield Case(rpc, f"filter {name}", made)
    pods, containers = cri.ListPodSandboxRequest(), cri.ListContainersRequest()
    _set(pods, "filter.state.state", 99)
    _set(containers, "filter.state.state", 99)
    yield Case("ListPodSandbox", "state", pods)
    yield Case("ListContainers", "state", containers)


def caller(channel: grpc.Channel) -> Callable[[str, Message], tuple[grpc.StatusCode, str]]:
    """Return a function that calls RPCs by their names over a channel."""
    methods = {
        method.name: (f"/runtime.v1.{service}/{method.name}", method.server_streaming, method.output_type.name)
        for service in ("RuntimeService", "ImageService")
        for method in DESCRIPTOR.services_by_name[service].methods
    }

    def call(rpc: str, request: Message) -> tuple[grpc.StatusCode, str]:
        path, streams, answer = methods[rpc]
        make = channel.unary_stream if streams else channel.unary_unary
        method = make(
            path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(cri, answer).FromString,
        )
        try:
            answered = method(request, timeout=60)
            if streams:
                list(answered)
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""

    return call
