"""A container's scope, from its start to its end: what is said to systemd, and what is written beside that."""

from __future__ import annotations

from windlass_oci_runtime import cgroups
from windlass_oci_runtime import scope_properties as properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_oci_runtime.json_types import Json
    from windlass_oci_runtime.plan import Plan


def enroll(plan: Plan, pid: int) -> None:
    """Have systemd make the scope of ``plan`` with the process ``pid``.

    Raises AlreadyExists, InvalidArgument, FailedPrecondition, DeadlineExceeded, with the unit.
    """
    from windlass_oci_runtime import systemd  # a shim without systemd does not carry it

    assert plan.scope
    unified = cgroups.is_unified(plan.cgroups)
    wanted = dict(properties.of_scope(plan.id, plan.scope.slice, pid, unified))
    wanted |= properties.of_resources(plan.resources, unified)
    wanted |= properties.of_devices(plan.resources["devices"], properties.device_groups())
    wanted |= properties.of_annotations(plan.spec.get("annotations") or {})
    systemd.start(plan.scope.name, wanted.items())


def change(unit: str, places: list[str], resources: Json) -> None:
    """Tell systemd of new limits. Raises FailedPrecondition, DeadlineExceeded, with the unit."""
    from windlass_oci_runtime import systemd

    systemd.change(unit, properties.of_resources(resources, cgroups.is_unified(places)))


def end(unit: str) -> None:
    """Let systemd forget the scope. Raises FailedPrecondition, DeadlineExceeded, with the unit."""
    from windlass_oci_runtime import systemd

    systemd.stop(unit)
