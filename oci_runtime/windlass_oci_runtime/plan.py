"""All that a container will be, read from its bundle and checked, before anything is done for it."""

from __future__ import annotations

import os

from windlass_linux.calls import CLONE_NEWTIME, CLONE_NEWUSER, MS_SHARED
from windlass_oci_runtime import (
    attributes,
    cgroups,
    hooks,
    idmapped,
    mounts,
    namespaces,
    rootfs,
    specification,
    userns,
)
from windlass_oci_runtime.identity import Process
from windlass_oci_runtime.scope import Scope
from windlass_oci_runtime.seccomp import Filter
from windlass_oci_runtime.state import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_oci_runtime.json_types import Document


class Plan:
    """A container to be made."""

    __slots__ = (
        "attributes",
        "bundle",
        "cgroups",
        "devices",
        "filter",
        "has_keyring",
        "hooks",
        "id",
        "is_readonly",
        "joined",
        "maps",
        "masked_paths",
        "mounts",
        "new",
        "process",
        "propagation",
        "readonly_paths",
        "resources",
        "rootfs",
        "scope",
        "spec",
        "sysctls",
        "time_offsets",
    )

    def __init__(self, id: str, bundle: str, cache: str, by_systemd: bool = False) -> None:
        """Read a bundle; ``cache`` is a directory for compiled filters. systemd makes the control groups on demand.

        Raises FailedPrecondition, InvalidArgument, Unimplemented.
        """
        spec = specification.load(bundle)
        # Any: JSON, whose shape has been checked.
        linux: Document = spec["linux"]
        root = spec["root"]
        self.id = id
        self.bundle = bundle
        self.spec = spec
        self.process = Process(spec["process"])
        self.rootfs = root["path"] if root["path"].startswith("/") else f"{bundle}/{root['path']}"
        self.is_readonly: bool = root.get("readonly", False)
        self.mounts = mounts.planned(spec.get("mounts") or [])
        self.devices: list[Document] = linux.get("devices") or []
        self.propagation: str = linux.get("rootfsPropagation", "")
        self.masked_paths: list[str] = linux.get("maskedPaths") or []
        self.readonly_paths: list[str] = linux.get("readonlyPaths") or []
        self.sysctls: dict[str, str] = linux.get("sysctl") or {}
        resources = linux.get("resources") or {}
        # What no rule allows is refused, also where there are no rules (GHSA-g54h-m393-cpwq).
        devices = [{"allow": False}, *(resources.get("devices") or [])]
        self.resources: Document = {**resources, "devices": devices}
        self.scope = Scope(linux.get("cgroupsPath", ""), id) if by_systemd else None
        self.cgroups = self.scope.places() if self.scope else cgroups.places(linux, id)
        self.new = namespaces.new(linux.get("namespaces") or [])
        self.filter = Filter(linux["seccomp"], cache) if linux.get("seccomp") else None
        self.hooks = hooks.checked(spec.get("hooks") or {})
        self.has_keyring = True
        self.joined: list[tuple[int, int]] = []
        self.maps = userns.of_container(linux, bool(self.new & CLONE_NEWUSER), self.joins("user"))
        self.attributes = list(attributes.steps(spec["process"], linux))
        attributes.check_labels(spec["process"], linux.get("mountLabel", ""))
        self.time_offsets = namespaces.time_offsets(linux, bool(self.new & CLONE_NEWTIME))

    def joins(self, kind: str) -> bool:
        """Return whether a namespace of this kind is given by its path."""
        return any(each["type"] == kind and each.get("path") for each in self.spec["linux"].get("namespaces") or [])

    @property
    def is_staged(self) -> bool:
        """Whether a process has to join namespaces first, in which or beside which init's are made."""
        joined = any(each.get("path") for each in self.spec["linux"].get("namespaces") or [])
        return self.joins("user") or self.joins("pid") or (joined and bool(self.new & CLONE_NEWUSER))

    def open_sources(self) -> None:
        """Open what init could not bind: sources that another user of the host owns, and mounts with mapped IDs.

        And what is to stay shared with the host, of which init's mounts are cut off.
        Raises OSError, InvalidArgument with the destination.
        """
        for mount in self.mounts:
            is_shared = any(each & MS_SHARED for each in mount.propagation)
            if mount.is_bind and (self.maps or mount.is_idmapped or is_shared):
                try:
                    mount.tree = rootfs.bound(mount)
                    if mount.is_idmapped:
                        idmapped.apply(mount, self.maps)
                except OSError as error:
                    what = f"mount {mount.source[:200]} to {mount.destination[:200]}: {error.strerror}"
                    raise OSError(error.errno, what) from error

    def close(self) -> None:
        """Close what `open_namespaces` and `open_sources` have opened."""
        for descriptor, _ in self.joined:
            os.close(descriptor)
        self.joined = []
        for mount in self.mounts:
            if mount.tree >= 0:
                os.close(mount.tree)
                mount.tree = -1

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
