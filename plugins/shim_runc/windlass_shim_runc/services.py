"""What a shim serves: the Task API, in both of its versions, and the Sandbox API."""

from __future__ import annotations

from windlass_shim_runc.sandbox_service import SANDBOX, SANDBOX_METHODS, SandboxService
from windlass_shim_runc.task_service import TASK, TASK_METHODS, TaskService

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from windlass_shim_runc.inventory import Inventory
    from windlass_shim_runc.server import Service


def services(inventory: Inventory, on_shutdown: Callable[[], None]) -> Mapping[str, Service]:
    """Return the services of a shim that holds ``inventory``, by their full names; ``on_shutdown`` ends the shim."""
    task = TASK_METHODS, TaskService(inventory, on_shutdown)
    sandbox = SANDBOX_METHODS, SandboxService(inventory, on_shutdown)
    return {**dict.fromkeys(TASK, task), SANDBOX: sandbox}
