"""Applies an adjustment to a container's OCI spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_oci.runtime_spec import Spec


@dataclass(frozen=True)
class Unresolved:
    """What only the runtime can resolve, by its own configuration."""

    cdi_devices: Sequence[str] = ()
    """CDI names to inject."""
    blockio_class: str | None = None
    """A class of block I/O; an empty one takes the container out of its class."""
    rdt_class: str | None = None
    """A class of RDT; an empty one takes the container out of its class."""


def apply(spec: Spec, adjustment: nri.ContainerAdjustment) -> Unresolved:
    """Change ``spec`` as ``adjustment`` says and return what is left to the caller.

    Raises InvalidArgument for a value that no spec can hold.
    """
    raise NotImplementedError


def apply_resources(spec: Spec, resources: nri.LinuxResources) -> Unresolved:
    """Change only the resources of ``spec``, as for an update."""
    raise NotImplementedError
