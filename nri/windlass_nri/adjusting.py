"""Takes one plugin's adjustment of a container that is created into what earlier plugins asked for.

Each function changes two messages: the container, as the next plugin sees it, and the collected adjustment.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.marks import mark, unmark
from windlass_nri.resources import Claim, merge_fields, merge_resources, put

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

M = TypeVar("M", bound=Message)
HOOKS = ("prestart", "create_runtime", "create_container", "start_container", "poststart", "poststop")


def adjust(
    wanted: nri.ContainerAdjustment, container: nri.Container, collected: nri.ContainerAdjustment, claim: Claim
) -> None:
    """Take all of ``wanted``; raises Conflict."""
    _strings(wanted.annotations, container.annotations, collected.annotations, nri.Annotations, claim)
    _named(wanted.mounts, container.mounts, collected.mounts, nri.Mounts, claim, lambda mount: mount.destination)
    _env(wanted.env, container, collected, claim)
    _args(list(wanted.args), container, collected, claim)
    _hooks(wanted.hooks, container.hooks, collected.hooks, claim)
    if wanted.HasField("linux"):
        _linux(wanted.linux, container.linux, collected.linux, claim)
    for limit in wanted.rlimits:
        claim(nri.Rlimits, limit.type)
        put(container.rlimits, limit, lambda each: each.type)
        collected.rlimits.append(limit)
    for device in wanted.CDI_devices:
        # only added, and not shown to the next plugin: the runtime finds out what a CDI name means
        claim(nri.CdiDevices, device.name)
        collected.CDI_devices.append(device)


def _linux(
    wanted: nri.LinuxContainerAdjustment,
    container: nri.LinuxContainer,
    collected: nri.LinuxContainerAdjustment,
    claim: Claim,
) -> None:
    _named(wanted.devices, container.devices, collected.devices, nri.Devices, claim, lambda device: device.path)
    if wanted.HasField("resources"):
        merge_resources(wanted.resources, [container.resources, collected.resources], claim)
        container.resources.devices.extend(wanted.resources.devices)
        collected.resources.devices.extend(wanted.resources.devices)
    merge_fields(wanted, [container, collected], claim)
    _namespaces(wanted.namespaces, container.namespaces, collected.namespaces, claim)
    _strings(wanted.sysctl, container.sysctl, collected.sysctl, nri.Sysctl, claim)
    _net_devices(wanted, container, collected, claim)
    if wanted.HasField("rdt"):
        _rdt(wanted.rdt, collected.rdt, claim)


def _strings(
    wanted: MutableMapping[str, str],
    seen: MutableMapping[str, str],
    collected: MutableMapping[str, str],
    field: nri.Field.ValueType,
    claim: Claim,
) -> None:
    removed = _removed(list(wanted))
    for key in removed:
        if key in collected or key in wanted:
            claim.clear(field, key)
        seen.pop(key, None)
        collected.pop(key, None)
        collected[mark(key)] = ""
    for key, value in wanted.items():
        if not unmark(key)[1]:
            claim(field, key)
            seen[key] = collected[key] = value


def _net_devices(
    wanted: nri.LinuxContainerAdjustment,
    container: nri.LinuxContainer,
    collected: nri.LinuxContainerAdjustment,
    claim: Claim,
) -> None:
    for key in _removed(list(wanted.net_devices)):
        if key in collected.net_devices or key in wanted.net_devices:
            claim.clear(nri.LinuxNetDevices, key)
        container.net_devices.pop(key, None)
        collected.net_devices.pop(key, None)
        collected.net_devices.get_or_create(mark(key))
    for key, device in wanted.net_devices.items():
        if not unmark(key)[1]:
            claim(nri.LinuxNetDevices, key)
            container.net_devices[key].CopyFrom(device)
            collected.net_devices[key].CopyFrom(device)


def _named(
    wanted: Sequence[M],
    seen: RepeatedCompositeFieldContainer[M],
    collected: RepeatedCompositeFieldContainer[M],
    field: nri.Field.ValueType,
    claim: Claim,
    name: Callable[[M], str],
) -> None:
    replaced = _collect(wanted, collected, field, claim, name)
    _drop(seen, lambda each: name(each) in replaced)
    seen.extend(each for each in wanted if not unmark(name(each))[1])


def _env(
    wanted: Sequence[nri.KeyValue], container: nri.Container, collected: nri.ContainerAdjustment, claim: Claim
) -> None:
    replaced = _collect(wanted, collected.env, nri.Env, claim, lambda variable: variable.key)
    kept = [variable for variable in container.env if variable.partition("=")[0] not in replaced]
    added = [f"{variable.key}={variable.value}" for variable in wanted if not unmark(variable.key)[1]]
    container.env[:] = [*kept, *added]


def _collect(
    wanted: Sequence[M],
    collected: RepeatedCompositeFieldContainer[M],
    field: nri.Field.ValueType,
    claim: Claim,
    name: Callable[[M], str],
) -> set[str]:
    """Take entries that are set or removed by their names, and return the names.

    A removal stays in the adjustment, for the container's own entry of this name, unless the plugin sets it anew.
    """
    removed = _removed([name(each) for each in wanted])
    for each in collected:
        if name(each) in removed:
            claim.clear(field, name(each))
    _drop(collected, lambda each: name(each) in removed)
    added = [each for each in wanted if not unmark(name(each))[1]]
    for each in added:
        claim(field, name(each))
    names = {name(each) for each in added}
    collected.extend(added)
    marks = {name(each): each for each in wanted if unmark(name(each))[1] and unmark(name(each))[0] not in names}
    collected.extend(marks.values())
    return removed | names


def _removed(names: Sequence[str]) -> set[str]:
    return {name for name, marked in map(unmark, names) if marked}


def _drop(entries: RepeatedCompositeFieldContainer[M], doomed: Callable[[M], bool]) -> None:
    for index in reversed(range(len(entries))):
        if doomed(entries[index]):
            del entries[index]


def _args(wanted: list[str], container: nri.Container, collected: nri.ContainerAdjustment, claim: Claim) -> None:
    if not wanted:
        return
    if not wanted[0]:  # the mark of removal, here
        claim.clear(nri.Args)
        wanted = wanted[1:]
    claim(nri.Args)
    container.args[:] = wanted
    collected.args[:] = wanted


def _hooks(wanted: nri.Hooks, seen: nri.Hooks, collected: nri.Hooks, claim: Claim) -> None:
    if wanted.ListFields():
        seen.MergeFrom(wanted)
        collected.MergeFrom(wanted)
        claim.share(nri.OciHooks)


def _namespaces(
    wanted: Sequence[nri.LinuxNamespace],
    seen: RepeatedCompositeFieldContainer[nri.LinuxNamespace],
    collected: RepeatedCompositeFieldContainer[nri.LinuxNamespace],
    claim: Claim,
) -> None:
    for namespace in wanted:
        type, marked = unmark(namespace.type)
        claim(nri.Namespace, type)
        collected.append(namespace)
        if not marked:
            put(seen, namespace, lambda each: each.type)
    removed = _removed([namespace.type for namespace in wanted])
    _drop(seen, lambda each: each.type in removed)


def _rdt(wanted: nri.LinuxRdt, collected: nri.LinuxRdt, claim: Claim) -> None:
    if wanted.remove:
        for field in (nri.RdtClosID, nri.RdtSchemata, nri.RdtEnableMonitoring):
            claim.clear(field)
        collected.Clear()
        collected.remove = True
    merge_fields(wanted, [collected], claim)
    if len(collected.ListFields()) > 1:
        collected.remove = False
