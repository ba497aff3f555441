"""Contract: pods of Kubernetes and their containers, as plugins of type `windlass.plugin.HOOK` see and adjust them.

The steps are the points of NRI, and what they are about are NRI's messages
(``windlass_api.nri``): a participant reads them as the protocols below say, or
imports the messages where it needs more of them. Several participants get the
same message, so none changes it. What a participant wants is an `Answer`, or a
list of them. The caller merges those of all participants by NRI's rules: no two
plugins may set the same thing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from windlass.marks import CLOSED, OPEN, step
from windlass.records import dataclass

DEADLINE = 60.0
"""Seconds for each participant of a step. One that asks others has limits of its own for them."""


class Pod(Protocol):
    """A message ``nri.pkg.api.v1alpha1.PodSandbox``."""

    id: str
    name: str
    uid: str
    namespace: str

    @property
    def labels(self) -> Mapping[str, str]:
        """As its client gave them, and what the runtime added."""

    @property
    def annotations(self) -> Mapping[str, str]:
        """As its client gave them, and those of its spec."""

    runtime_handler: str


class PodContainer(Protocol):
    """A message ``nri.pkg.api.v1alpha1.Container``."""

    id: str
    pod_sandbox_id: str
    name: str

    @property
    def labels(self) -> Mapping[str, str]:
        """As its client gave them, and what the runtime added."""

    @property
    def annotations(self) -> Mapping[str, str]:
        """As its client gave them, and those of its spec."""

    @property
    def args(self) -> Sequence[str]:
        """The command line."""

    @property
    def env(self) -> Sequence[str]:
        """Entries such as ``PATH=/bin``."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one plugin wants to have changed; ``plugin`` is who then owns it, and is named in errors."""

    plugin: str
    response: object
    """NRI's message for the step: a CreateContainerResponse, UpdateContainerResponse or StopContainerResponse."""


class Validation(Protocol):
    """A message ``nri.pkg.api.v1alpha1.ValidateContainerAdjustmentRequest``: the changes of all, and whose they are."""

    @property
    def pod(self) -> Pod:
        """The pod."""

    @property
    def container(self) -> PodContainer:
        """As it was before the changes."""


class Limits(Protocol):
    """A message ``nri.pkg.api.v1alpha1.LinuxResources``."""


class Update(Protocol):
    """A message ``nri.pkg.api.v1alpha1.ContainerUpdate``."""

    container_id: str
    ignore_failure: bool


class Eviction(Protocol):
    """A message ``nri.pkg.api.v1alpha1.ContainerEviction``."""

    container_id: str
    reason: str


Answers: TypeAlias = Answer | Sequence[Answer] | None
Told: TypeAlias = Callable[[Sequence[Pod], Sequence[PodContainer]], Awaitable[Sequence[Update]]]
"""Gets all pods, and the containers that have not ended; returns what is to be changed of these."""


class PodRuntime(Protocol):
    """Who runs the pods, for participants that act without being asked. Its methods are called on the daemon's loop."""

    async def synchronize(self, tell: Told) -> None:
        """Await ``tell`` while no pod and no container comes, changes or goes, then make the updates it returns."""

    async def update(self, updates: Sequence[Update]) -> Sequence[Update]:
        """Change limits of containers, and return the updates that failed. Containers that are gone count as done."""

    async def evict(self, evictions: Sequence[Eviction]) -> None:
        """Stop containers."""


class PodHooks:
    """Steps in the life of a pod and of its containers. `CLOSED` ones can refuse, and the caller then undoes its work.

    Each pod and container that a participant saw begin it sees stop and be removed, also when its creation failed.
    """

    @step(OPEN, deadline=DEADLINE)
    def serve_pods(self, runtime: PodRuntime) -> None:
        """Learn who runs the pods, before it takes requests; it takes them when all have returned."""

    @step(CLOSED, deadline=DEADLINE)
    def run_pod_sandbox(self, pod: Pod) -> None:
        """See a pod whose sandbox runs and has its network, before its client learns of it."""

    @step(CLOSED, deadline=DEADLINE)
    def update_pod_sandbox(self, pod: Pod, overhead: Limits, resources: Limits) -> None:
        """See new limits of a pod before they are set."""

    @step(OPEN, deadline=DEADLINE)
    def post_update_pod_sandbox(self, pod: Pod) -> None:
        """See a pod with new limits."""

    @step(OPEN, deadline=DEADLINE)
    def stop_pod_sandbox(self, pod: Pod) -> None:
        """See a pod whose containers have been stopped; it still has its network."""

    @step(OPEN, deadline=DEADLINE)
    def remove_pod_sandbox(self, pod: Pod) -> None:
        """See a pod for the last time."""

    @step(CLOSED, deadline=DEADLINE)
    def create_container(self, pod: Pod, container: PodContainer) -> Answers:
        """Adjust a container that is being created, update and evict others."""

    @step(CLOSED, deadline=DEADLINE)
    def validate_container_adjustment(self, request: Validation) -> None:
        """Refuse, by raising an error, what all participants together want of a container."""

    @step(OPEN, deadline=DEADLINE)
    def post_create_container(self, pod: Pod, container: PodContainer) -> None:
        """See a created container with all adjustments."""

    @step(CLOSED, deadline=DEADLINE)
    def start_container(self, pod: Pod, container: PodContainer) -> None:
        """See a container before it is started."""

    @step(OPEN, deadline=DEADLINE)
    def post_start_container(self, pod: Pod, container: PodContainer) -> None:
        """See a started container."""

    @step(CLOSED, deadline=DEADLINE)
    def update_container(self, pod: Pod, container: PodContainer, resources: Limits) -> Answers:
        """Have a say in new limits of a container, update and evict others."""

    @step(OPEN, deadline=DEADLINE)
    def post_update_container(self, pod: Pod, container: PodContainer) -> None:
        """See a container with new limits."""

    @step(OPEN, deadline=DEADLINE)
    def stop_container(self, pod: Pod, container: PodContainer) -> Answers:
        """See a container that has ended, by a client's wish or by itself, once; update others with what is free."""

    @step(OPEN, deadline=DEADLINE)
    def remove_container(self, pod: Pod, container: PodContainer) -> None:
        """See a container for the last time."""
