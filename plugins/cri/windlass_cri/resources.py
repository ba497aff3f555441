"""Limits of a container's control group, in CRI's words and in the runtime specification's."""

from __future__ import annotations

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_oci.runtime_spec import CPU, Memory, Resources, Spec


def set_resources(spec: Spec, wanted: cri.LinuxContainerResources) -> None:
    """Set what is not zero, and how likely the container is to be killed when memory is short."""
    spec["linux"]["resources"] = {**spec["linux"]["resources"], **resources(wanted)}
    spec["process"]["oomScoreAdj"] = wanted.oom_score_adj


def resources(wanted: cri.LinuxContainerResources) -> Resources:
    """Return the limits that are not zero; swap has the memory's limit unless it has its own."""
    cpu: CPU = {}
    if wanted.cpu_shares:
        cpu["shares"] = wanted.cpu_shares
    if wanted.cpu_quota:
        cpu["quota"] = wanted.cpu_quota
    if wanted.cpu_period:
        cpu["period"] = wanted.cpu_period
    if wanted.cpuset_cpus:
        cpu["cpus"] = wanted.cpuset_cpus
    if wanted.cpuset_mems:
        cpu["mems"] = wanted.cpuset_mems
    memory: Memory = {}
    if wanted.memory_limit_in_bytes:
        memory["limit"] = wanted.memory_limit_in_bytes
        memory["swap"] = wanted.memory_swap_limit_in_bytes or wanted.memory_limit_in_bytes
    found: Resources = {}
    if cpu:
        found["cpu"] = cpu
    if memory:
        found["memory"] = memory
    if wanted.unified:
        found["unified"] = dict(wanted.unified)
    return found
