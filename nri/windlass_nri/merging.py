"""Merges what several plugins answer to one request, with the rules of conflict and ownership of NRI.

Nothing here changes what it was given: requests and responses are copied first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri


@dataclass(frozen=True)
class Contribution:
    """What one plugin answered to CreateContainer; ``plugin`` is its full name, such as ``10-logger``."""

    plugin: str
    response: nri.CreateContainerResponse


@dataclass(frozen=True)
class Merged:
    """What all plugins together ask for."""

    adjustment: nri.ContainerAdjustment
    owners: nri.OwningPlugins
    updates: Sequence[nri.ContainerUpdate]
    evictions: Sequence[nri.ContainerEviction]


class Merger:
    """Merges answers to CreateContainer one by one."""

    def __init__(self, container: nri.Container) -> None:
        """Begin with the container as the runtime would create it."""
        raise NotImplementedError

    @property
    def container(self) -> nri.Container:
        """The container as the plugins so far adjusted it: what the next plugin sees. Not to be changed."""
        raise NotImplementedError

    def add(self, contribution: Contribution) -> None:
        """Take one plugin's answer. Raises `Conflict`, or InvalidArgument for an update of the container itself.

        After an error the merger is not to be used: the creation has failed.
        """
        raise NotImplementedError

    def merged(self) -> Merged:
        """Return what all plugins so far ask for."""
        raise NotImplementedError


def merge(container: nri.Container, contributions: Iterable[Contribution]) -> Merged:
    """Merge the answers to CreateContainer, in the order of the plugins' indexes."""
    raise NotImplementedError


@dataclass(frozen=True)
class MergedUpdate:
    """What all plugins ask for in answer to UpdateContainer or StopContainer."""

    requested: nri.LinuxResources | None
    """The resources of the container that is updated, as plugins changed them; None when none did."""
    updates: Sequence[nri.ContainerUpdate]
    """Updates of other containers."""
    evictions: Sequence[nri.ContainerEviction]


class UpdateMerger:
    """Merges answers to UpdateContainer one by one."""

    def __init__(self, container_id: str, resources: nri.LinuxResources) -> None:
        """Begin with the update as the client asked for it."""
        raise NotImplementedError

    @property
    def resources(self) -> nri.LinuxResources:
        """The update as the plugins so far changed it: what the next plugin sees. Not to be changed."""
        raise NotImplementedError

    def add(self, plugin: str, response: nri.UpdateContainerResponse) -> None:
        """Take one plugin's answer. Raises `Conflict`, unless the update says that its failure is ignored."""
        raise NotImplementedError

    def merged(self) -> MergedUpdate:
        """Return what all plugins so far ask for."""
        raise NotImplementedError


class StopMerger:
    """Merges answers to StopContainer one by one."""

    def __init__(self) -> None:
        """Begin without updates."""
        raise NotImplementedError

    def add(self, plugin: str, response: nri.StopContainerResponse) -> None:
        """Take one plugin's answer. Raises `Conflict`, unless the update says that its failure is ignored."""
        raise NotImplementedError

    def merged(self) -> MergedUpdate:
        """Return what all plugins so far ask for; ``requested`` is None."""
        raise NotImplementedError
