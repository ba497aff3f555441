"""Sysctls that every pod with a network of its own has, whatever its client sends (docs/containerd 5.5)."""

from __future__ import annotations

from collections.abc import Mapping

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import RuntimeConfig
from windlass_cri.record import Pod

PORTS, PORTS_OF_LINUX = "net.ipv4.ip_unprivileged_port_start", "1024"
PING, PING_OF_LINUX = "net.ipv4.ping_group_range", "1 0"


def closed_by_default(config: RuntimeConfig) -> dict[str, str]:
    """Return the sysctls that keep shut what sandbox controllers would open."""
    closed = {} if config.enable_unprivileged_ports else {PORTS: PORTS_OF_LINUX}
    return closed if config.enable_unprivileged_icmp else {**closed, PING: PING_OF_LINUX}


def with_sysctls(pod: Pod, sysctls: Mapping[str, str]) -> bytes:
    """Return a pod's configuration for its controller, with ``sysctls`` that its client does not set."""
    if pod.host_network or not sysctls:
        return pod.config.SerializeToString()
    config = cri.PodSandboxConfig()
    config.CopyFrom(pod.config)
    config.linux.sysctls.update({key: value for key, value in sysctls.items() if key not in config.linux.sysctls})
    return config.SerializeToString()
