"""Devices of the Container Device Interface: which a container gets (docs/containerd 5.7)."""

from __future__ import annotations

from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import RuntimeConfig
from windlass_oci import cdi
from windlass_oci.cdi import is_qualified
from windlass_oci.runtime_spec import Spec

ANNOTATION = "cdi.k8s.io/"


def inject(spec: Spec, config: cri.ContainerConfig, settings: RuntimeConfig) -> None:
    """Change a spec, which has its user already, as the client's devices want it. Blocks; raises Unknown.

    Only what the client names counts: an image's labels and annotations do not.
    """
    names = wanted(config)
    if not settings.enable_cdi:
        if config.CDI_devices:
            listed = ", ".join(each.name for each in config.CDI_devices)
            raise Unknown(f"CDI devices ({listed[:200]}) requested but CDI support is explicitly disabled")
        return
    if names:
        cdi.inject(spec, names, settings.cdi_spec_dirs)


def wanted(config: cri.ContainerConfig) -> list[str]:
    """Return the names of devices, those of the field first, each once. Raises Unknown for a bad annotation."""
    found = [each.name for each in config.CDI_devices]
    for key, value in sorted(config.annotations.items()):
        if not key.startswith(ANNOTATION):
            continue
        for name in value.split(","):
            if not is_qualified(name):
                raise Unknown(
                    f'failed to parse CDI device annotations: invalid CDI device name "{name[:100]}" in {key[:100]}'
                )
            found.append(name)
    return list(dict.fromkeys(found))
