"""Pods and containers as NRI's messages, and limits from CRI to NRI and back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from google.protobuf.message import Message

from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.images.images import Image
from windlass_cri.record import KIND, Container, Pod
from windlass_oci.runtime_spec import Spec

OTHER_NAMES = {
    "kernel_tcp": "kernelTCP",
    "disable_oom_killer": "disableOOMKiller",
    "default_errno": "defaultErrnoRet",
    "clos_id": "closID",
}
"""Fields whose name in an OCI spec is not their own in camel case."""
KINDS = {"net": "network", "ipc": "ipc", "uts": "uts", "pid": "pid"}
STATES = {
    cri.CONTAINER_CREATED: nri.CONTAINER_CREATED,
    cri.CONTAINER_RUNNING: nri.CONTAINER_RUNNING,
    cri.CONTAINER_EXITED: nri.CONTAINER_STOPPED,
}
ANNOTATION = "io.kubernetes.cri."


def pod_message(pod: Pod) -> nri.PodSandbox:
    """Return a pod; it has no spec of its own, so the limits of one are not set."""
    config, metadata = pod.config, pod.config.metadata
    message = nri.PodSandbox(
        id=pod.id,
        name=metadata.name,
        uid=metadata.uid,
        namespace=metadata.namespace,
        labels={**config.labels, KIND: "sandbox"},
        annotations={**config.annotations, **_annotations(pod)},
        runtime_handler=pod.data.handler,
        pid=pod.pid,
        ips=pod.data.addresses,
    )
    linux = message.linux
    linux.cgroup_parent = config.linux.cgroup_parent
    for kind, path in pod.namespaces.items():
        # A pod that has stopped has no network any more.
        if kind != "net" or os.path.exists(path):  # noqa: PTH110
            linux.namespaces.add(type=KINDS.get(kind, kind), path=path)
    if config.linux.HasField("overhead"):
        linux.pod_overhead.CopyFrom(limits(config.linux.overhead))
    if config.linux.HasField("resources"):
        linux.pod_resources.CopyFrom(limits(config.linux.resources))
    return message


def _annotations(pod: Pod) -> dict[str, str]:
    """Return what a sandbox's spec has in containerd (docs/containerd 5.14)."""
    metadata, config = pod.config.metadata, pod.config
    values = {
        "container-type": "sandbox",
        "sandbox-id": pod.id,
        "sandbox-namespace": metadata.namespace,
        "sandbox-uid": metadata.uid,
        "sandbox-name": metadata.name,
        "sandbox-log-directory": config.log_directory,
    }
    if config.linux.HasField("resources"):
        wanted = config.linux.resources
        values["sandbox-cpu-period"] = str(wanted.cpu_period)
        values["sandbox-cpu-quota"] = str(wanted.cpu_quota)
        values["sandbox-cpu-shares"] = str(wanted.cpu_shares)
        values["sandbox-memory"] = str(wanted.memory_limit_in_bytes)
    return {f"{ANNOTATION}{key}": value for key, value in values.items()}


def container_message(container: Container, spec: Spec, image: Image | None, pid: int = 0) -> nri.Container:
    """Return a container, of which ``spec`` says most."""
    config, status = container.config, container.status
    message = nri.Container(
        id=container.id,
        pod_sandbox_id=container.data.pod,
        name=config.metadata.name,
        state=STATES.get(status.state, nri.CONTAINER_UNKNOWN) if status.created_at else nri.CONTAINER_UNKNOWN,
        labels={**config.labels, KIND: "container"},
        annotations={**(spec.get("annotations") or {}), **config.annotations},
        pid=pid,
        created_at=status.created_at,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=status.exit_code,
        status_reason=status.reason,
        status_message=status.message,
        CDI_devices=[nri.CDIDevice(name=each.name) for each in config.CDI_devices],
    )
    process = spec["process"]
    known: dict[str, object] = {"args": process.get("args"), "env": process.get("env"), "user": process.get("user")}
    known |= {"rlimits": process.get("rlimits"), "mounts": spec.get("mounts"), "hooks": spec.get("hooks")}
    fill(message, known)
    message.hooks.SetInParent()
    if image is not None:
        message.image.name = next(iter(image.tags), "")
        message.image.digest = image.digest
        message.image.config_digest = image.id
    _set_linux(message.linux, config, spec)
    return message


def _set_linux(message: nri.LinuxContainer, config: cri.ContainerConfig, spec: Spec) -> None:
    process: Mapping[str, object] = {**spec["process"]}
    linux: Mapping[str, object] = {**spec["linux"]}
    known = {
        key: linux.get(key) for key in ("namespaces", "devices", "resources", "cgroupsPath", "sysctl", "netDevices")
    }
    fill(message, known)
    fill(message, {"oomScoreAdj": process.get("oomScoreAdj"), "ioPriority": process.get("ioPriority")})
    fill(message, {"scheduler": process.get("scheduler"), "seccompPolicy": linux.get("seccomp")})
    fill(message, {"rdt": linux.get("intelRdt")})
    security = config.linux.security_context
    if security.HasField("seccomp"):
        message.seccomp_profile.profile_type = nri.SecurityProfile.ProfileType.ValueType(security.seccomp.profile_type)
        message.seccomp_profile.localhost_ref = security.seccomp.localhost_ref


def fill(message: Message, document: Mapping[str, object]) -> None:
    """Set what a part of an OCI spec says; fields that it does not have, or that have no field, are left out."""
    for field in message.DESCRIPTOR.fields:
        value = document.get(OTHER_NAMES.get(field.name, field.json_name))
        if value is not None:
            numbers = {} if field.enum_type is None else {each.name: each.number for each in field.enum_type.values}
            _fill_field(message, field.name, value, numbers)


def _fill_field(message: Message, name: str, value: object, numbers: Mapping[str, int]) -> None:
    """Set one field; ``numbers`` are those of an enum, which goes by its names in a spec."""
    own = getattr(message, name)
    if isinstance(own, Message):
        own.SetInParent()
        # A value that may be absent has a message of its own.
        fill(own, value if isinstance(value, Mapping) else {"value": value})
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if isinstance(each, Mapping):
                fill(own[key], each)
            else:
                own[key] = each
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            if isinstance(each, Mapping):
                fill(own.add(), each)
            else:
                own.append(numbers.get(str(each), 0) if numbers else each)
    else:
        setattr(message, name, numbers.get(str(value), 0) if numbers else value)


def limits(wanted: cri.LinuxContainerResources) -> nri.LinuxResources:
    """Return CRI's limits as NRI's; as in containerd, values that are not set are 0."""
    found = nri.LinuxResources(unified=wanted.unified)
    found.cpu.shares.value = wanted.cpu_shares
    found.cpu.quota.value = wanted.cpu_quota
    found.cpu.period.value = wanted.cpu_period
    found.cpu.cpus, found.cpu.mems = wanted.cpuset_cpus, wanted.cpuset_mems
    found.memory.limit.value = wanted.memory_limit_in_bytes
    for each in wanted.hugepage_limits:
        found.hugepage_limits.add(page_size=each.page_size, limit=each.limit)
    return found


def wanted_limits(found: nri.LinuxResources) -> cri.LinuxContainerResources:
    """Return NRI's limits as CRI's, which has fewer."""
    wanted = cri.LinuxContainerResources(
        memory_limit_in_bytes=found.memory.limit.value,
        cpu_shares=found.cpu.shares.value,
        cpu_quota=found.cpu.quota.value,
        cpu_period=found.cpu.period.value,
        cpuset_cpus=found.cpu.cpus,
        cpuset_mems=found.cpu.mems,
        unified=found.unified,
    )
    for each in found.hugepage_limits:
        wanted.hugepage_limits.add(page_size=each.page_size, limit=each.limit)
    return wanted
