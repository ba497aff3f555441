"""Merges what several plugins answer to one request, with the rules of conflict and ownership of NRI.

The rules are those of containerd/nri pkg/adaptation/result.go, but for what that drops in silence; docs/nri.md
lists the differences. Nothing here changes what it was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from windlass.errors import InvalidArgument
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.adjusting import adjust
from windlass_nri.owners import Conflict, Owners
from windlass_nri.resources import Claim, merge_resources

R = TypeVar("R", nri.CreateContainerResponse, nri.UpdateContainerResponse, nri.StopContainerResponse)


@dataclass(frozen=True)
class Contribution(Generic[R]):
    """What one plugin answered; ``plugin`` is its full name, such as ``10-logger``."""

    plugin: str
    response: R


@dataclass(frozen=True)
class Merged:
    """What all plugins together ask for when a container is created."""

    adjustment: nri.ContainerAdjustment
    owners: nri.OwningPlugins
    updates: Sequence[nri.ContainerUpdate]
    evictions: Sequence[nri.ContainerEviction]


@dataclass(frozen=True)
class MergedUpdate:
    """What all plugins together ask for when a container is updated or has stopped."""

    requested: nri.LinuxResources | None
    """The resources of the container that is updated, as plugins changed them; None when none did."""
    updates: Sequence[nri.ContainerUpdate]
    """Updates of other containers."""
    evictions: Sequence[nri.ContainerEviction]


class Merger:
    """Merges answers to CreateContainer one by one."""

    def __init__(self, container: nri.Container) -> None:
        """Begin with the container as the runtime would create it."""
        self._container = nri.Container()
        self._container.CopyFrom(container)
        self._adjustment = nri.ContainerAdjustment()
        self._owners = Owners()
        self._others = _Others(self._owners)

    @property
    def container(self) -> nri.Container:
        """The container as the plugins so far adjusted it: what the next plugin sees. Not to be changed."""
        return self._container

    def add(self, contribution: Contribution[nri.CreateContainerResponse]) -> None:
        """Take one plugin's answer. Raises `Conflict`, or InvalidArgument for an update of the container itself.

        After an error the merger is not to be used: the creation has failed.
        """
        plugin, response = contribution.plugin, contribution.response
        _check(plugin, response, nri.CreateContainerResponse)
        for update in response.update:
            if update.container_id == self._container.id:
                raise InvalidArgument(f'plugin "{plugin}" asked update of "{update.container_id}" during creation')
        adjust(response.adjust, self._container, self._adjustment, Claim(self._owners, self._container.id, plugin))
        self._others.add(plugin, response.update, response.evict)

    def merged(self) -> Merged:
        """Return what all plugins so far ask for."""
        return Merged(self._adjustment, self._owners.to_proto(), self._others.updates, self._others.evictions)


def merge(container: nri.Container, contributions: Iterable[Contribution[nri.CreateContainerResponse]]) -> Merged:
    """Merge the answers to CreateContainer, in the order of the plugins' indexes."""
    merger = Merger(container)
    for contribution in contributions:
        merger.add(contribution)
    return merger.merged()


class UpdateMerger:
    """Merges answers to UpdateContainer one by one."""

    def __init__(self, container_id: str, resources: nri.LinuxResources) -> None:
        """Begin with the update as the client asked for it."""
        self._id = container_id
        self._resources = nri.LinuxResources()
        self._resources.CopyFrom(resources)
        self._others = _Others(Owners(), {container_id: self._resources})

    @property
    def resources(self) -> nri.LinuxResources:
        """The update as the plugins so far changed it: what the next plugin sees. Not to be changed."""
        return self._resources

    def add(self, plugin: str, response: nri.UpdateContainerResponse) -> None:
        """Take one plugin's answer. Raises `Conflict`, unless the update says that its failure is ignored."""
        _check(plugin, response, nri.UpdateContainerResponse)
        self._others.add(plugin, response.update, response.evict)

    def merged(self) -> MergedUpdate:
        """Return what all plugins so far ask for."""
        requested = self._resources if self._id in self._others.changed else None
        others = [update for update in self._others.updates if update.container_id != self._id]
        return MergedUpdate(requested, others, self._others.evictions)


class StopMerger:
    """Merges answers to StopContainer one by one."""

    def __init__(self) -> None:
        """Begin without updates."""
        self._others = _Others(Owners())

    def add(self, plugin: str, response: nri.StopContainerResponse) -> None:
        """Take one plugin's answer. Raises `Conflict`, unless the update says that its failure is ignored."""
        _check(plugin, response, nri.StopContainerResponse)
        self._others.add(plugin, response.update, ())

    def merged(self) -> MergedUpdate:
        """Return what all plugins so far ask for; ``requested`` is None."""
        return MergedUpdate(None, self._others.updates, self._others.evictions)


class _Others:
    """Updates and evictions of containers, other than the one that is created."""

    def __init__(self, owners: Owners, resources: dict[str, nri.LinuxResources] | None = None) -> None:
        """Begin with ``resources``, by the IDs of their containers, which change in place."""
        self._owners = owners
        self._resources = resources or {}
        self._ignore: dict[str, bool] = {}
        self._evictions: dict[str, nri.ContainerEviction] = {}
        self.changed: set[str] = set()

    @property
    def updates(self) -> list[nri.ContainerUpdate]:
        """The updates, one for each container, in the order in which plugins first asked for them."""
        return [
            nri.ContainerUpdate(
                container_id=id,
                linux=nri.LinuxContainerUpdate(resources=self._resources[id]),
                ignore_failure=ignore,
            )
            for id, ignore in self._ignore.items()
        ]

    @property
    def evictions(self) -> list[nri.ContainerEviction]:
        """The evictions, one for each container, with the reason that came first."""
        return list(self._evictions.values())

    def add(
        self, plugin: str, updates: Iterable[nri.ContainerUpdate], evictions: Iterable[nri.ContainerEviction]
    ) -> None:
        """Take what one plugin asks for; raises Conflict."""
        for update in updates:
            self._update(plugin, update)
        for eviction in evictions:
            self._evictions.setdefault(eviction.container_id, eviction)

    def _update(self, plugin: str, update: nri.ContainerUpdate) -> None:
        id = update.container_id
        resources = self._resources.setdefault(id, nri.LinuxResources())
        self._ignore[id] = self._ignore.get(id, True) and update.ignore_failure
        if not update.linux.HasField("resources"):
            return
        # on a copy: an update that conflicts and whose failure is ignored changes nothing
        changed = nri.LinuxResources()
        changed.CopyFrom(resources)
        try:
            merge_resources(update.linux.resources, [changed], Claim(self._owners, id, plugin))
        except Conflict:
            if not update.ignore_failure:
                raise
            return
        resources.CopyFrom(changed)
        self.changed.add(id)


def _check(plugin: str, response: object, wanted: type[object]) -> None:
    if not isinstance(response, wanted):
        raise InvalidArgument(f'plugin "{plugin}" answered with {type(response).__name__}, not {wanted.__name__}')
