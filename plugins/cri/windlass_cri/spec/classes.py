"""Classes of block I/O and of RDT that annotations name. None can be configured here, so naming one is refused."""

from __future__ import annotations

from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Containerd

KINDS = {"blockio": "blockio", "rdt": "RDT"}


def refuse_classes(settings: Containerd, pod: cri.PodSandboxConfig, config: cri.ContainerConfig) -> None:
    """Refuse a container that is to have a class, unless ``settings`` have it left out. Raises Unknown."""
    ignored = {"blockio": settings.ignore_blockio_not_enabled_errors, "rdt": settings.ignore_rdt_not_enabled_errors}
    for kind, name in KINDS.items():
        wanted = named_class(kind, pod, config)
        if wanted and not ignored[kind]:
            raise Unknown(
                f"failed to set {name} class: {name} disabled, refusing to set {name} class of container "
                f'"{config.metadata.name}" to "{wanted[:100]}"; classes cannot be configured, set '
                f"containerd.ignore_{kind}_not_enabled_errors = true to leave them out"
            )


def named_class(kind: str, pod: cri.PodSandboxConfig, config: cri.ContainerConfig) -> str:
    """Return the class that annotations name: the container's, else the pod's for it, else the pod's for all."""
    beta = f"{kind}.resources.beta.kubernetes.io"
    own = config.annotations.get(f"io.kubernetes.cri.{kind}-class")
    for_it = pod.annotations.get(f"{beta}/container.{config.metadata.name}")
    return next((each for each in (own, for_it, pod.annotations.get(f"{beta}/pod")) if each is not None), "")
