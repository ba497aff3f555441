"""Pods, containers and images as CRI's messages."""

from __future__ import annotations

from collections.abc import Mapping

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.containers import signals
from windlass_cri.images.images import Image, users
from windlass_cri.record import Container, Pod


def pod_entry(pod: Pod) -> bytes:
    """Return a pod as a list of one; several, joined, are the list of all.

    The bytes are kept until the pod changes, because a kubelet lists all the time.
    """
    kept = pod.listed
    if kept is None or kept[0] != pod.ready or kept[1] is not pod.data:
        message = cri.ListPodSandboxResponse(items=[_pod_item(pod)])
        kept = pod.listed = (pod.ready, pod.data, message.SerializeToString())
    return kept[2]


def _pod_item(pod: Pod) -> cri.PodSandbox:
    item = cri.PodSandbox(
        id=pod.id,
        state=state(pod),
        created_at=pod.data.created_at,
        labels=pod.config.labels,
        annotations=pod.config.annotations,
        runtime_handler=pod.data.handler,
    )
    item.metadata.CopyFrom(pod.config.metadata)
    return item


def state(pod: Pod) -> cri.PodSandboxState.ValueType:
    """Return a pod's state."""
    return cri.SANDBOX_READY if pod.ready else cri.SANDBOX_NOTREADY


def pod_status(pod: Pod) -> cri.PodSandboxStatus:
    """Return a pod's status."""
    status = cri.PodSandboxStatus(
        id=pod.id,
        state=state(pod),
        created_at=pod.data.created_at,
        labels=pod.config.labels,
        annotations=pod.config.annotations,
        runtime_handler=pod.data.handler,
    )
    status.metadata.CopyFrom(pod.config.metadata)
    status.network.SetInParent()
    if pod.data.addresses:
        status.network.ip = pod.data.addresses[0]
        status.network.additional_ips.extend(cri.PodIP(ip=ip) for ip in pod.data.addresses[1:])
    status.linux.namespaces.SetInParent()
    if pod.config.linux.security_context.HasField("namespace_options"):
        status.linux.namespaces.options.CopyFrom(pod.namespace_options)
    return status


def container_entry(container: Container) -> bytes:
    """Return a container as a list of one, as `pod_entry` does; the bytes are kept until its status changes."""
    kept = container.listed
    if kept is None or kept[0] is not container.status:
        message = cri.ListContainersResponse(containers=[_container_item(container)])
        kept = container.listed = (container.status, message.SerializeToString())
    return kept[1]


def _container_item(container: Container) -> cri.Container:
    item = cri.Container(
        id=container.id,
        pod_sandbox_id=container.data.pod,
        state=container.status.state,
        created_at=container.status.created_at,
        labels=container.config.labels,
        annotations=container.config.annotations,
        image_ref=container.data.image_id,
        image_id=container.data.image_id,
    )
    item.metadata.CopyFrom(container.config.metadata)
    item.image.CopyFrom(container.config.image)
    return item


def container_status(container: Container, image: Image | None) -> cri.ContainerStatus:
    """Return a container's status; ``image`` is None when it has been removed."""
    known = container.status
    status = cri.ContainerStatus(
        id=container.id,
        state=known.state,
        created_at=known.created_at,
        started_at=known.started_at,
        finished_at=known.finished_at,
        exit_code=known.exit_code,
        reason=known.reason,
        message=known.message,
        labels=container.config.labels,
        annotations=container.config.annotations,
        mounts=container.config.mounts,
        log_path=container.data.log,
        image_id=container.data.image_id,
        image_ref=container.data.image_id,
    )
    status.metadata.CopyFrom(container.config.metadata)
    status.image.CopyFrom(container.config.image)
    if image is not None:
        if image.tags:
            status.image.CopyFrom(cri.ImageSpec(image=image.tags[0]))
        status.image_ref = next(iter(image.digests), image.id)
    status.resources.linux.CopyFrom(container.resources)
    status.user.SetInParent()
    if container.user is not None:
        status.user.linux.CopyFrom(container.user)
    status.stop_signal = container.config.stop_signal or signals.of_name(container.data.stop_signal or "SIGTERM")
    return status


def labels_match(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Tell whether all of a selector's labels are there."""
    return not wanted or all(labels.get(key) == value for key, value in wanted.items())


def image_entry(image: Image) -> bytes:
    """Return an image as a list of one, as `pod_entry` does; one that changes is a new `Image`."""
    if not image.listed:
        image.listed = cri.ListImagesResponse(images=[image_item(image)]).SerializeToString()
    return image.listed


def image_item(image: Image) -> cri.Image:
    """Return an image."""
    item = cri.Image(id=image.id, repo_tags=image.tags, repo_digests=image.digests, size=image.size)
    number, name = users(image)
    if number is not None:
        item.uid.value = number
    elif name and name != "root":
        item.username = name
    item.pinned = image.pinned
    return item
