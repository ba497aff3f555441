"""The published ports of a container, from the labels of its record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument, NotFound
from windlass_client import labels
from windlass_client.networks import ports
from windlass_client.networks.record import PortMapping

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client


async def published(client: Client, container: Container) -> list[PortMapping]:
    """Return what is published of a container now, none if it does not run."""
    from windlass_api.containerd.v1.types import task_pb2

    try:
        task = await client.tasks.get(container.id)
    except NotFound:
        return []
    return of_labels(container.labels) if task.status != task_pb2.STOPPED else []


def of_labels(found: Mapping[str, str]) -> list[PortMapping]:
    """Return the ports that a record says; another client may have written anything there."""
    try:
        return ports.mappings(json.loads(found.get(labels.PORTS, "[]")))
    except (ValueError, TypeError, InvalidArgument):
        return []


def shown(port: PortMapping) -> str:
    """Return an address of the host as docker shows it: ``0.0.0.0:8080``."""
    host = port.host_ip or "0.0.0.0"  # noqa: S104 - shown, not bound
    return f"[{host}]:{port.host_port}" if ":" in host else f"{host}:{port.host_port}"


def summary(found: Mapping[str, str]) -> str:
    """Return all ports as `ps` shows them: ``0.0.0.0:8080->80/tcp``, runs of ports as one."""
    parts: Sequence[str] = [_summary(text) for text in ports.labelled(of_labels(found))]
    return ", ".join(parts)


def _summary(text: str) -> str:
    """Turn ``[IP:]8000-8010:80-90/tcp`` into ``IP:8000-8010->80-90/tcp``."""
    outer, _, inner = text.rpartition(":")
    return f"{outer if ':' in outer else f'0.0.0.0:{outer}'}->{inner}"
