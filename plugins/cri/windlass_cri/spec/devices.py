"""The devices of a container (docs/containerd 5.7)."""

from __future__ import annotations

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_oci.devices import ANY, DEVICES, below, device, named, rule
from windlass_oci.runtime_spec import Device, Spec


def set_devices(spec: Spec, config: cri.ContainerConfig, host: bool, every: bool = False, owned: bool = False) -> None:
    """Give the devices that the client names; a privileged container has all of the host, unless not ``host``.

    With ``every`` such a container may use all devices even then. With ``owned`` named devices belong to the user and
    the group that the client has the container run as. Raises Unknown.
    """
    rules, security = spec["linux"]["resources"]["devices"], config.linux.security_context
    devices = spec["linux"].get("devices") or []
    for each in config.devices:
        for made in named(each.host_path, each.container_path):
            devices.append(own(made, security) if owned else made)
            rules.append(rule(made, each.permissions or ANY))
    if security.privileged and (host or every):
        rules[:] = [{"allow": True, "access": ANY}]
    if security.privileged and host:
        devices += [device(path, str(path)) for path in below(DEVICES)]
    if devices:
        spec["linux"]["devices"] = devices


def own(made: Device, security: cri.LinuxContainerSecurityContext) -> Device:
    """Return a device that belongs to the user and the group of a client; root means the host's owner."""
    uid, gid = security.run_as_user.value, security.run_as_group.value
    return {**made, "uid": uid or made["uid"], "gid": gid or made["gid"]}
