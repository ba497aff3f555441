"""Applies an adjustment to a container's OCI spec.

As containerd/nri pkg/runtime-tools/generate does; docs/nri.md lists what that leaves out and this does not.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass

from windlass.errors import InvalidArgument
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri import conversion
from windlass_nri.marks import unmark
from windlass_nri.propagation import SHARED, SLAVE, propagation_of
from windlass_nri.specresources import set_resources
from windlass_oci.runtime_spec import Device, DeviceRule, Hooks, Linux, Mount, Namespace, Process, Rlimit, Spec

NAMESPACES: Sequence[Namespace] = (
    {"type": "pid"},
    {"type": "network"},
    {"type": "ipc"},
    {"type": "uts"},
    {"type": "mount"},
    {"type": "user"},
    {"type": "cgroup"},
    {"type": "time"},
)


@dataclass(frozen=True)
class Unresolved:
    """What only the runtime can resolve, by its own configuration."""

    cdi_devices: Sequence[str] = ()
    """CDI names to inject."""
    blockio_class: str | None = None
    """A class of block I/O; an empty one takes the container out of its class."""
    rdt_class: str | None = None
    """A class of RDT, for what ``intelRdt`` of the spec does not say; an empty one was already applied."""


def apply(
    spec: Spec, adjustment: nri.ContainerAdjustment, propagation: Callable[[str], str] = propagation_of
) -> Unresolved:
    """Change ``spec`` as ``adjustment`` says and return what is left to the caller.

    ``propagation`` returns a path's propagation on this machine: ``rshared``, ``rslave`` or nothing.
    Raises InvalidArgument for what no spec can hold, and for mounts that cannot propagate as asked;
    ``spec`` is then not to be used.
    """
    linux = adjustment.linux
    _set_strings(spec.setdefault("annotations", {}), adjustment.annotations)
    _process(spec["process"], adjustment)
    _add_hooks(spec, adjustment.hooks)
    _linux(spec["linux"], linux)
    _mounts(spec, adjustment.mounts, propagation)
    left = apply_resources(spec, linux.resources)
    if linux.HasField("rdt"):
        _rdt(spec["linux"], linux.rdt)
    names = tuple(device.name for device in adjustment.CDI_devices)
    return Unresolved(names, left.blockio_class, left.rdt_class)


def apply_resources(spec: Spec, resources: nri.LinuxResources) -> Unresolved:
    """Change only the resources of ``spec``, as for an update."""
    set_resources(spec["linux"].setdefault("resources", {}), resources)
    blockio = resources.blockio_class.value if resources.HasField("blockio_class") else None
    rdt = resources.rdt_class.value if resources.HasField("rdt_class") else None
    if rdt == "":
        spec["linux"].pop("intelRdt", None)
    return Unresolved((), blockio, rdt)


def _process(process: Process, adjustment: nri.ContainerAdjustment) -> None:
    _env(process, adjustment.env)
    if adjustment.args:
        process["args"] = list(adjustment.args)
    linux = adjustment.linux
    if linux.HasField("oom_score_adj"):
        process["oomScoreAdj"] = linux.oom_score_adj.value
    if linux.HasField("io_priority"):
        process.pop("ioPriority", None)
        if priority := conversion.io_priority(linux.io_priority):
            process["ioPriority"] = priority
    if linux.HasField("scheduler"):
        process.pop("scheduler", None)
        if scheduler := conversion.scheduler(linux.scheduler):
            process["scheduler"] = scheduler
    for limit in adjustment.rlimits:
        new: Rlimit = {"type": limit.type, "hard": limit.hard, "soft": limit.soft}
        # a runtime refuses a spec with two limits of one type
        process["rlimits"] = [each for each in process.get("rlimits", []) if each["type"] != limit.type] + [new]


def _env(process: Process, variables: Iterable[nri.KeyValue]) -> None:
    """Change variables where they are, and add new ones at the end; of two for one name the last counts."""
    wanted = {unmark(variable.key)[0]: variable for variable in variables}
    if not wanted:
        return
    env = {entry.partition("=")[0]: entry for entry in process.get("env", [])}
    for name, variable in wanted.items():
        if unmark(variable.key)[1]:
            env.pop(name, None)
        elif name:
            env[name] = f"{name}={variable.value}"
    process["env"] = list(env.values())


def _add_hooks(spec: Spec, added: nri.Hooks) -> None:
    if not added.ListFields():
        return
    hooks: Hooks = spec.setdefault("hooks", {})
    hooks.setdefault("prestart", []).extend(map(conversion.hook, added.prestart))
    hooks.setdefault("createRuntime", []).extend(map(conversion.hook, added.create_runtime))
    hooks.setdefault("createContainer", []).extend(map(conversion.hook, added.create_container))
    hooks.setdefault("startContainer", []).extend(map(conversion.hook, added.start_container))
    hooks.setdefault("poststart", []).extend(map(conversion.hook, added.poststart))
    hooks.setdefault("poststop", []).extend(map(conversion.hook, added.poststop))


def _linux(linux: Linux, wanted: nri.LinuxContainerAdjustment) -> None:
    _devices(linux, wanted.devices)
    if wanted.cgroups_path:
        linux["cgroupsPath"] = wanted.cgroups_path
    if wanted.HasField("seccomp_policy"):
        linux["seccomp"] = conversion.seccomp(wanted.seccomp_policy)
    _namespaces(linux, wanted.namespaces)
    if wanted.sysctl:
        _set_strings(linux.setdefault("sysctl", {}), wanted.sysctl)
    for name, device in sorted(wanted.net_devices.items()):  # marks of removal come first
        if unmark(name)[1]:
            linux.setdefault("netDevices", {}).pop(unmark(name)[0], None)
        else:
            linux.setdefault("netDevices", {})[name] = {"name": device.name} if device.name else {}
    if wanted.HasField("memory_policy"):
        linux["memoryPolicy"] = conversion.memory_policy(wanted.memory_policy)


def _set_strings(values: MutableMapping[str, str], wanted: MutableMapping[str, str]) -> None:
    for key, marked in map(unmark, wanted):
        if marked:
            values.pop(key, None)
    values.update((key, value) for key, value in wanted.items() if not unmark(key)[1])


def _devices(linux: Linux, wanted: Iterable[nri.LinuxDevice]) -> None:
    for device in wanted:
        path, marked = unmark(device.path)
        devices = [each for each in linux.get("devices", []) if each["path"] != path]
        linux["devices"] = devices
        if marked:
            continue
        new: Device = {"path": path, "type": device.type, "major": device.major, "minor": device.minor}
        if device.HasField("file_mode"):
            new["fileMode"] = device.file_mode.value
        if device.HasField("uid"):
            new["uid"] = device.uid.value
        if device.HasField("gid"):
            new["gid"] = device.gid.value
        devices.append(new)
        rule: DeviceRule = {"allow": True, "type": device.type, "major": device.major, "minor": device.minor}
        rule["access"] = "rwm" if device.type == "b" else "rw"
        linux.setdefault("resources", {}).setdefault("devices", []).append(rule)


def _namespaces(linux: Linux, wanted: Iterable[nri.LinuxNamespace]) -> None:
    for namespace in wanted:
        type, marked = unmark(namespace.type)
        new = next((each.copy() for each in NAMESPACES if each["type"] == type), None)
        if new is None:
            known = ", ".join(each["type"] for each in NAMESPACES)
            raise InvalidArgument(f"namespace {type!r} is not known, there are {known}")
        namespaces = linux.setdefault("namespaces", [])
        if namespace.path:
            new["path"] = namespace.path
        place = next((place for place, each in enumerate(namespaces) if each["type"] == type), len(namespaces))
        namespaces[place : place + 1] = [] if marked else [new]


def _rdt(linux: Linux, wanted: nri.LinuxRdt) -> None:
    if wanted.remove:
        linux.pop("intelRdt", None)
    if wanted.HasField("clos_id"):
        linux.setdefault("intelRdt", {})["closID"] = wanted.clos_id.value
    if wanted.HasField("schemata"):
        linux.setdefault("intelRdt", {})["schemata"] = list(wanted.schemata.value)
    if wanted.HasField("enable_monitoring"):
        linux.setdefault("intelRdt", {})["enableMonitoring"] = wanted.enable_monitoring.value


def _mounts(spec: Spec, wanted: Sequence[nri.Mount], propagation: Callable[[str], str]) -> None:
    if not wanted:
        return
    for mount in wanted:
        destination, marked = unmark(mount.destination)
        spec["mounts"] = [each for each in spec["mounts"] if each["destination"] != destination]
        if marked:
            continue
        new: Mount = {"destination": destination}
        if mount.type:
            new["type"] = mount.type
        if mount.source:
            new["source"] = mount.source
        if mount.options:
            new["options"] = list(mount.options)
        _propagate(spec["linux"], mount, propagation)
        spec["mounts"].append(new)
    spec["mounts"].sort(key=lambda each: (_depth(each["destination"]), each["destination"]))


def _propagate(linux: Linux, mount: nri.Mount, propagation: Callable[[str], str]) -> None:
    """Let the root's propagation allow the mount's; the last option that speaks of it counts."""
    asked = next((option for option in reversed(mount.options) if option in (SHARED, SLAVE, "rprivate")), "")
    accepted = {SHARED: (SHARED,), SLAVE: (SHARED, SLAVE)}.get(asked)
    if accepted is None:
        return
    found = propagation(mount.source)
    if found not in accepted:
        raise InvalidArgument(f'path "{mount.source}" mount propagation is "{found}", not "{" or ".join(accepted)}"')
    if asked == SHARED or linux.get("rootfsPropagation") not in (SHARED, SLAVE):
        linux["rootfsPropagation"] = asked


def _depth(destination: str) -> int:
    return posixpath.normpath(destination).count("/")
