"""All that a container will be, read from its bundle and checked, before anything is done for it."""

from __future__ import annotations

from windlass_oci_runtime import cgroups, mounts, namespaces, specification
from windlass_oci_runtime.identity import Process
from windlass_oci_runtime.seccomp import Filter
from windlass_oci_runtime.state import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Plan:
    """A container to be made."""

    __slots__ = (
        "bundle",
        "cgroups",
        "devices",
        "filter",
        "hooks",
        "id",
        "is_readonly",
        "joined",
        "masked_paths",
        "mounts",
        "new",
        "process",
        "propagation",
        "readonly_paths",
        "resources",
        "rootfs",
        "spec",
        "sysctls",
    )

    def __init__(self, id: str, bundle: str, cache: str) -> None:
        """Read a bundle; ``cache`` is a directory for compiled filters.

        Raises FailedPrecondition, InvalidArgument, Unimplemented.
        """
        spec = specification.load(bundle)
        # Any: JSON, whose shape has been checked.
        linux: dict[str, Any] = spec["linux"]
        root = spec["root"]
        self.id = id
        self.bundle = bundle
        self.spec = spec
        self.process = Process(spec["process"])
        self.rootfs = root["path"] if root["path"].startswith("/") else f"{bundle}/{root['path']}"
        self.is_readonly: bool = root.get("readonly", False)
        self.mounts = mounts.planned(spec.get("mounts") or [])
        self.devices: list[dict[str, Any]] = linux.get("devices") or []
        self.propagation: str = linux.get("rootfsPropagation", "")
        self.masked_paths: list[str] = linux.get("maskedPaths") or []
        self.readonly_paths: list[str] = linux.get("readonlyPaths") or []
        self.sysctls: dict[str, str] = linux.get("sysctl") or {}
        self.resources: dict[str, Any] = linux.get("resources") or {}
        self.cgroups = cgroups.places(linux, id)
        self.new = namespaces.new(linux.get("namespaces") or [])
        self.filter = Filter(linux["seccomp"], cache) if linux.get("seccomp") else None
        self.hooks: dict[str, list[dict[str, Any]]] = spec.get("hooks") or {}
        self.joined: list[tuple[int, int]] = []

    def state(self, status: str, pid: int) -> dict[str, object]:
        """Return the container's state in the words of the specification, as hooks get it."""
        return {
            "ociVersion": VERSION,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
            "annotations": self.spec.get("annotations", {}),
        }

    def open_namespaces(self) -> None:
        """Open the namespaces that have a path. Raises InvalidArgument."""
        self.joined = namespaces.opened(self.spec["linux"].get("namespaces") or [])
