"""The default validator: refuses adjustments that an administrator has forbidden, and asks for required plugins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from windlass.errors import Unknown
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.merging import Merged


class Rejected(Unknown):
    """A validator refuses the adjustments of a container; the message names plugin and field."""


@dataclass(frozen=True)
class Config:
    """What the default validator refuses; the fields are NRI's configuration keys."""

    enable: bool = False
    reject_oci_hook_adjustment: bool = False
    reject_runtime_default_seccomp_adjustment: bool = False
    reject_unconfined_seccomp_adjustment: bool = False
    reject_custom_seccomp_adjustment: bool = False
    reject_namespace_adjustment: bool = False
    reject_sysctl_adjustment: bool = False
    required_plugins: tuple[str, ...] = ()
    tolerate_missing_plugins_annotation: str = ""


class DefaultValidator:
    """Checks requests as NRI's own default validator does."""

    def __init__(self, config: Config) -> None:
        """Refuse what ``config`` says."""
        raise NotImplementedError

    def validate(self, request: nri.ValidateContainerAdjustmentRequest) -> None:
        """Raise Rejected for adjustments that the configuration forbids."""
        raise NotImplementedError


def request(
    pod: nri.PodSandbox, container: nri.Container, merged: Merged, plugins: Iterable[tuple[str, str]]
) -> nri.ValidateContainerAdjustmentRequest:
    """Return what validators get: the container as it was, what plugins did to it, and who.

    ``plugins`` are index and name of all that were asked.
    """
    raise NotImplementedError
