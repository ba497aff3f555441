"""The names of everything that garbage collection knows: kind, namespace, key."""

from __future__ import annotations

Node = tuple[str, str, str]

CONTENT = "content"
IMAGE = "image"
CONTAINER = "container"
INGEST = "ingest"
LEASE = "lease"
SANDBOX = "sandbox"
SNAPSHOT = "snapshot/"
OUTSIDE = "outside/"
"""Begins the kind of what other stores have us collect for them."""
NAMED = "named/"
"""Begins the kind of the names that labels have for those."""


def content(namespace: str, digest: str) -> Node:
    """A blob as one namespace sees it."""
    return CONTENT, namespace, digest


def image(namespace: str, name: str) -> Node:
    """An image."""
    return IMAGE, namespace, name


def container(namespace: str, id: str) -> Node:
    """A container."""
    return CONTAINER, namespace, id


def ingest(namespace: str, ref: str) -> Node:
    """A write not yet committed."""
    return INGEST, namespace, ref


def lease(namespace: str, id: str) -> Node:
    """A lease."""
    return LEASE, namespace, id


def sandbox(namespace: str, id: str) -> Node:
    """A sandbox's record."""
    return SANDBOX, namespace, id


def snapshot(namespace: str, snapshotter: str, key: str) -> Node:
    """A snapshot of one snapshotter."""
    return SNAPSHOT + snapshotter, namespace, key


def resource(namespace: str, type: str, id: str) -> Node:
    """What a lease holds under ``type``, as `windlass.contracts.leases.Resource` spells it."""
    if type.startswith("snapshots/"):
        return SNAPSHOT + type.removeprefix("snapshots/"), namespace, id
    return RESOURCES[type], namespace, id


RESOURCES = {"content": CONTENT, "ingests": INGEST, "images": IMAGE}
"""Resource types of leases, but for ``snapshots/<snapshotter>``, by the kind of node they are."""
