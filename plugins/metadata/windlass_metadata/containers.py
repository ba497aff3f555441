"""Containers, the specs and labels from which tasks are started (docs/containerd 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.contracts.containers import Container, ContainerStore
from windlass.contracts.values import check_identifier, check_labels
from windlass.errors import InvalidArgument
from windlass.typing import override
from windlass_api.containerd.events.container_pb2 import ContainerCreate, ContainerDelete, ContainerUpdate
from windlass_metadata import nodes
from windlass_metadata.columns import payload, payloads, strings
from windlass_metadata.encoded import framed
from windlass_metadata.fields import Mutable, Visible, check_extensions, extensions, labels
from windlass_metadata.ledger import Ledger
from windlass_metadata.records import Events, Kind, Records
from windlass_metadata.table import Table
from windlass_remote.records import to_container


def check_container(container: Container) -> None:
    """Raise InvalidArgument unless a container may be recorded as it is."""
    check_identifier("container ID", container.id)
    check_extensions(f"container {container.id}", container.extensions)
    check_labels(container.labels)
    if not container.runtime:
        raise InvalidArgument(f"container {container.id}: the name of its runtime must not be empty")
    if container.spec is None:
        raise InvalidArgument(f"container {container.id} has no spec")
    if container.snapshot_key and not container.snapshotter:
        raise InvalidArgument(f"container {container.id} has a snapshot key but no snapshotter")


def _created(container: Container) -> ContainerCreate:
    event = ContainerCreate(id=container.id, image=container.image)
    event.runtime.name = container.runtime
    if container.runtime_options:
        event.runtime.options.type_url = container.runtime_options.type_url
        event.runtime.options.value = container.runtime_options.value
    return event


def _updated(container: Container) -> ContainerUpdate:
    return ContainerUpdate(
        id=container.id, image=container.image, labels=container.labels, snapshot_key=container.snapshot_key
    )


def _encoded(container: Container) -> bytes:
    message = to_container(container)
    return framed(message, message.labels)


CONTAINERS = Kind(
    Table(
        "containers",
        "container",
        Container,
        (payload("runtime_options"), payload("spec"), strings("labels"), payloads("extensions")),
        encoded=_encoded,
    ),
    key=lambda container: container.id,
    node=nodes.container,
    check=check_container,
    visible=Visible({"id": "id", "runtime.name": "runtime", "image": "image"}, {"labels": "labels"}),
    mutable=Mutable(
        {"labels": labels, "extensions": extensions},
        {"spec": ("spec",), "image": ("image",), "snapshotkey": ("snapshot_key",)},
    ),
    events=Events("/containers", _created, _updated, lambda id: ContainerDelete(id=id)),
)


class Containers(Records[Container], ContainerStore):
    """One namespace's containers."""

    def __init__(self, ledger: Ledger, namespace: str) -> None:
        """Read and write ``ledger``."""
        super().__init__(CONTAINERS, ledger, namespace)

    @override
    def update(self, container: Container, fieldpaths: Sequence[str] = (), at: int | None = None) -> Container:
        if not container.id:
            raise InvalidArgument("container ID must not be empty")
        return super().update(container, fieldpaths, at)

    @override
    def _changed(self, current: Container, wanted: Container, fieldpaths: Sequence[str]) -> Container:
        if not fieldpaths and wanted.snapshotter != current.snapshotter:
            raise InvalidArgument(f"container {current.id}: its snapshotter cannot change")
        if not fieldpaths and wanted.runtime != current.runtime:
            raise InvalidArgument(f"container {current.id}: its runtime cannot change")
        return super()._changed(current, wanted, fieldpaths)
