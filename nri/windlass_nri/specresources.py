"""Sets what a container's resources are adjusted to in the resources of its OCI spec."""

from __future__ import annotations

from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_oci.runtime_spec import CPU, DeviceRule, Memory, Resources


def set_resources(spec: Resources, wanted: nri.LinuxResources) -> None:
    """Set what ``wanted`` has; classes of block I/O and RDT are left out."""
    _set_cpu(spec, wanted.cpu)
    _set_memory(spec, wanted.memory)
    for limit in wanted.hugepage_limits:
        others = [each for each in spec.get("hugepageLimits", []) if each["pageSize"] != limit.page_size]
        spec["hugepageLimits"] = [*others, {"pageSize": limit.page_size, "limit": limit.limit}]
    if wanted.unified:
        spec.setdefault("unified", {}).update(wanted.unified)
    if wanted.HasField("pids"):
        spec["pids"] = {"limit": wanted.pids.limit}  # -1 for no limit, as a runtime takes it too
    if wanted.devices:
        spec.setdefault("devices", []).extend(map(_rule, wanted.devices))


def _set_cpu(spec: Resources, wanted: nri.LinuxCPU) -> None:
    if not wanted.ListFields():
        return
    cpu: CPU = spec.setdefault("cpu", {})
    if wanted.HasField("shares"):
        cpu["shares"] = wanted.shares.value
    if wanted.HasField("quota"):
        cpu["quota"] = wanted.quota.value
    if wanted.HasField("period"):
        cpu["period"] = wanted.period.value
    if wanted.HasField("realtime_runtime"):
        cpu["realtimeRuntime"] = wanted.realtime_runtime.value
    if wanted.HasField("realtime_period"):
        cpu["realtimePeriod"] = wanted.realtime_period.value
    if wanted.cpus:
        cpu["cpus"] = wanted.cpus
    if wanted.mems:
        cpu["mems"] = wanted.mems


def _set_memory(spec: Resources, wanted: nri.LinuxMemory) -> None:
    if not wanted.ListFields():
        return
    memory: Memory = spec.setdefault("memory", {})
    if wanted.limit.value:  # with no swap beyond it, unless the plugin says how much
        memory["limit"] = memory["swap"] = wanted.limit.value
    if wanted.HasField("reservation"):
        memory["reservation"] = wanted.reservation.value
    if wanted.HasField("swap"):
        memory["swap"] = wanted.swap.value
    if wanted.HasField("kernel"):
        memory["kernel"] = wanted.kernel.value
    if wanted.HasField("kernel_tcp"):
        memory["kernelTCP"] = wanted.kernel_tcp.value
    if wanted.HasField("swappiness"):
        memory["swappiness"] = wanted.swappiness.value
    if wanted.HasField("disable_oom_killer"):
        memory["disableOOMKiller"] = wanted.disable_oom_killer.value
    if wanted.HasField("use_hierarchy"):
        memory["useHierarchy"] = wanted.use_hierarchy.value


def _rule(wanted: nri.LinuxDeviceCgroup) -> DeviceRule:
    rule: DeviceRule = {"allow": wanted.allow}
    if wanted.type:
        rule["type"] = wanted.type
    if wanted.HasField("major"):
        rule["major"] = wanted.major.value
    if wanted.HasField("minor"):
        rule["minor"] = wanted.minor.value
    if wanted.access:
        rule["access"] = wanted.access
    return rule
