"""Fits specs to a daemon in a user namespace: what it cannot do is left out if it is a default, and refused if not."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.errors import FailedPrecondition

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Mount, Resources, Spec

WHOLE_RANGE = ["0", "0", "4294967295"]
"""user_namespaces(7): the map of the initial user namespace."""
CGROUPS = Path("/sys/fs/cgroup")
LIMITS = ("memory", "cpu", "pids", "blockIO", "hugepageLimits", "rdma", "unified")
# The whole tree of the host: mount(2) allows a sysfs of its own only to who owns the network namespace.
BOUND_SYS: Mount = {
    "destination": "/sys",
    "type": "bind",
    "source": "/sys",
    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
}


@functools.cache
def in_user_namespace(uid_map: Path = Path("/proc/self/uid_map")) -> bool:
    """Return whether this daemon is in a user namespace."""
    return uid_map.read_text().split() != WHOLE_RANGE


@functools.cache
def has_control_groups(top: Path = CGROUPS) -> bool:
    """Return whether groups can be made: those of version 2, if the directory was delegated to this user."""
    return (
        (top / "cgroup.controllers").exists() and os.access(top, os.W_OK) and os.access(top / "cgroup.procs", os.W_OK)
    )


@functools.cache
def owns_network() -> bool:
    """Return whether the daemon's network namespace belongs to its user namespace."""
    return os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK)


def fitted(spec: bytes, id: str) -> bytes:
    """Return the spec as this daemon can run it: the same one outside of user namespaces.

    Raises FailedPrecondition for limits that cannot be set.
    """
    if not in_user_namespace():
        return spec
    try:
        wanted: Spec = json.loads(spec)
        fit(wanted, id, has_control_groups(), owns_network())
    except (ValueError, AttributeError, TypeError, RecursionError):
        # A malformed spec is the shim's to refuse, with its own words.
        return spec
    return json.dumps(wanted).encode()


def fit(spec: Spec, id: str, control_groups: bool, network: bool) -> None:
    """Change a spec for a daemon that has control groups and a network namespace of its own, or has not."""
    linux, process = spec.get("linux") or {}, spec.get("process") or {}
    if not control_groups:
        resources = linux.get("resources") or {}
        if limits := ", ".join(_limits(resources)):
            raise FailedPrecondition(
                f'container "{id}": this rootless daemon cannot set limits ({limits}); leave them out, or give it '
                "control groups of version 2 (docs/rootless.md)"
            )
        linux.pop("cgroupsPath", None)
        linux.pop("resources", None)
    if "oomScoreAdj" in process:
        # proc(5): lower than its own needs CAP_SYS_RESOURCE outside of the user namespace
        process["oomScoreAdj"] = max(process["oomScoreAdj"], int(Path("/proc/self/oom_score_adj").read_text()))
    if not network and not _own_network(spec):
        spec["mounts"] = [BOUND_SYS if each.get("type") == "sysfs" else each for each in spec.get("mounts") or ()]


def _limits(resources: Resources) -> Iterator[str]:
    """Yield the controllers that have a limit; an empty object and values of 0 are none."""
    for name in LIMITS:
        found: object = resources.get(name)
        if any(found.values()) if isinstance(found, dict) else found:
            yield name


def _own_network(spec: Spec) -> bool:
    namespaces = (spec.get("linux") or {}).get("namespaces") or ()
    return any(each.get("type") == "network" for each in namespaces)
