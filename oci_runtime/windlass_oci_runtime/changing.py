"""Changes a container that runs: its limits, and whether it stands still."""

from __future__ import annotations

from windlass.errors import Error, FailedPrecondition
from windlass_oci_runtime import cgroups, enrolling, state
from windlass_oci_runtime.cgroup_journal import Journal
from windlass_oci_runtime.shapes import RESOURCES, checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from windlass_oci_runtime.json_types import Json


def update(container: state.Container, resources: Json) -> None:
    """Set limits; what ``resources`` does not name stays, and devices do. A failure leaves all as it was.

    Raises NotFound, FailedPrecondition, InvalidArgument, OSError with the file that Linux did not take.
    """
    found = container.read()
    status = container.status(found)
    if status == state.STOPPED:
        raise FailedPrecondition(f"container {container.id} is not running, so it has no limits to change")
    wanted = {name: value for name, value in checked(resources, RESOURCES, "resources").items() if name != "devices"}
    before = found.get("resources") or {}
    merged = {
        name: {**(before.get(name) or {}), **value} if isinstance(value, dict) else value
        for name, value in {**before, **wanted}.items()
    }
    journal = Journal()
    try:
        cgroups.limit(found["cgroups"], wanted, journal)
        if unit := found.get("unit"):
            enrolling.change(unit, found["cgroups"], {name: merged[name] for name in wanted})
            cgroups.limit(found["cgroups"], wanted)  # systemd has rounded some
    except (Error, OSError):
        journal.undo(cgroups.write)
        raise
    found["resources"] = merged
    container.write(found)


def pausing(container: state.Container, frozen: bool) -> Iterator[None]:
    """Pause a container, or let it go on; yields as long as the caller is to wait for `cgroups.PAUSE`.

    Raises NotFound, FailedPrecondition, DeadlineExceeded.
    """
    found = container.read()
    status = container.status(found)
    if frozen and status not in (state.RUNNING, state.CREATED):
        raise FailedPrecondition(f"cannot pause container {container.id}: it is {status}, not running")
    if not frozen and status != state.PAUSED:
        raise FailedPrecondition(f"cannot resume container {container.id}: it is {status}, not paused")
    yield from cgroups.freezing(found["cgroups"], frozen)
