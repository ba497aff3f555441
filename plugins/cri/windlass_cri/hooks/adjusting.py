"""What hook plugins want of a container and of others: merged by NRI's rules, validated, and put into the spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from windlass.contracts.pods import Answer, PodHooks
from windlass.errors import InvalidArgument, Unknown
from windlass.hooks import Hooks
from windlass.records import dataclass
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import RuntimeConfig
from windlass_cri.containers.updates import Decided
from windlass_cri.hooks.messages import limits, wanted_limits
from windlass_cri.spec import cdi
from windlass_nri.applying import Unresolved, apply, apply_resources
from windlass_nri.merging import Contribution, StopMerger, UpdateMerger, merge
from windlass_nri.validation import request
from windlass_oci.runtime_spec import Spec

R = TypeVar("R")


@dataclass(frozen=True)
class Wishes:
    """What participants want of other containers than the one that a step is about."""

    updates: Sequence[nri.ContainerUpdate] = ()
    evictions: Sequence[nri.ContainerEviction] = ()


async def adjust(hooks: Hooks, pod: nri.PodSandbox, container: nri.Container, spec: Spec) -> tuple[Unresolved, Wishes]:
    """Adjust ``spec`` in place, once all validators agree; what is left is for `resolve`.

    Raises Error; ``spec`` is then not to be used.
    """
    answers = await hooks.call(PodHooks.create_container, pod, container)
    wanted = [Contribution(*each) for each in _responses(answers, nri.CreateContainerResponse)]
    merged = merge(container, wanted)
    if hooks.wanted(PodHooks.validate_container_adjustment):
        await hooks.call(PodHooks.validate_container_adjustment, request(pod, container, merged, ()))
    return apply(spec, merged.adjustment), Wishes(merged.updates, merged.evictions)


def resolve(spec: Spec, left: Unresolved, settings: RuntimeConfig) -> None:
    """Put into a spec what the configuration says of devices and classes. Blocks; raises Unknown."""
    devices = [cri.CDIDevice(name=each) for each in left.cdi_devices]
    cdi.inject(spec, cri.ContainerConfig(CDI_devices=devices), settings)
    if left.blockio_class:
        raise Unknown(f'block I/O class "{left.blockio_class[:100]}" is not known; classes cannot be configured')
    if left.rdt_class:
        spec["linux"]["intelRdt"] = {"closID": left.rdt_class}


async def adjust_update(
    hooks: Hooks, pod: nri.PodSandbox, container: nri.Container, wanted: cri.LinuxContainerResources
) -> tuple[Decided, Wishes]:
    """Return the limits to set, and what participants want besides."""
    asked = limits(wanted)
    answers = await hooks.call(PodHooks.update_container, pod, container, asked)
    merger = UpdateMerger(container.id, asked)
    for plugin, response in _responses(answers, nri.UpdateContainerResponse):
        merger.add(plugin, response)
    merged = merger.merged()
    found = asked if merged.requested is None else merged.requested
    decided = wanted if merged.requested is None else wanted_limits(found)
    return Decided(decided, beyond(found)), Wishes(merged.updates, merged.evictions)


def beyond(found: nri.LinuxResources) -> Callable[[Spec], None]:
    """Return what sets the limits of an update in a spec that CRI has not, such as that of processes."""
    left = nri.LinuxResources(devices=found.devices)
    if found.HasField("pids"):
        left.pids.CopyFrom(found.pids)
    left.memory.CopyFrom(found.memory)
    left.memory.ClearField("limit")

    def change(spec: Spec) -> None:
        apply_resources(spec, left)

    return change


async def after_stop(hooks: Hooks, pod: nri.PodSandbox, container: nri.Container) -> Wishes:
    """Return what participants want of other containers now that one has stopped."""
    answers = await hooks.call(PodHooks.stop_container, pod, container)
    merger = StopMerger()
    for plugin, response in _responses(answers, nri.StopContainerResponse):
        merger.add(plugin, response)
    merged = merger.merged()
    return Wishes(merged.updates, merged.evictions)


def _responses(answers: Iterable[object], kind: type[R]) -> Iterator[tuple[str, R]]:
    for answer in answers:
        for each in answer if isinstance(answer, Sequence) else [answer]:
            if not isinstance(each, Answer) or not isinstance(each.response, kind):
                wanted = f"an Answer with a {kind.__name__}"
                raise InvalidArgument(f"a hook plugin has answered with {each!r:.200}; return {wanted}")
            yield each.plugin, each.response
