"""Merges what plugins want of a container's resources, when it is created and when it is updated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.owners import Owners

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

FIELDS: Mapping[str, nri.Field.ValueType] = {
    "limit": nri.MemLimit,
    "reservation": nri.MemReservation,
    "swap": nri.MemSwapLimit,
    "kernel": nri.MemKernelLimit,
    "kernel_tcp": nri.MemTCPLimit,
    "swappiness": nri.MemSwappiness,
    "disable_oom_killer": nri.MemDisableOomKiller,
    "use_hierarchy": nri.MemUseHierarchy,
    "shares": nri.CPUShares,
    "quota": nri.CPUQuota,
    "period": nri.CPUPeriod,
    "realtime_runtime": nri.CPURealtimeRuntime,
    "realtime_period": nri.CPURealtimePeriod,
    "cpus": nri.CPUSetCPUs,
    "mems": nri.CPUSetMems,
    "blockio_class": nri.BlockioClass,
    "rdt_class": nri.RdtClass,
    "pids": nri.PidsLimit,
    "cgroups_path": nri.CgroupsPath,
    "oom_score_adj": nri.OomScoreAdj,
    "io_priority": nri.IoPriority,
    "seccomp_policy": nri.SeccompPolicy,
    "scheduler": nri.LinuxSched,
    "memory_policy": nri.MemoryPolicy,
    "clos_id": nri.RdtClosID,
    "schemata": nri.RdtSchemata,
    "enable_monitoring": nri.RdtEnableMonitoring,
}
"""What is set as a whole, by the names that it has in its message."""

M = TypeVar("M", bound=Message)


class Claim:
    """One plugin's claims to fields of one container."""

    def __init__(self, owners: Owners, container: str, plugin: str) -> None:
        """Claim for ``plugin``."""
        self._owners = owners
        self._container = container
        self.plugin = plugin

    def __call__(self, field: nri.Field.ValueType, key: str | None = None) -> None:
        """Own a field or one of its entries; raises Conflict."""
        self._owners.claim(self._container, field, self.plugin, key)

    def clear(self, field: nri.Field.ValueType, key: str | None = None) -> None:
        """Let only this plugin set anew what it has removed."""
        self._owners.clear(self._container, field, self.plugin, key)

    def share(self, field: nri.Field.ValueType) -> None:
        """Own a field together with others."""
        self._owners.share(self._container, field, self.plugin)


def merge_resources(wanted: nri.LinuxResources, targets: Sequence[nri.LinuxResources], claim: Claim) -> None:
    """Claim and set in all ``targets`` what ``wanted`` has; rules for devices are not owned, and left out."""
    merge_fields(wanted.memory, [target.memory for target in targets], claim)
    merge_fields(wanted.cpu, [target.cpu for target in targets], claim)
    for limit in wanted.hugepage_limits:
        claim(nri.HugepageLimits, limit.page_size)
        for target in targets:
            put(target.hugepage_limits, limit, lambda each: each.page_size)
    for key, value in wanted.unified.items():
        claim(nri.CgroupsUnified, key)
        for target in targets:
            target.unified[key] = value
    merge_fields(wanted, targets, claim)


def merge_fields(wanted: Message, targets: Sequence[Message], claim: Claim) -> None:
    """Claim what ``wanted`` has of the fields in the table, and set it in the targets that have such a field."""
    for descriptor, value in wanted.ListFields():
        name = descriptor.name
        if name not in FIELDS:
            continue
        claim(FIELDS[name])
        for target in targets:
            if name not in target.DESCRIPTOR.fields_by_name:
                continue
            if isinstance(value, Message):
                getattr(target, name).CopyFrom(value)
            else:
                setattr(target, name, value)


def put(entries: RepeatedCompositeFieldContainer[M], entry: M, name: Callable[[M], str]) -> None:
    """Let ``entry`` replace the one that has the same name, or be the last."""
    for old in entries:
        if name(old) == name(entry):
            old.CopyFrom(entry)
            return
    entries.append(entry)
