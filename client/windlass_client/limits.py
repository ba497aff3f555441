"""`update`: other limits for a container, at once if it runs, and in its record for its next start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument
from windlass_client import lookup
from windlass_client.arguments import parse_size
from windlass_client.labels import RESTART
from windlass_client.lifecycle import asked, restarts, tasks
from windlass_client.live import live_pid
from windlass_client.namespace import from_message
from windlass_oci.payloads import SPEC, read_spec, to_payload
from windlass_oci.resources import CPU_PERIOD
from windlass_remote.messages import any_of

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client
    from windlass_oci.runtime_spec import CPU, Memory, Resources

RESOURCES = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"


@dataclass(frozen=True)
class Limits:
    """What is to change; None and empty texts leave a limit as it is."""

    memory: str = ""
    memory_reservation: str = ""
    memory_swap: str = ""
    cpus: float | None = None
    cpu_shares: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int | None = None

    def any(self) -> bool:
        """Return whether there is a change at all."""
        return self != Limits()


async def update(client: Client, word: str, limits: Limits, restart: str = "") -> None:
    """Change a container's limits and its restart policy. Raises NotFound, InvalidArgument, and others."""
    container = await lookup.container(client, word)
    labels = await _restart(client, container, restart) if restart else {}
    spec = read_spec(container.id, container.spec.value)
    if limits.any():
        resources = spec["linux"].setdefault("resources", {})
        changed = change(resources, limits)
        if await live_pid(client, container.id):
            await client.tasks.update(container.id, any_of(to_payload(RESOURCES, changed)))
    await client.containers.set_spec(container.id, any_of(to_payload(SPEC, spec)), labels)


async def _restart(client: Client, container: Container, text: str) -> Mapping[str, str]:
    """Return the labels for another restart policy: of a container that runs, those of the monitor too."""
    policy = restarts.check(text)
    wanted = asked.of(from_message(container))
    if policy and wanted.remove:
        raise InvalidArgument(f"container {container.id} is removed when it ends (--rm), so it cannot be restarted")
    if not await live_pid(client, container.id):
        return {RESTART: policy}
    uri = tasks.output_uri(client, wanted)
    return {RESTART: policy, **(restarts.started(policy, uri, counted=True) or restarts.FORGOTTEN)}


def change(resources: Resources, limits: Limits) -> Resources:
    """Change a container's resources, and return those that a runtime has to know of: the rules for devices stay."""
    memory, cpu = _memory(resources.get("memory") or {}, limits), _cpu(resources.get("cpu") or {}, limits)
    if memory:
        resources["memory"] = memory
    if cpu:
        resources["cpu"] = cpu
    if limits.pids is not None:
        resources["pids"] = {"limit": limits.pids if limits.pids > 0 else -1}
    changed: Resources = {**resources}
    changed.pop("devices", None)
    return changed


def _memory(memory: Memory, limits: Limits) -> Memory:
    if limits.memory:
        memory["limit"] = parse_size(limits.memory)
    if limits.memory_reservation:
        memory["reservation"] = parse_size(limits.memory_reservation)
    if limits.memory_swap:
        memory["swap"] = -1 if limits.memory_swap == "-1" else parse_size(limits.memory_swap)
    limit, swap = memory.get("limit", 0), memory.get("swap", -1)
    if 0 < swap < limit:
        raise InvalidArgument(
            f"memory limit {limit} is above the limit {swap} of memory and swap; change that too, by --memory-swap"
        )
    return memory


def _cpu(cpu: CPU, limits: Limits) -> CPU:
    if limits.cpus is not None:
        if limits.cpu_quota is not None or limits.cpu_period is not None:
            raise InvalidArgument("--cpus excludes --cpu-quota and --cpu-period: it sets both")
        if not 0.01 <= limits.cpus <= 4096:
            raise InvalidArgument(f"--cpus {limits.cpus:g} is out of range: 0.01 to 4096")
        cpu["quota"], cpu["period"] = int(limits.cpus * CPU_PERIOD), CPU_PERIOD
    if limits.cpu_quota is not None:
        cpu["quota"] = limits.cpu_quota
    if limits.cpu_period is not None:
        cpu["period"] = limits.cpu_period
    if limits.cpu_shares is not None:
        cpu["shares"] = limits.cpu_shares
    if limits.cpuset_cpus:
        cpu["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        cpu["mems"] = limits.cpuset_mems
    return cpu
